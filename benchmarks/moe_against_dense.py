# SPDX-License-Identifier: Apache-2.0
"""The quickstart model against the dense model with the same active parameters, on the same tokens.

  benchmarks/moe_against_dense.py --build build/release [--seeds 0 1 2] [--iters 700] [--runs runs/moe_against_dense]

Trains configs/quickstart.yaml and configs/quickstart_dense.yaml with training.max_minutes=null for each seed, in turns, and
prints a table: final loss over all held-out bytes, paired differences, and the median time of a step. Runs that are
finished are not repeated.
"""
import argparse
import json
import statistics
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODELS = {"moe": "quickstart.yaml", "dense": "quickstart_dense.yaml"}


def train(args, model, seed):
    folder = args.runs / f"{model}_{seed}"
    subprocess.run([args.build / "bin/conclave", "train", ROOT / "configs" / MODELS[model],
                    "training.max_minutes=null", f"training.train_iters={args.iters}", f"run.seed={seed}",
                    f"run.output_dir={folder}", "evaluation.interval=null", "checkpoint.interval=null"],
                   check=True, stdout=subprocess.DEVNULL)
    final, seconds = None, []
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        final = record.get("final/bits_per_byte", final)
        if "perf/step_seconds" in record:
            seconds.append(record["perf/step_seconds"])
    return final, 1e3 * statistics.median(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=ROOT / "build/release")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--iters", type=int, default=700)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/moe_against_dense")
    args = parser.parse_args()
    print("| seed | MoE bits/byte | dense bits/byte | dense - MoE | ms a step, MoE / dense |")
    print("| --- | --- | --- | --- | --- |")
    differences = []
    for seed in args.seeds:
        (moe, moe_ms), (dense, dense_ms) = train(args, "moe", seed), train(args, "dense", seed)
        differences.append(dense - moe)
        print(f"| {seed} | {moe:.4f} | {dense:.4f} | {dense - moe:+.4f} | {moe_ms:.0f} / {dense_ms:.0f} |", flush=True)
    print(f"\nmean paired difference {statistics.mean(differences):+.4f} bits/byte over {len(differences)} seeds, "
          f"{args.iters} steps")


if __name__ == "__main__":
    main()

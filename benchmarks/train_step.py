# SPDX-License-Identifier: Apache-2.0
"""Optimizer steps per second of Conclave and of a plain PyTorch program of the same model, interleaved in one run.

  benchmarks/train_step.py --build build/release [--precision fp32] [--rounds 7] [--steps 4] [--config configs/quickstart.yaml]

First the same weights and batch must give the same objective and gradients; then both take turns. Printed: the median
step of each and the median of the ratios of neighbouring turns. Needs the packages of benchmarks/peers/requirements.txt.
"""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parent.parent
TOLERANCE = {"fp32": 2e-5, "bf16": 2e-2}  # of the norm of a tensor; chained layers get ten times that


class Program:
    def __init__(self, command, threads):
        env = dict(os.environ, OMP_NUM_THREADS=str(threads), GOMP_SPINCOUNT="10000")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.process.args[0]} ended early")
        return json.loads(line)

    def steps(self, count):
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        return self.read()["ms"]


def worst_gradient(folder):
    ours, theirs = load_file(folder / "gradients.safetensors"), load_file(folder / "gradients_peer.safetensors")
    if set(ours) != set(theirs):
        sys.exit(f"gradients of different tensors: {sorted(set(ours) ^ set(theirs))[:5]}")
    errors = {n: np.linalg.norm(ours[n] - theirs[n]) / max(np.linalg.norm(theirs[n]), 1e-12) for n in ours}
    return max(errors.items(), key=lambda item: item[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=ROOT / "build/release")
    parser.add_argument("--config", type=Path, default=ROOT / "configs/quickstart.yaml")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours = Program([args.build / "benchmarks/bench_train_step", args.config, folder,
                        f"training.precision={args.precision}"], args.threads)
        first = ours.read()
        peer = Program([sys.executable, ROOT / "benchmarks/peers/train_step.py", folder,
                        "--precision", args.precision], args.threads)
        second = peer.read()
        where, error = worst_gradient(folder)
        limit = 10 * TOLERANCE[args.precision]
        print(f"objective {first['objective']:.6f} / {second['objective']:.6f}; largest relative difference of a "
              f"gradient {error:.2e} ({where}), allowed {limit:.0e}")
        if error > limit:
            sys.exit("the programs disagree: no timing")
        times = {"conclave": [], "pytorch": []}
        ratios = []
        for turn in range(args.rounds + 1):
            a, b = ours.steps(args.steps), peer.steps(args.steps)
            if turn == 0:
                continue  # warm-up
            times["conclave"] += a
            times["pytorch"] += b
            ratios.append(statistics.median(b) / statistics.median(a))
        for who, values in times.items():
            median = statistics.median(values)
            print(f"{who:10} {median:8.1f} ms/step (min {min(values):.1f})  {1e3 * first['tokens'] / median:8.0f} tokens/s")
        print(f"conclave / pytorch: {statistics.median(ratios):.2f}x tokens/s (median of {len(ratios)} turns, "
              f"{min(ratios):.2f} to {max(ratios):.2f}); {args.precision}, {args.threads} threads, {platform.processor() or platform.machine()}")


if __name__ == "__main__":
    main()

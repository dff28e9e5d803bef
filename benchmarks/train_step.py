# SPDX-License-Identifier: Apache-2.0
"""Optimizer steps per second of Conclave and of a plain PyTorch program of the same model, interleaved in one run.

  benchmarks/train_step.py --build build/release [--precision fp32] [--rounds 7] [--steps 4] [--config configs/quickstart.yaml]

First the same weights and batch must give the same gradients; then both take turns. Printed: the median
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
FP32_TOLERANCE = 2e-4  # of the norm of a tensor; ten times that of one operation


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


def gradients(folder, name):
    return load_file(folder / f"gradients{name}.safetensors")


def distance(a, b):
    return np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-12)


def compare_fp32(folder):
    """Every tensor within the tolerance of a chain of layers."""
    ours, theirs = gradients(folder, ""), gradients(folder, "_peer")
    if set(ours) != set(theirs):
        sys.exit(f"gradients of different tensors: {sorted(set(ours) ^ set(theirs))[:5]}")
    where, error = max(((n, distance(ours[n], theirs[n])) for n in ours), key=lambda item: item[1])
    print(f"largest relative difference of a gradient {error:.2e} ({where}), allowed {FP32_TOLERANCE:.0e}")
    return error <= FP32_TOLERANCE


def compare_bf16(folder):
    """Roundings flip some routing decisions, so tensor by tensor there is no tolerance: all gradients together must lie
    as near to those of fp32 as PyTorch's."""
    exact = gradients(folder, "_fp32")
    error = {name: distance(*(np.concatenate([g[n].ravel() for n in exact]) for g in (gradients(folder, file), exact)))
             for name, file in (("conclave", ""), ("pytorch", "_peer"))}
    print(f"relative distance of all gradients from those of fp32: {error['conclave']:.2e} / {error['pytorch']:.2e}, "
          "allowed 1.5 times PyTorch's")
    return error["conclave"] <= 1.5 * error["pytorch"]


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
        print(f"objective {first['objective']:.6f} / {second['objective']:.6f}")
        if not (compare_fp32 if args.precision == "fp32" else compare_bf16)(folder):
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

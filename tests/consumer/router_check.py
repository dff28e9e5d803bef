#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""usage: router_check.py PROGRAM SCRATCH   whether PROGRAM has the router of docs/add_a_router.md in all its places"""
import json
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def check(program, folder):
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "examples/custom_router/tiny.yaml", folder)
    shutil.copy(ROOT / "LICENSE", folder / "text.txt")
    shutil.rmtree(folder / "runs", ignore_errors=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CONCLAVE_CACHE": str((folder / "cache").resolve())}

    def ask(code, words, *arguments):
        result = subprocess.run([program.resolve(), *arguments], cwd=folder, env=environment, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        print(f"$ {' '.join(arguments)}\n{result.stdout[:2000]}", flush=True)
        missing = [word for word in words if word not in result.stdout]
        if result.returncode != code or missing:
            sys.exit(f"exit code {result.returncode}, expected {code}; not said: {missing}")
        return result.stdout

    ask(0, ["tiny.yaml: ok"], "config", "check", "tiny.yaml")
    ask(0, ["step 3"], "train", "tiny.yaml")
    lines = [json.loads(line) for line in (folder / "runs/my_cosine/metrics.jsonl").read_text().splitlines()]
    if max(line["step"] for line in lines) != 3:
        sys.exit(f"metrics.jsonl does not end with step 3: {lines}")
    ask(0, ["my_cosine", "Cosines are divided by it."], "config", "explain", "model.moe.router.temperature")
    schema = json.loads(ask(0, [], "config", "schema"))
    if '"my_cosine"' not in json.dumps(schema):
        sys.exit("the schema does not know my_cosine")
    ask(2, ["did you mean 'my_cosine'?"], "config", "check", "tiny.yaml", "model.moe.router.type=my_cosin")
    ask(2, ["did you mean 'temperature'?"], "config", "check", "tiny.yaml", "model.moe.router.temperatur=1.0")
    ask(2, ["temperature"], "config", "check", "tiny.yaml", "model.moe.router.temperature=0")
    ask(2, ["7 experts", "there are 6"], "config", "check", "tiny.yaml", "model.moe.router.top_k=7")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    check(*(pathlib.Path(argument) for argument in sys.argv[1:]))

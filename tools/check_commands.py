#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the blocks of README.md and docs/*.md that are fenced as ```sh test, as a reader would.

usage: tools/check_commands.py PROGRAM | --self-test

The blocks of a page run in order in one scratch folder, which holds copies of configs/, docs/, README.md and LICENSE;
the folder of PROGRAM comes first on PATH. A command that fails fails the page. Nothing there may need the network,
and the cache is empty.
"""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools/lib"))
import doc_blocks  # noqa: E402

SHOWN = ("configs", "docs", "README.md", "LICENSE")
SECONDS = 120


def pages(root):
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def run_page(page, root, path):
    """Complaints about one page, and how many blocks ran."""
    tests = [block for block in doc_blocks.blocks(page) if block.language == "sh" and "test" in block.attributes]
    with tempfile.TemporaryDirectory() as folder:
        for name in SHOWN:
            source = root / name
            if source.exists() and tests:
                (shutil.copytree if source.is_dir() else shutil.copy)(source, pathlib.Path(folder) / name)
        environment = {**os.environ, "PATH": f"{path}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1",
                       "CONCLAVE_CACHE": f"{folder}/cache"}
        for number, block in enumerate(tests):
            try:
                result = subprocess.run(["bash", "-euo", "pipefail", "-c", block.text], cwd=folder, env=environment,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS)
            except subprocess.TimeoutExpired:
                return [f"{page}:{block.line}: took longer than {SECONDS} s"], number
            if result.returncode:
                return [f"{page}:{block.line}: exit code {result.returncode}\n{block.text}{result.stdout}"], number
    return [], len(tests)


def check(root, path):
    complaints, count = [], 0
    for page in pages(root):
        wrong, ran = run_page(page, root, path)
        complaints, count = complaints + wrong, count + ran
    return complaints, count


def self_test():
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        (root / "docs").mkdir()
        (root / "bin").mkdir()
        (root / "bin/answer").write_text("#!/bin/sh\necho 42\n")
        (root / "bin/answer").chmod(0o755)
        (root / "README.md").write_text("```sh test\nanswer > a\n```\n```sh\nfalse\n```\n```sh test\ngrep 42 a\n```\n")
        good = check(root, root / "bin")
        (root / "docs/bad.md").write_text("Text.\n\n```sh test\nanswer | grep 41\necho late\n```\n")
        complaints, _ = check(root, root / "bin")
    right = good == ([], 2) and len(complaints) == 1 and "bad.md:4: exit code 1" in complaints[0]
    print("as expected" if right else f"unexpected: {good} {complaints}")
    return 0 if right else 1


if __name__ == "__main__":
    if sys.argv[1:] == ["--self-test"]:
        sys.exit(self_test())
    if len(sys.argv) != 2 or not pathlib.Path(sys.argv[1]).is_file():
        sys.exit(__doc__)
    found, number_of_blocks = check(ROOT, pathlib.Path(sys.argv[1]).resolve().parent)
    print("\n".join(found) or f"{number_of_blocks} blocks ran")
    sys.exit(1 if found or not number_of_blocks else 0)

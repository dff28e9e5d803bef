#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints what ptxas says of every CUDA kernel: registers, shared memory and spilled bytes on each architecture.

usage: tools/kernel_table.py [--write] [--jobs N]

  --write   replace the table in docs/kernels.md
"""
import argparse
import concurrent.futures
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "kernels.md"
ARCHITECTURES = ("sm_80", "sm_90a", "sm_100a")
BEGIN, END = "<!-- table: tools/kernel_table.py --write -->", "<!-- end of table -->"
ENTRY = re.compile(
    r"Compiling entry function '(?P<name>\w+)'.*?(?P<spill>\d+) bytes spill stores.*?Used (?P<registers>\d+) registers"
    r"(?P<rest>[^\n]*)", re.DOTALL)


def fail(message):
    sys.exit(f"kernel_table: {message}")


def compile_one(job):
    source, architecture = job
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            ["nvcc", "-std=c++20", "-O3", "--expt-relaxed-constexpr", "-Xptxas", "-v", f"-arch={architecture}", "-cubin",
             "-o", f"{folder}/kernel.cubin", str(source)], capture_output=True, text=True)
    if done.returncode != 0:
        fail(f"nvcc failed for {source.name} on {architecture}:\n{done.stderr}")
    return source.name, architecture, [match.groupdict() for match in ENTRY.finditer(done.stderr)]


def short_names(mangled):
    """`permute_kernel<bfloat16, 8>` of the mangled name: what stands between the namespaces and the arguments."""
    text = subprocess.run(["c++filt", *mangled], capture_output=True, text=True, check=True).stdout
    names = []
    for line in text.splitlines():
        line = re.sub(r"\(anonymous namespace\)::|conclave::kernels::(cuda::)?|^void ", "", line)
        names.append(re.sub(r"(, )?\(\w+\)", r"\1", line[:line.index(">(") + 1] if ">(" in line else line.split("(")[0]))
    return dict(zip(mangled, names))


def table(results):
    rows = {}
    mangled = sorted({entry["name"] for _, _, entries in results for entry in entries})
    # An unnamed namespace has another hash in each compilation.
    names = short_names(mangled)
    for source, architecture, entries in results:
        for entry in entries:
            shared = re.search(r"(\d+) bytes smem", entry["rest"])
            row = rows.setdefault((source, names[entry["name"]]), {})
            row[architecture] = (entry["registers"], shared.group(1) if shared else "0", entry["spill"])
    lines = ["| file | kernel | registers " + ", ".join(ARCHITECTURES) + " | static shared bytes | spilled bytes |",
             "| --- | --- | --- | --- | --- |"]
    for (source, name), row in sorted(rows.items()):
        columns = [row[a] for a in ARCHITECTURES]
        lines.append(f"| {source} | `{name}` | {', '.join(c[0] for c in columns)} | {max(int(c[1]) for c in columns)} | "
                     f"{sum(int(c[2]) for c in columns)} |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="replace the table in docs/kernels.md")
    parser.add_argument("--jobs", type=int, default=2, help="compilers at once")
    arguments = parser.parse_args()
    jobs = [(source, a) for source in sorted((ROOT / "kernels").glob("*.cu")) for a in ARCHITECTURES]
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        lines = table(list(pool.map(compile_one, jobs)))
    if not arguments.write:
        print("\n".join(lines))
        return
    text = PAGE.read_text()
    if BEGIN not in text or END not in text:
        fail(f"{PAGE} has no place for the table")
    head, rest = text.split(BEGIN)
    PAGE.write_text(head + "\n".join([BEGIN, *lines]) + "\n" + END + rest.split(END)[1])


if __name__ == "__main__":
    main()

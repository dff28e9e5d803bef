#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks that C++ is formatted as .clang-format says, that sources name their licence, and that YAML has no tabs.

usage: tools/check_format.py [--self-test]

Ends with 77 (skipped) if nothing is wrong but there is no clang-format 14 to ask: other versions format differently.
"""
import pathlib
import re
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))
import source_tree  # noqa: E402

SKIPPED = 77
LICENCE = "SPDX-License-Identifier: Apache-2.0"
FORMATTED = (".h", ".cpp", ".cu", ".cuh")
LICENSED = FORMATTED + (".def", ".py", ".sh", ".cmake")
WARNING = re.compile(r"^(.*?):(\d+):\d+: (?:error|warning): ")


def clang_format():
    for name in ("clang-format-14", "clang-format"):
        path = shutil.which(name)
        if path and " 14." in subprocess.run([path, "--version"], capture_output=True, text=True).stdout:
            return path
    return None


def is_licensed(path, root):
    script = not path.suffix and path.relative_to(root).parts[0] in ("tools", ".ci")
    return path.suffix in LICENSED or path.name == "CMakeLists.txt" or script


def check(root):
    paths, complaints = source_tree.tracked(root), []
    for path in paths:
        name = path.relative_to(root)
        if is_licensed(path, root) and not any(LICENCE in line for line in path.read_text().split("\n")[:2]):
            complaints.append(f"{name}: '{LICENCE}' is missing from the first two lines")
        if path.suffix == ".yaml" and "configs" in name.parts and "\t" in path.read_text():
            complaints.append(f"{name}: has a tab; YAML is indented by spaces")
    return complaints + unformatted([path for path in paths if path.suffix in FORMATTED], root)


def unformatted(paths, root):
    """One complaint a file, at the first place."""
    program, places = clang_format(), {}
    if not program or not paths:
        return []
    command = [program, "--dry-run", "-Werror", "--style=file", *map(str, paths)]
    run = subprocess.run(command, capture_output=True, text=True)
    for line in run.stderr.split("\n"):
        match = WARNING.match(line)
        if match:
            places.setdefault(match[1], match[2])
    if run.returncode and not places:
        return [f"clang-format failed: {run.stderr.strip()}"]
    return [f"{pathlib.Path(file).relative_to(root)}:{line}: not formatted; clang-format -i mends it"
            for file, line in places.items()]


STYLE = {".clang-format": "BasedOnStyle: Google\n"}
HEAD = f"// {LICENCE}\n"
CASES = [
    ("a good tree", {**STYLE, "src/a.cpp": HEAD + "int a;\n", "tools/go": f"#!/bin/bash\n# {LICENCE}\n",
                     "configs/a.yaml": "a: 1\n"}, None),
    ("no licence", {**STYLE, "src/a.cpp": "int a;\n"}, "is missing"),
    ("no licence in a script", {"tools/go": "#!/bin/bash\ntrue\n"}, "is missing"),
    ("a tab", {"configs/small/a.yaml": "a:\n\tb: 1\n"}, "has a tab"),
]
if clang_format():
    CASES.append(("unformatted", {**STYLE, "src/a.cpp": HEAD + "int  a;\nint  b;\n"}, "src/a.cpp:2: not formatted"))

if __name__ == "__main__":
    if not clang_format():
        print("no clang-format 14: the formatting of C++ is NOT checked")
    try:
        source_tree.run(check, CASES)
    except SystemExit as end:
        sys.exit(SKIPPED if not end.code and not clang_format() else end.code)

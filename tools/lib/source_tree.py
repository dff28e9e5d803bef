# SPDX-License-Identifier: Apache-2.0
"""What the check_*.py scripts share: walking the sources, reporting, and the self-test frame."""
import pathlib
import subprocess
import sys
import tempfile

SOURCE_FOLDERS = ("src", "include", "tests", "kernels", "benchmarks", "examples", "tools", ".ci")
CPP = (".h", ".cpp", ".cu", ".cuh", ".def")


def files(root, suffixes, folders=SOURCE_FOLDERS, scripts=False):
    """Files below `folders` with one of the suffixes; with `scripts` also those of tools/ and .ci/ without."""
    for folder in folders:
        for path in sorted((root / folder).rglob("*")):
            if not path.is_file() or "__pycache__" in path.parts:
                continue
            if path.suffix in suffixes or (scripts and folder in ("tools", ".ci") and not path.suffix):
                yield path


def tracked(root):
    """What git would commit; where there is no git (a released archive), every file outside build and hidden folders."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
        paths = [root / name for name in sorted(set(names)) if name]
    except (OSError, subprocess.CalledProcessError):
        paths = [path for path in sorted(root.rglob("*")) if _is_source(path.relative_to(root).parts)]
    return [path for path in paths if path.is_file()]


def _is_source(parts):
    return parts[0] != "build" and "__pycache__" not in parts and not (
        any(part.startswith(".") for part in parts[:-1]) and parts[0] != ".ci")


def run(check, cases):
    """check(root) -> complaints. `--self-test` tries cases (name, {path: text}, words of the one complaint or None)."""
    if sys.argv[1:] == ["--self-test"]:
        wrong = [name for name, tree, words in cases if not _as_expected(check, tree, words)]
        print(f"{len(cases)} cases, unexpected: {', '.join(wrong) or 'none'}")
        sys.exit(1 if wrong else 0)
    if sys.argv[1:]:
        sys.exit(f"usage: {sys.argv[0]} [--self-test]")
    complaints = check(pathlib.Path(__file__).resolve().parents[2])
    print("\n".join(complaints) or "no complaints")
    sys.exit(1 if complaints else 0)


def _as_expected(check, tree, words):
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for name, text in tree.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        complaints = check(root)
    if words is None:
        return complaints == []
    return len(complaints) == 1 and words in complaints[0]

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints "N passed, N failed, N skipped" from what `ctest --output-junit` wrote, as the last line.

usage: summarise_tests.py FILE.xml ... | --self-test

A GoogleTest executable counts with its test cases; anything else counts as one. An executable that failed without
naming a failed case (it died, or ran out of time) counts as one failure beside the cases that it reported.
"""
import pathlib
import re
import sys
import xml.etree.ElementTree as xml

CASES = {
    "passed": re.compile(r"^\[  PASSED  \] (\d+) tests?\.", re.MULTILINE),
    "failed": re.compile(r"^\[  FAILED  \] (\d+) tests?, listed below", re.MULTILINE),
    "skipped": re.compile(r"^\[  SKIPPED \] (\d+) tests?, listed below", re.MULTILINE),
}
SKIPPED_CASE = re.compile(r"^\[  SKIPPED \] (\w[\w./]*)(?: \(\d+ ms\))?$", re.MULTILINE)


def verdict_of(entry):
    if entry.get("status") == "run":
        return "passed"
    skip = entry.find("skipped")
    return "skipped" if skip is not None and skip.get("message", "").startswith("SKIP_") else "failed"


def count(text):
    """Totals, and the names of what was skipped."""
    totals, skipped = dict.fromkeys(CASES, 0), []
    for entry in xml.fromstring(text).iter("testcase"):
        verdict, output = verdict_of(entry), entry.findtext("system-out") or ""
        cases = {kind: sum(map(int, pattern.findall(output)[-1:])) for kind, pattern in CASES.items()}
        for kind, number in cases.items():
            totals[kind] += number
        if verdict == "failed" and not cases["failed"] or not any(cases.values()):
            totals[verdict] += 1
        if verdict == "skipped":
            skipped.append(entry.get("name"))
        skipped += sorted(set(SKIPPED_CASE.findall(output)))
    return totals, skipped


def self_test():
    def entry(name, status, output, inner=""):
        return f'<testcase name="{name}" status="{status}">{inner}<system-out>{output}</system-out></testcase>'

    skip = "[  SKIPPED ] A.b (3 ms)\n[  PASSED  ] 7 tests.\n[  SKIPPED ] 1 test, listed below:\n[  SKIPPED ] A.b\n"
    entries = [
        (entry("all", "run", skip), (7, 0, 1)),
        (entry("some", "fail", "[  PASSED  ] 3 tests.\n[  FAILED  ] 2 tests, listed below:\n"), (3, 2, 0)),
        (entry("died", "fail", "[ RUN      ] C.d\n"), (0, 1, 0)),
        (entry("died at exit", "fail", "[  PASSED  ] 5 tests.\n"), (5, 1, 0)),
        (entry("plain", "run", "fine"), (1, 0, 0)),
        (entry("absent", "notrun", "", '<skipped message="Unable to find executable"/>'), (0, 1, 0)),
        (entry("format", "notrun", "", '<skipped message="SKIP_RETURN_CODE=77"/>'), (0, 0, 1)),
    ]
    wrong = [text for text, expected in entries if tuple(count(f"<a>{text}</a>")[0].values()) != expected]
    names = count("<a>" + "".join(text for text, _ in entries) + "</a>")[1]
    print(f"{len(entries)} cases, unexpected: {wrong or 'none'}; skipped: {names}")
    return 1 if wrong or names != ["A.b", "format"] else 0


def main(names):
    if names == ["--self-test"]:
        return self_test()
    paths = [pathlib.Path(name) for name in names]
    missing = [path.name for path in paths if not path.is_file()]
    if len(missing) == len(paths):
        print("no tests were run")
        return 1
    totals, skipped = dict.fromkeys(CASES, 0), set()
    for path in paths:
        if path.is_file():
            found, names_of_skipped = count(path.read_text(errors="replace"))
            totals = {kind: totals[kind] + number for kind, number in found.items()}
            skipped.update(names_of_skipped)
    if skipped:
        print("skipped: " + ", ".join(sorted(skipped)))
    print(", ".join(f"{number} {kind}" for kind, number in totals.items()))
    return 1 if missing else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))

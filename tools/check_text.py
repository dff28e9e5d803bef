#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks the text of every file that git would commit, and the links of the documentation.

usage: tools/check_text.py [--self-test]

Complains about white space at the end of a line, tabs in sources, a file without a last newline, marks of unfinished
work, absolute paths of somebody's home, a licence that is not on the first line (below `#!`), and links in *.md that
lead nowhere: the file does not exist, or it has no such heading.
"""
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))
import source_tree  # noqa: E402

LICENCE = "SPDX-License-Identifier: Apache-2.0"
LICENSED = (*source_tree.CPP, ".py", ".sh", ".cmake")
PICTURES = (".png", ".jpg", ".svg", ".gif")
UNFINISHED = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|X" r"XX)\b")
HOME = re.compile(r"(?:^|[\s\"'=(:<`])(/(?:home|Users|root)/[\w.]+)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$", re.MULTILINE)


def lines_of(path, name, text):
    for number, line in enumerate(text.split("\n"), 1):
        place = f"{name}:{number}"
        if line != line.rstrip():
            yield f"{place}: white space at the end of the line"
        if "\t" in line:
            yield f"{place}: a tab; indent by spaces"
        if UNFINISHED.search(line):
            yield f"{place}: '{UNFINISHED.search(line)[0]}'; finish it, or refuse the case with a clear error"
        if HOME.search(line):
            yield f"{place}: '{HOME.search(line)[1]}' is a path of one machine; use a relative path or a variable"
    if text and not text.endswith("\n"):
        yield f"{name}: the last line has no end"


def licence_of(path, name, text):
    lines = text.split("\n")
    script = lines[0].startswith("#!")
    if path.suffix in LICENSED or path.name == "CMakeLists.txt" or script:
        if LICENCE not in (lines[1:2] if script else lines[:1] or [""])[0]:
            yield f"{name}: '{LICENCE}' belongs on the first line (the second below '#!')"


def anchors(text):
    """The names by which a heading can be linked, as GitHub makes them."""
    names = set()
    for heading in HEADING.findall(FENCE.sub("", text)):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        copy = 0
        while (name := f"{slug}-{copy}" if copy else slug) in names:
            copy += 1
        names.add(name)
    return names


def links_of(path, name, text):
    prose = CODE.sub("", FENCE.sub(lambda match: "\n" * match[0].count("\n"), text))
    for match in LINK.finditer(prose):
        target, _, anchor = match[1].partition("#")
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        place = f"{name}:{prose.count(chr(10), 0, match.start()) + 1}"
        aim = path.parent / target if target else path
        if not aim.exists():
            yield f"{place}: the link '{match[1]}' leads nowhere"
        elif anchor and aim.suffix == ".md" and anchor not in anchors(aim.read_text()):
            yield f"{place}: '{target or name}' has no heading '#{anchor}'"


def check(root):
    complaints = []
    for path in source_tree.tracked(root):
        name = path.relative_to(root)
        if path.name == "LICENSE" or path.suffix in PICTURES:
            continue
        try:
            text = path.read_bytes().decode()  # return characters stay
        except UnicodeDecodeError:
            complaints.append(f"{name}: not UTF-8")
            continue
        for rule in (lines_of, licence_of, *([links_of] if path.suffix == ".md" else [])):
            complaints += rule(path, name, text)
    return complaints


HEAD = f"// {LICENCE}\n"
CASES = [
    ("a good tree", {
        "src/a.cpp": HEAD + "int a;  // a/home/b, $HOME/x, folder/root/x\n",
        "tools/go": f"#!/bin/bash\n# {LICENCE}\ntrue\n",
        "docs/a.md": "# One two: `three`\n[b](../b.md#x-y) [c](#one-two-three) [d](https://a.b/c) `[e](f)`\n"
                     "```\n[g](h)\n```\n",
        "b.md": "## X y\n\n![p](p.png)\n", "p.png": "\t"}, None),
    ("a space at the end", {"a.md": "x \n"}, "a.md:1: white space"),
    ("a return character", {"a.md": "x\ny\r\n"}, "a.md:2: white space"),
    ("a tab", {"src/a.cpp": HEAD + "\tint a;\n"}, "src/a.cpp:2: a tab"),
    ("no last newline", {"a.md": "x"}, "no end"),
    ("unfinished", {"src/a.cpp": HEAD + "int a;  // TO" "DO: b\n"}, "src/a.cpp:2: 'TO" "DO'"),
    ("to be mended", {"docs/a.md": "FIX" "ME\n"}, "FIX" "ME"),
    ("somebody's home", {"docs/a.md": "cd /home/" "you/x\n"}, "/home/" "you"),
    ("the home of root", {"tools/go": f"#!/bin/bash\n# {LICENCE}\ncd '/{'root'}/notes'\n"}, "tools/go:3"),
    ("a late licence", {"src/a.cpp": "\n" + HEAD}, "belongs on the first line"),
    ("no licence below #!", {"tools/go": "#!/bin/bash\ntrue\n"}, "belongs on the first line"),
    ("a dead link", {"docs/a.md": "x\n\n[b](b.md)\n"}, "docs/a.md:3: the link 'b.md'"),
    ("a dead anchor", {"a.md": "[b](b.md#y)\n", "b.md": "# X\n```\n# y\n```\n"}, "'b.md' has no heading '#y'"),
    ("not UTF-8", {"a.md": b"\xff\n"}, "not UTF-8"),
]

if __name__ == "__main__":
    source_tree.run(check, CASES)

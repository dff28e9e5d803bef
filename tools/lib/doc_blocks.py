#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fenced blocks of Markdown pages, for the tests that run and compile them.

usage: tools/lib/doc_blocks.py in_tree PAGE ROOT OUT    what PAGE says to do to the tree ROOT, done to a copy in OUT

A fence may have attributes behind its language: ```sh test, ```cpp file=NAME, ```cpp append=PATH.
"""
import pathlib
import re
import shutil
import sys
from typing import NamedTuple

FENCE = re.compile(r"^```(\w*)([^\n`]*)\n(.*?)^```[ ]*$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    language: str
    attributes: dict  # "test" -> "", "file" -> "main.cpp"
    text: str
    line: int  # of the first line of the text


def blocks(page):
    text = pathlib.Path(page).read_text()
    for match in FENCE.finditer(text):
        words = dict((word.split("=", 1) + [""])[:2] for word in match[2].split())
        yield Block(match[1], words, match[3], text.count("\n", 0, match.start(3)) + 1)


def files(page):
    """{name: text} of the blocks that are whole files."""
    return {block.attributes["file"]: block.text for block in blocks(page) if "file" in block.attributes}


def in_tree(page, root, out):
    """Copies the registry of moe with its tables, appends the lines of the page and adds its router."""
    shutil.rmtree(out, ignore_errors=True)
    for name in ["registry.cpp", *(str(path.relative_to(root / "src/moe")) for path in (root / "src/moe").glob("*/*.def"))]:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / "src/moe" / name, out / name)
    appended = [block for block in blocks(page) if "append" in block.attributes]
    if not appended:
        raise SystemExit(f"{page}: no block says what to append to a table")
    for block in appended:
        table = out / pathlib.PurePosixPath(block.attributes["append"]).relative_to("src/moe")
        if not (root / block.attributes["append"]).is_file() or not table.is_file():
            raise SystemExit(f"{page}:{block.line}: there is no {block.attributes['append']}")
        table.write_text(table.read_text() + block.text)
    router = files(page)["my_cosine.cpp"].replace("namespace my_routers {", "namespace conclave::moe {")
    (out / "routers/my_cosine.cpp").write_text(router)


if __name__ == "__main__":
    if len(sys.argv) != 5 or sys.argv[1] != "in_tree":
        sys.exit(__doc__)
    in_tree(*(pathlib.Path(argument).resolve() for argument in sys.argv[2:]))

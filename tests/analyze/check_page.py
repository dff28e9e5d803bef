# SPDX-License-Identifier: Apache-2.0
"""Prints what is wrong with a report: not well-formed, not self-contained, odd numbers. Nothing: all is well."""
import re
import sys
import xml.etree.ElementTree as tree

ELEMENTS = set(
    "html head meta title style body main header section figure figcaption svg text line rect circle path b i h1 h2 h3 "
    "p div dl dt dd small data span table caption thead tbody tr th td code pre details summary".split()
)
NUMBERS = {"x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "width", "height"}


def name_of(element):
    return element.tag.split("}")[-1]


def problems_of(root):
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    yield from (f"the id {i} stands twice" for i in set(ids) if ids.count(i) > 1)
    for element in root.iter():
        name = name_of(element)
        if name not in ELEMENTS:
            yield f"element <{name}>"
        for key, value in element.attrib.items():
            if key in ("href", "src", "srcset", "action", "style") or key.startswith("on"):
                yield f"attribute {key}={value} of <{name}>"
            if key in NUMBERS and not re.fullmatch(r"-?\d+(\.\d+)?", value):
                yield f"{key}={value} of <{name}> is no number"
        if name == "data" and not re.fullmatch(r"null|-?\d+(\.\d+)?(e[+-]?\d+)?", element.get("value")):
            yield f"<data value={element.get('value')}>"
        if name == "table":
            widths = {len(row) for row in element.iter() if name_of(row) == "tr"}
            if len(widths) > 1:
                yield f"a table has rows of {sorted(widths)} cells"
        if name == "style":
            yield from (f"the style sheet has {w}" for w in ("@import", "url(", "//") if w in (element.text or ""))


try:
    with open(sys.argv[1], encoding="utf-8") as file:
        page = tree.fromstring(file.read())  # refuses everything unescaped or unclosed
    print("\n".join(problems_of(page)), end="")
except (tree.ParseError, UnicodeDecodeError) as error:
    print(f"not well-formed: {error}")

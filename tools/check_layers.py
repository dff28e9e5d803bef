#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks that a file includes only its own room and those to its left, and that few include the heavy headers.

usage: tools/check_layers.py [--self-test]
"""
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))
import source_tree  # noqa: E402

ORDER = ["core", "config", "data", "comm", "ops", "nn", "moe", "model", "optim", "train", "analyze surgery plan cuda", "cli"]
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms.split()}
TORCH = re.compile(r"(torch|ATen|c10)/")
TORCH_FREE = {"core", "config", "data", "kernels"}
UMBRELLAS = {"torch/torch.h", "torch/all.h", "torch/extension.h", "torch/script.h", "ATen/ATen.h"}
INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*([<\"])([^>\"]+)[>\"]", re.MULTILINE)


def room_of(path):
    """The room of a path relative to the root: "kernels", a room, or None outside them (helpers, benchmarks)."""
    parts = path.parts
    if parts[0] == "kernels":
        return "kernels"
    if parts[0] in ("src", "tests") and len(parts) > 2:
        return parts[1] if parts[0] == "src" or parts[1] in RANK else None
    return parts[2] if parts[:2] == ("include", "conclave") and len(parts) > 3 else None


def target_of(root, path, quote, name):
    """The room that an include leads to; None for third-party and system headers."""
    local = [path.parent / name] if quote == '"' else []
    for candidate in local + [root / folder / name for folder in ("include", "src", "tests", "kernels")]:
        if candidate.is_file():
            return room_of(candidate.resolve().relative_to(root))
    return name.split("/")[1] if name.startswith("conclave/") and name.count("/") > 1 else None


def problem(room, target, name, path):
    if name in UMBRELLAS:
        return "an umbrella header costs seconds in every file; include what is used"
    if room in TORCH_FREE and TORCH.match(name):
        return f"{room} knows no torch"
    if name == "torch/nn/module.h" and room not in ("nn", "moe", "model") and path.parts[0] != "tools":
        return "only nn, moe and model define modules"
    if name == "torch/csrc/autograd/custom_function.h" and not (room == "ops" and path.suffix == ".cpp"):
        return "only sources of ops define autograd functions"
    if target is None or target == room or room is None and target != "kernels":
        return None
    if target == "kernels":
        ours = room in ("ops", "cuda") or path.parts[0] == "benchmarks" or path.parts[:2] == ("tests", "kernels")
        return None if ours else "only ops and cuda call kernels"
    if room == "kernels":
        return "kernels include nothing of ours"
    return None if RANK.get(target, 99) < RANK[room] else f"{target} does not stand to the left of {room}"


def check(root):
    root, complaints = root.resolve(), []
    for path in source_tree.files(root, source_tree.CPP):
        relative = path.relative_to(root)
        room, text = room_of(relative), path.read_text()
        if room and room != "kernels" and room not in RANK:
            complaints.append(f"{relative}: there is no room '{room}'; the rooms are {' < '.join(ORDER)}")
            continue
        for match in INCLUDE.finditer(text):
            quote, name = match.groups()
            reason = problem(room, target_of(root, path, quote, name), name, relative)
            if reason:
                line = text.count("\n", 0, match.start(2)) + 1
                complaints.append(f"{relative}:{line}: includes {name}: {reason}")
    return complaints


GOOD = {
    "include/conclave/core/error.h": "#include <string>\n",
    "include/conclave/ops/permute.h": '#include <ATen/core/Tensor.h>\n#include "conclave/core/error.h"\n',
    "src/ops/permute.cpp": '#include "conclave/ops/permute.h"\n#include <torch/csrc/autograd/custom_function.h>\n'
                           '#include "rows.h"\n',
    "kernels/rows.h": "#include <cstdint>\n",
    "kernels/rows.cu": '#include "rows.h"\n',
    "include/conclave/nn/module.h": "#include <torch/nn/module.h>\n",
    "src/train/secret.h": "",
    "tests/support/close.h": '#include "conclave/ops/permute.h"\n',
    "tests/train/helper.h": '#include "support/close.h"\n',
    "tests/train/loop_test.cpp": '#include "train/helper.h"\n#include "conclave/nn/module.h"\n',
}


def broken(path, include):
    return {**GOOD, path: GOOD.get(path, "") + f"#include {include}\n"}


CASES = [
    ("a good tree", GOOD, None),
    ("a room to the right", broken("include/conclave/core/error.h", '"conclave/ops/permute.h"'), "core/error.h:2: "),
    ("a missing header", broken("src/core/a.cpp", "<conclave/train/none.h>"), "train does not stand to the left"),
    ("a private header", broken("src/moe/a.cpp", '"../train/secret.h"'), "train does not stand to the left of moe"),
    ("a neighbour", broken("src/plan/a.cpp", '"conclave/analyze/x.h"'), "analyze does not stand"),
    ("a test to the right", broken("tests/core/a.cpp", '"train/helper.h"'), "train does not stand"),
    ("torch in data", broken("src/data/a.cpp", "<c10/util/Half.h>"), "data knows no torch"),
    ("torch in a kernel", broken("kernels/a.cu", "<ATen/core/Tensor.h>"), "kernels knows no torch"),
    ("ours in a kernel", broken("kernels/a.cu", '"conclave/core/error.h"'), "nothing of ours"),
    ("a kernel outside ops", broken("src/moe/a.cpp", '"rows.h"'), "only ops and cuda call kernels"),
    ("an umbrella", broken("benchmarks/a.cpp", "  <torch/torch.h>"), "umbrella"),
    ("a module in train", broken("src/train/a.cpp", "<torch/nn/module.h>"), "define modules"),
    ("autograd in a header", broken("include/conclave/ops/a.h", "<torch/csrc/autograd/custom_function.h>"), "autograd"),
    ("an unknown room", broken("src/utils/a.cpp", "<string>"), "no room 'utils'"),
]

if __name__ == "__main__":
    source_tree.run(check, CASES)

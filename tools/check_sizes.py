#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks that no source file has more than 400 lines and no function more than 120.

usage: tools/check_sizes.py [--self-test]

Functions of C++ are found by counting braces in text without comments and literals: a brace outside any function opens
one if what stands before it has a parameter list and does not start a namespace, type or initialiser.
"""
import ast
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))
import source_tree  # noqa: E402

FILE_LINES, FUNCTION_LINES = 400, 120
LITERAL = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"(?P<mark>[^(\s]*)\(.*?\)(?P=mark)"|"(?:\\.|[^"\\\n])*"|'
    r"(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'", re.DOTALL)
PREPROCESSOR = re.compile(r"^[ \t]*#(?:\\\n|[^\n])*", re.MULTILINE)
SCOPE = re.compile(r"\b(?:namespace|class|struct|union|enum|extern)\b[^()]*$")
SHELL = re.compile(r"^(\w[\w-]*)\s*\(\)\s*[{(].*?^[})]", re.MULTILINE | re.DOTALL)


def blank(match):
    return "\n" * match.group().count("\n")


def cpp_functions(text):
    """Yields (first line, number of lines) of every outermost function body with its signature."""
    text = PREPROCESSOR.sub(blank, LITERAL.sub(blank, text))
    scopes, start, inside = [], 0, 0  # scopes: True for a brace that opens a function
    for match in re.finditer(r"[{};]", text):
        head = text[start:match.start()]
        if match.group() == "{":
            is_function = not inside and "(" in head and not SCOPE.search(head)
            scopes.append((is_function, start + len(head) - len(head.lstrip())))
            inside += is_function
        elif match.group() == "}" and scopes:
            is_function, begin = scopes.pop()
            inside -= is_function
            if is_function:
                yield text.count("\n", 0, begin) + 1, text.count("\n", begin, match.end()) + 1
        start = match.end()


def python_functions(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.lineno, node.end_lineno - node.lineno + 1


def shell_functions(text):
    for match in SHELL.finditer(text):
        yield text.count("\n", 0, match.start()) + 1, match.group().count("\n") + 1


def functions(path, text):
    if path.suffix in source_tree.CPP:
        return cpp_functions(text)
    return python_functions(text) if path.suffix == ".py" or "python" in text.split("\n")[0] else shell_functions(text)


def check(root):
    complaints = []
    for path in source_tree.files(root, source_tree.CPP + (".py", ".sh"), scripts=True):
        text, name = path.read_text(), path.relative_to(root)
        lines = len(text.splitlines())
        if lines > FILE_LINES:
            complaints.append(f"{name}: {lines} lines, {FILE_LINES} is the limit; split it along a meaningful seam")
        for line, length in functions(path, text):
            if length > FUNCTION_LINES:
                complaints.append(f"{name}:{line}: a function of {length} lines, {FUNCTION_LINES} is the limit")
    return complaints


def body(lines, indent="  "):
    return (indent + "x += 1;\n") * lines


TRICKY = """namespace a {
void f(int x = '{') {  // {
  g("{", R"({)", 1'000);
}
struct S {
  int x;
%s};
}
""" % ("  int y;\n" * 130)
CASES = [
    ("a good tree", {"src/a.cpp": TRICKY + "void h() {\n" + body(118) + "}\n",
                     "tools/x": "#!/bin/bash\nf() {\n" + body(118) + "}\n"}, None),
    ("long types", {"src/a.h": "namespace n {\nstruct S {\n" + "  int a;\n" * 200 + "};\n}\n"}, None),
    ("400 lines", {"src/a.cpp": "int a;\n" * 400}, None),
    ("401 lines", {"include/a.h": "int a;\n" * 401}, "401 lines"),
    ("a long script", {"tools/go": "#!/bin/bash\n" + "true\n" * 400}, "401 lines"),
    ("a long function", {"src/a.cpp": TRICKY + "void h() {\n" + body(119) + "}\n"}, "a function of 121 lines"),
    ("a long method", {"src/a.cpp": "class A : B {\n  int f() const {\n" + body(130) + "  }\n};\n"}, "src/a.cpp:2: "),
    ("a long constructor", {"src/a.cpp": "A::A(int x) : b_{x}, c_(x) {\n" + body(130) + "}\n"}, "function of 132"),
    ("a long Python function", {"tools/a.py": "def f(x):\n" + "    x += 1\n" * 121}, "function of 122"),
    ("a long shell function", {"tools/lib/a.sh": "f() {\n" + body(120) + "}\n"}, "function of 122"),
]

if __name__ == "__main__":
    source_tree.run(check, CASES)

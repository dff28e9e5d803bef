#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks what the program generates about its configuration.

usage: tools/check_config_doc.py PROGRAM [--write] | --self-test

docs/config_reference.md must be what `conclave config reference` prints; --write writes it. Where this Python has
jsonschema and PyYAML, the JSON Schema must be a valid one, accept every file in configs/ and refuse a misspelt key.
"""
import copy
import difflib
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/config_reference.md"
NOTE = "<!-- Generated: tools/check_config_doc.py build/dev/bin/conclave --write -->\n\n"


def ask(program, *arguments):
    return subprocess.run([program, *arguments], check=True, capture_output=True, text=True).stdout


def check_page(old, text):
    lines = difflib.unified_diff(old.splitlines(), text.splitlines(), PAGE.name, "the program", n=0, lineterm="")
    return ["\n".join(lines), "run tools/check_config_doc.py PROGRAM --write"] if old != text else []


def check_schema(text):
    schema = json.loads(text)
    try:
        import jsonschema
        import yaml
    except ImportError:
        print("the schema was not tried: this Python has no jsonschema or no PyYAML")
        return []
    kind = jsonschema.validators.validator_for(schema)
    kind.check_schema(schema)
    validator, complaints = kind(schema), []
    for path in sorted(ROOT.glob("configs/*.yaml")):
        tree = yaml.safe_load(path.read_text())
        complaints += [f"{path.name}: the schema refuses {error.json_path}: {error.message}"
                       for error in validator.iter_errors(tree)]
        for section in [(), ("training",), ("model", "moe")]:
            wrong = copy.deepcopy(tree)
            place = wrong
            for key in section:
                place = (place or {}).get(key)
            if place is None:
                continue
            place["misspelt_key"] = 1
            if validator.is_valid(wrong):
                complaints.append(f"the schema accepts {'.'.join((*section, 'misspelt_key'))} in {path.name}")
    return complaints


def self_test():
    changed = check_page("| `a` | integer |\n| `b` | integer |\n", "| `a` | number |\n| `b` | integer |\n")
    lax = check_schema('{"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object"}')
    strict = check_schema('{"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "array"}')
    tried = "jsonschema" in sys.modules
    right = (check_page("same", "same") == [] and "+| `a` | number |" in changed[0] and "`b`" not in changed[0]
             and (not tried or any("accepts misspelt_key" in line for line in lax))
             and (not tried or any("the schema refuses $" in line for line in strict)))
    print("as expected" if right else f"unexpected: {changed} {lax} {strict}")
    return 0 if right else 1


def main(arguments):
    if arguments == ["--self-test"]:
        return self_test()
    if not arguments or arguments[1:] not in ([], ["--write"]):
        sys.exit(__doc__)
    page = NOTE + ask(arguments[0], "config", "reference").rstrip() + "\n"
    if arguments[1:]:
        PAGE.write_text(page)
        return 0
    complaints = check_page(PAGE.read_text() if PAGE.exists() else "", page) + check_schema(ask(arguments[0], "config", "schema"))
    print("\n".join(complaints) or "no complaints")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

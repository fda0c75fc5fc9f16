#!/usr/bin/env python3
"""Makes rules.yml and dashboards/*.json from make_rules.py and make_dashboards.py.

usage: generate.py [--check]    --check changes nothing and fails if a file is not what would be made
"""

import json
import pathlib
import sys

from make_dashboards import dashboards
from make_rules import rules

FOLDER = pathlib.Path(__file__).resolve().parent
NOTE = "# Made by generate.py from make_rules.py; docs/runbooks.md says what to do when an alert fires.\n"


def yaml_of(value, indent=0):
    """The rules as YAML: maps, lists and strings, which are quoted as JSON quotes them."""
    pad = " " * indent
    if isinstance(value, dict):
        lines = []
        for key, item in value.items():
            nested = isinstance(item, (dict, list))
            lines.append(f"{pad}{key}:" + ("\n" + yaml_of(item, indent + 2) if nested else f" {json.dumps(item)}"))
        return "\n".join(lines)
    return "\n".join(f"{pad}- {yaml_of(item, indent + 2).lstrip()}" for item in value)


def files():
    yield FOLDER / "rules.yml", NOTE + yaml_of(rules()) + "\n"
    for name, dashboard in dashboards():
        yield FOLDER / "dashboards" / f"{name}.json", json.dumps(dashboard, indent=1) + "\n"


def main():
    is_check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not is_check:
        sys.exit(__doc__)
    made = dict(files())
    if not is_check:
        for path, text in made.items():
            path.write_text(text, encoding="utf-8")
        return
    there = set((FOLDER / "dashboards").glob("*")) | {FOLDER / "rules.yml"}
    wrong = [str(path) for path in sorted(there | set(made))
             if path not in made or not path.exists() or path.read_text(encoding="utf-8") != made[path]]
    if wrong:
        sys.exit("not what deploy/monitoring/generate.py makes: " + " ".join(wrong))


if __name__ == "__main__":
    main()

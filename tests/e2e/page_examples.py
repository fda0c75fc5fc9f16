#!/usr/bin/env python3
"""Runs the examples of docs/python.md and compares what they print with what the page shows.

usage: page_examples.py PAGE ENDPOINT CHECKPOINTS

A stack with the demo model answers at ENDPOINT, and a converter may write in the folder CHECKPOINTS, which holds the
demo model's sources as "opt".
"""

import ast
import asyncio
import contextlib
import inspect
import io
import pathlib
import re
import sys


def run_example(code, names):
    """What it prints. `await` may stand outside of functions, as in a notebook."""
    printed = io.StringIO()
    compiled = compile(code, "docs/python.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    with contextlib.redirect_stdout(printed):
        made = eval(compiled, names)
        if inspect.iscoroutine(made):
            asyncio.run(made)
    return printed.getvalue()


def run_page(page, endpoint, checkpoints):
    """The number of examples; ends the program at the first one that prints something else."""
    examples = re.findall(r"```python\n(.*?)```\n(?:```text\n(.*?)```)?", page.read_text(encoding="utf-8"), flags=re.S)
    names = {"CHECKPOINTS": str(checkpoints)}
    for code, shown in examples:
        printed = run_example(code.replace("tcp://127.0.0.1:5555", endpoint), names)
        if printed != shown:
            sys.exit(f"FAILED: docs/python.md\n{code}shows\n{shown}and prints\n{printed}")
    return len(examples)


if __name__ == "__main__":
    print(f"{run_page(pathlib.Path(sys.argv[1]), *sys.argv[2:4])} examples print what they show")

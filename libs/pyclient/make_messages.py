#!/usr/bin/env python3
"""Makes src/optserve/_messages.py from docs/protocol.json.

usage: make_messages.py           writes it
       make_messages.py --check   ends with 1 if it is not what would be written
"""
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
PROTOCOL = HERE.parents[1] / "docs/protocol.json"
TARGET = HERE / "src/optserve/_messages.py"

PLAIN = {"text": "str", "bytes": "bytes", "id": "str", "bool": "bool"}
# Structs whose Python class has methods, and the class with these.
BASES = {"JobResult": "ResultMethods"}

HEADER = '''"""The messages of the wire protocol, its limits and its numbers.

Made by make_messages.py from docs/protocol.json, which is made from the C++ code. Ids of jobs are 32 hexadecimal digits
here and 16 bytes on the wire.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, ClassVar, Dict, List, Optional, Tuple

from ._result_methods import ResultMethods

PROTOCOL_VERSION = {version}
'''


def attribute(name):
    return name.lstrip("!")


def python_type(text):
    if text.endswith("[]"):
        return f"List[{python_type(text[:-2])}]"
    if text.endswith("?"):
        return f"Optional[{python_type(text[:-1])}]"
    if text.startswith(("int", "uint")):
        return "int"
    if text.startswith("float"):
        return "float"
    return PLAIN.get(text, text)


def default_text(field, structs, enumerations):
    kind, default = field["type"], field["default"]
    if kind.endswith("[]"):
        return "field(default_factory=list)"
    if kind in structs:
        return f"field(default_factory=lambda: {kind}())"
    if kind in enumerations:
        return f"{kind}.{enumerations[kind][default]}" if default in enumerations[kind] else str(default)
    if kind == "bytes":
        return 'b""'
    if isinstance(default, str):
        return json.dumps(default)
    return repr(default)


def struct_lines(struct, kinds, structs, enumerations):
    name = struct["name"]
    base = f"({BASES[name]})" if name in BASES else ""
    yield "@dataclass"
    yield f"class {name}{base}:"
    for field in struct["fields"]:
        meaning = field.get("meaning")
        if meaning:
            yield f"    # {attribute(field['name'])}: {meaning}"[:120]
        yield (f"    {attribute(field['name'])}: {python_type(field['type'])} = "
               f"{default_text(field, structs, enumerations)}")
    yield ""
    yield f"    KIND: ClassVar[int] = {kinds.get(name, 0)}"
    yield f"    IS_ARRAY: ClassVar[bool] = {struct['form'] == 'array'}"
    yield "    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = ("
    for field in struct["fields"]:
        yield f"        (\"{field['name']}\", \"{field['type']}\"),"
    yield "    )"


def bounds_of(field):
    """(kind, least, most, whether the least itself is excluded)"""
    for kind, prefix in (("number", ""), ("bytes", "bytes_"), ("entries", "entries_")):
        if prefix + "max" in field:
            kind = "name" if "pattern" in field else kind
            return (kind, field[prefix + "min"], field[prefix + "max"], field.get("min_excluded", False))
    return None


def of_clients(protocol):
    """The part of the protocol that clients speak."""
    messages = [m for m in protocol["messages"] if {m["from"], m["to"]} & {"client", "anyone"}]
    fields = {struct["name"]: struct["fields"] for struct in protocol["structs"]}
    spoken, found = [message["name"] for message in messages], set()
    while spoken:
        name = spoken.pop()
        if name not in found:
            found.add(name)
            spoken += [field["type"].rstrip("[]?") for field in fields.get(name, [])]
    return {**protocol, "messages": messages,
            "structs": [struct for struct in protocol["structs"] if struct["name"] in found],
            "enumerations": [each for each in protocol["enumerations"] if each["name"] in found]}


def made(protocol):
    protocol = of_clients(protocol)
    structs = {struct["name"]: struct for struct in protocol["structs"]}
    enumerations = {e["name"]: {v["value"]: v["name"].upper() for v in e["values"]} for e in protocol["enumerations"]}
    kinds = {message["name"]: message["kind"] for message in protocol["messages"]}
    lines = [HEADER.format(version=protocol["version"])]
    for name in ("limits", "stream_cost"):
        lines.append(f"{name.upper()}: Dict[str, int] = {{")
        lines += [f"    \"{key}\": {value}," for key, value in protocol[name].items()]
        lines.append("}")
    lines.append("ERRORS: Dict[int, Tuple[str, bool]] = {  # code: name, whether the same request may succeed later")
    lines += [f"    {e['code']}: (\"{e['name']}\", {e['retry']})," for e in protocol["errors"]]
    lines.append("}")
    for name, values in enumerations.items():
        lines += ["", "", f"class {name}(enum.IntEnum):"]
        lines += [f"    {'NONE_' if word == 'NONE' else word} = {value}" for value, word in values.items()]
    enumerations = {name: {value: 'NONE_' if word == 'NONE' else word for value, word in values.items()}
                    for name, values in enumerations.items()}
    placed = set()

    def place(struct):
        if struct["name"] in placed:
            return
        placed.add(struct["name"])
        lines.extend(["", "", *struct_lines(struct, kinds, structs, enumerations)])

    for struct in protocol["structs"]:
        place(struct)
    lines += ["", "", "MESSAGES: Dict[int, Any] = {"]
    lines += [f"    {kind}: {name}," for name, kind in kinds.items()]
    lines.append("}")
    lines.append("STRUCTS: Dict[str, Any] = {")
    lines += [f"    \"{name}\": {name}," for name in structs]
    lines.append("}")
    lines.append("ENUMERATIONS: Dict[str, Any] = {")
    lines += [f"    \"{name}\": {name}," for name in enumerations]
    lines.append("}")
    lines.append("# What a job's fields may hold: what is measured, least, most, whether the least itself is excluded.")
    lines.append("JOB_BOUNDS: Dict[str, Tuple[str, float, float, bool]] = {")
    for field in structs["JobSpec"]["fields"]:
        if bounds_of(field):
            kind, least, most, excluded = bounds_of(field)
            lines.append(f"    \"{field['name']}\": (\"{kind}\", {least}, {most}, {excluded}),")
    lines.append("}")
    return "\n".join(lines) + "\n"


def main():
    text = made(json.loads(PROTOCOL.read_text(encoding="utf-8")))
    if sys.argv[1:] == ["--check"]:
        if TARGET.read_text(encoding="utf-8") != text:
            sys.exit(f"{TARGET} is not made from {PROTOCOL}: run {pathlib.Path(__file__).name}")
        return
    TARGET.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

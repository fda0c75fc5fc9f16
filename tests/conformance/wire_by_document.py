"""Messages as bytes, made from docs/protocol.json alone: a second reading of the document, which shares no code with
the client libraries that it tests. A message is {name: {field: value}}; ids are hexadecimal."""

import json
import pathlib

import msgpack

PROTOCOL = json.loads((pathlib.Path(__file__).resolve().parents[2] / "docs/protocol.json").read_text(encoding="utf-8"))
KINDS = {message["name"]: message["kind"] for message in PROTOCOL["messages"]}
NAMES = {kind: name for name, kind in KINDS.items()}
STRUCTS = {struct["name"]: struct for struct in PROTOCOL["structs"]}
ERRORS = {error["name"]: error["code"] for error in PROTOCOL["errors"]}
STATES = {value["name"]: value["value"] for e in PROTOCOL["enumerations"] if e["name"] == "JobState"
          for value in e["values"]}


def _to_wire(kind, value):
    if kind.endswith("[]"):
        return [_to_wire(kind[:-2], item) for item in value]
    if kind.endswith("?"):
        return None if value is None else _to_wire(kind[:-1], value)
    if kind == "id":
        return bytes.fromhex(value)
    if kind == "ErrorCode" and isinstance(value, str):
        return ERRORS[value]
    if kind == "JobState" and isinstance(value, str):
        return STATES[value]
    if kind not in STRUCTS:
        return value
    fields = STRUCTS[kind]["fields"]
    unknown = set(value) - {field["name"] for field in fields}
    if unknown:
        raise ValueError(f"{kind} has no {unknown}")
    if STRUCTS[kind]["form"] == "map":
        return {f["name"]: _to_wire(f["type"], value[f["name"]]) for f in fields if f["name"] in value}
    last = max((i for i, f in enumerate(fields) if f["name"] in value), default=-1)
    return [_to_wire(f["type"], value.get(f["name"], f["default"])) for f in fields[: last + 1]]


def _from_wire(kind, value):
    if kind.endswith("[]"):
        return [_from_wire(kind[:-2], item) for item in value]
    if kind.endswith("?"):
        return None if value is None else _from_wire(kind[:-1], value)
    if kind == "id":
        return value.hex()
    if kind not in STRUCTS:
        return value
    fields = STRUCTS[kind]["fields"]
    made = {field["name"]: field["default"] for field in fields}
    given = value if STRUCTS[kind]["form"] == "map" else dict(zip(made, value))
    for field in fields:
        if field["name"] in given:
            made[field["name"]] = _from_wire(field["type"], given[field["name"]])
    return made


def encode(message):
    (name, body), = message.items()
    return msgpack.packb([PROTOCOL["version"], KINDS[name], _to_wire(name, body)], use_bin_type=True)


def decode(frame):
    """The name and the body of a message."""
    version, kind, body = msgpack.unpackb(frame, raw=False)
    if version != PROTOCOL["version"]:
        raise ValueError(f"version {version}")
    return NAMES[kind], _from_wire(NAMES[kind], body)

"""The bytes of messages: msgpack [version, kind, body] in one frame (docs/protocol.md).

Fields that have their defaults are not sent. Reading is strict: types and ranges are checked, absent fields keep their
defaults, unknown ones are ignored unless their name begins with '!'.
"""

from __future__ import annotations

import math
import struct
from typing import Any, Callable, Dict, Iterable, List, Tuple

import msgpack

from ._errors import BadRequest, Error, UnsupportedVersion
from ._messages import ENUMERATIONS, LIMITS, MESSAGES, PROTOCOL_VERSION, STRUCTS, JobSpec, Submit

_FLOAT32_MAX = struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]
# Number types of other libraries are accepted too, through the conversions that Python defines.
_to_index = int.__index__


class _Wrong(Exception):
    """A value of another type or range; the message begins with the place."""


def _integer(name: str) -> Callable[[Any], int]:
    bits = int(name.lstrip("uint"))
    low, high = (0, 2**bits - 1) if name.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)

    def convert(value: Any) -> int:
        if type(value) is not int:
            if isinstance(value, bool) or not hasattr(value, "__index__"):
                raise _Wrong(f": expected an integer, found {value!r}")
            value = _to_index(value) if isinstance(value, int) else value.__index__()
        if not low <= value <= high:
            raise _Wrong(f": {value} is out of range")
        return value

    return convert


def _real(name: str) -> Callable[[Any], float]:
    most = _FLOAT32_MAX if name == "float32" else float("inf")

    def convert(value: Any) -> float:
        if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__float__"):
            raise _Wrong(f": expected a number, found {value!r}")
        number = float(value)
        if not abs(number) <= most or math.isinf(number):
            raise _Wrong(f": {number} is not finite")
        return number

    return convert


def _truth(value: Any) -> bool:
    if value is True or value is False:
        return value
    raise _Wrong(f": expected True or False, found {value!r}")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Wrong(f": expected text, found {type(value).__name__}")
    return value


def _enumeration(kind: Any) -> Callable[[Any], Any]:
    values = {int(member): member for member in kind}

    def convert(value: Any) -> Any:
        try:
            return values[value]
        except (KeyError, TypeError):
            raise _Wrong(f": expected a number from {min(values)} to {max(values)}, found {value!r}") from None

    return convert


def _list_of(item: Callable[[Any], Any]) -> Callable[[Any], List[Any]]:
    def convert(value: Any) -> List[Any]:
        if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
            raise _Wrong(f": expected a list, found {type(value).__name__}")
        return [item(entry) for entry in value]

    return convert


def _optional(item: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else item(value)


def _id_to_wire(value: Any) -> bytes:
    try:
        data = bytes.fromhex(value) if isinstance(value, str) else bytes(value)
    except (TypeError, ValueError):
        data = b""
    if len(data) != 16:
        raise _Wrong(f": expected an id of 32 hexadecimal digits, found {value!r}")
    return data


def _id_from_wire(value: Any) -> str:
    if type(value) is not bytes or len(value) != 16:
        raise _Wrong(": expected an id of 16 bytes")
    return value.hex()


class _Struct:
    """How one dataclass travels."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind
        self.defaults: Dict[str, Any] = {}
        self.to_wire: List[Tuple[str, str, Callable[[Any], Any]]] = []
        self.from_wire: List[Tuple[str, Callable[[Any], Any]]] = []
        self.by_name: Dict[str, Tuple[str, Callable[[Any], Any]]] = {}

    def prepare(self) -> None:
        example = self.kind()
        for name, text in self.kind.FIELDS:
            attribute = name.lstrip("!")
            self.defaults[attribute] = getattr(example, attribute)
            self.to_wire.append((name, attribute, _converter(text, True)))
            self.from_wire.append((attribute, _converter(text, False)))
            self.by_name[name] = self.from_wire[-1]

    def pack(self, value: Any) -> Any:
        if not isinstance(value, self.kind):
            raise _Wrong(f": expected a {self.kind.__name__}, found {type(value).__name__}")
        fields = value.__dict__
        attribute = ""
        try:
            if self.kind.IS_ARRAY:
                row = []
                for _, attribute, convert in self.to_wire:
                    row.append(convert(fields[attribute]))
                return row
            body = {}
            for name, attribute, convert in self.to_wire:
                given = fields[attribute]
                if given is not self.defaults[attribute] and given != self.defaults[attribute]:
                    body[name] = convert(given)
            return body
        except _Wrong as wrong:
            raise _Wrong(f".{attribute}{wrong}") from None

    def unpack(self, value: Any) -> Any:
        attribute = ""
        made = self.kind.__new__(self.kind)
        fields = made.__dict__
        try:
            if self.kind.IS_ARRAY:
                if type(value) is not list:
                    raise _Wrong(": expected an array")
                for (attribute, convert), given in zip(self.from_wire, value):
                    fields[attribute] = convert(given)
            elif type(value) is dict:
                for name, given in value.items():
                    known = self.by_name.get(name)
                    if known is not None:
                        attribute = known[0]
                        fields[attribute] = known[1](given)
                    elif name.startswith("!"):
                        raise UnsupportedVersion(f"mandatory field '{name}' is not known")
            else:
                raise _Wrong(": expected a map")
        except _Wrong as wrong:
            raise _Wrong(f".{attribute}{wrong}") from None
        if len(fields) < len(self.from_wire):
            for name, given in self.kind().__dict__.items():
                fields.setdefault(name, given)
        return made


_structs = {name: _Struct(kind) for name, kind in STRUCTS.items()}


def _converter(text: str, to_wire: bool) -> Callable[[Any], Any]:
    if text.endswith("[]"):
        return _list_of(_converter(text[:-2], to_wire))
    if text.endswith("?"):
        return _optional(_converter(text[:-1], to_wire))
    if text in _structs:
        return _structs[text].pack if to_wire else _structs[text].unpack
    if text in ENUMERATIONS:
        convert = _enumeration(ENUMERATIONS[text])
        return (lambda value: int(convert(value))) if to_wire else convert
    if text == "id":
        return _id_to_wire if to_wire else _id_from_wire
    if text == "bool":
        return _truth
    if text == "text":
        return _text
    return _real(text) if text.startswith("float") else _integer(text)


for _each in _structs.values():
    _each.prepare()


def _packed(value: Any, name: str) -> bytes:
    try:
        return msgpack.packb(value, use_bin_type=True)
    except UnicodeEncodeError as error:
        raise BadRequest(f"{name}: text cannot be encoded as UTF-8: {error.reason}") from None


def encode_struct(value: Any) -> bytes:
    """Raises BadRequest for values of a wrong type or range."""
    name = type(value).__name__
    try:
        return _packed(_structs[name].pack(value), name)
    except _Wrong as wrong:
        raise BadRequest(f"{name}{wrong}") from None


def _frame(kind: int, body: bytes) -> bytes:
    return b"\x93" + msgpack.packb(PROTOCOL_VERSION) + msgpack.packb(kind) + body


def encode(message: Any) -> bytes:
    """The frame of a message."""
    return _frame(message.KIND, encode_struct(message))


def encode_submit(request: int, stream: bool, jobs: List[bytes]) -> bytes:
    """The frame of a Submit of jobs that encode_struct() has encoded."""
    packer = msgpack.Packer(autoreset=False)
    packer.pack_map_header(3)
    for name, value in (("request", request), ("stream", stream)):
        packer.pack(name)
        packer.pack(value)
    packer.pack("jobs")
    packer.pack_array_header(len(jobs))
    return _frame(Submit.KIND, packer.bytes() + b"".join(jobs))


def _pairs(pairs: List[Tuple[Any, Any]]) -> Dict[str, Any]:
    body = dict(pairs)
    if len(body) != len(pairs):
        raise _Wrong(": a field occurs twice")
    return body


def _unpacked(data: bytes, bytes_max: int) -> Any:
    if len(data) > bytes_max:
        raise BadRequest(f"message: {len(data)} bytes, at most {bytes_max} are allowed")
    text_max = bytes_max // 4 if bytes_max > LIMITS["client_frame_bytes"] else LIMITS["text_bytes"]
    try:
        return msgpack.unpackb(data, raw=False, strict_map_key=True, object_pairs_hook=_pairs, max_ext_len=0,
                               max_str_len=text_max, max_bin_len=text_max, max_array_len=LIMITS["array_entries"],
                               max_map_len=LIMITS["map_entries"])
    except (ValueError, msgpack.UnpackException) as error:
        raise BadRequest(f"message: not well-formed: {error}") from None


def decode_job(data: bytes) -> JobSpec:
    """The job that encode_struct() has encoded."""
    return _structs["JobSpec"].unpack(_unpacked(data, LIMITS["frame_bytes"]))


def decode(frame: bytes, bytes_max: int = LIMITS["frame_bytes"]) -> Any:
    """The message of a frame. Raises BadRequest or UnsupportedVersion."""
    name = "message"
    try:
        envelope = _unpacked(frame, bytes_max)
        if type(envelope) is not list or len(envelope) != 3:
            raise BadRequest("message: expected [version, kind, body]")
        version, number, body = envelope
        if version != PROTOCOL_VERSION:
            raise UnsupportedVersion(f"protocol version {version!r}, this client speaks {PROTOCOL_VERSION}")
        kind = MESSAGES.get(number) if type(number) is int else None
        if kind is None:
            raise UnsupportedVersion(f"message kind {number!r} is not known")
        name = kind.__name__
        return _structs[name].unpack(body)
    except _Wrong as wrong:
        raise BadRequest(f"{name}{wrong}") from None


__all__ = ["Error", "decode", "decode_job", "encode", "encode_struct", "encode_submit"]

"""Writes files of torch.save's format without torch, and reads safetensors; standard library and numpy only.

A tool for tests: sizes are not bounded and input is trusted.
"""

import json
import struct
import zipfile

import numpy

STORAGE = {numpy.dtype("float16"): "HalfStorage", numpy.dtype("float32"): "FloatStorage"}


def _text(value):
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def _integer(value):
    return b"\x8a\x08" + struct.pack("<q", value)


def _tuple(*items):
    return b"(" + b"".join(items) + b"t"


def _value(value):
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    return _integer(value) if isinstance(value, int) else _text(value)


def _namespace(attributes):
    body = b"".join(_text(key) + _value(value) for key, value in attributes.items())
    return b"cargparse\nNamespace\n)\x81}(" + body + b"ub"


def _tensor(key, dtype, shape):
    strides = [1] * len(shape)
    for axis in range(len(shape) - 1, 0, -1):
        strides[axis - 1] = strides[axis] * shape[axis]
    numel = 1
    for size in shape:
        numel *= size
    storage = _tuple(_text("storage"), b"ctorch\n" + STORAGE[dtype].encode() + b"\n", _text(str(key)), _text("cpu"),
                     _integer(numel)) + b"Q"
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + _tuple(
        storage, _integer(0), _tuple(*map(_integer, shape)), _tuple(*map(_integer, strides)), b"\x89",
        b"ccollections\nOrderedDict\n)R") + b"R"


class SparseFile:
    """A new file whose pieces of zeros are holes that take no disk."""

    def __init__(self, path):
        self.file = open(path, "wb")

    def write(self, data):
        if len(data) >= 1 << 16 and not numpy.frombuffer(data, numpy.uint8).any():
            self.file.seek(len(data), 1)
            return len(data)
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)


def write_pt(path, tensors, model_cfg):
    """`tensors`: {name: (dtype, shape, pieces)}, `pieces` an iterable of arrays that make up the bytes in order. `path`
    may be an open file."""
    model = b"".join(_text(name) + _tensor(i, numpy.dtype(dtype), shape)
                     for i, (name, (dtype, shape, _)) in enumerate(tensors.items()))
    cfg = b"}(" + _text("model") + _namespace(model_cfg) + b"u"
    pickle = b"\x80\x02}(" + _text("cfg") + cfg + _text("model") + b"}(" + model + b"u" + b"u."
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", pickle)
        archive.writestr("archive/version", "3\n")
        for i, (_, _, pieces) in enumerate(tensors.values()):
            with archive.open(f"archive/data/{i}", "w", force_zip64=True) as member:
                for piece in pieces:
                    member.write(memoryview(numpy.ascontiguousarray(piece)).cast("B"))


def split_parts(model, parts):
    """Merged Metaseq tensors {name: array} to `parts` dictionaries of model-parallel parts."""
    out = [{} for _ in range(parts)]
    for name, array in model.items():
        for j in range(parts):
            if "qkv_proj" in name:
                three = array.reshape((3, parts, -1) + array.shape[1:])
                piece = three[:, j].reshape((-1,) + array.shape[1:])
            elif name.endswith(("embed_tokens.weight", "fc1.weight", "fc1.bias")):
                piece = numpy.split(array, parts, axis=0)[j]
            elif name.endswith(("out_proj.weight", "fc2.weight")):
                piece = numpy.split(array, parts, axis=1)[j]
            else:
                piece = array
            out[j][name] = numpy.ascontiguousarray(piece)
    return out


def merge_parts(parts):
    """The inverse of split_parts."""
    merged = {}
    for name, first in parts[0].items():
        arrays = [part[name] for part in parts]
        if "qkv_proj" in name:
            thirds = [array.reshape((3, -1) + array.shape[1:]) for array in arrays]
            merged[name] = numpy.concatenate(thirds, axis=1).reshape((-1,) + first.shape[1:])
        elif name.endswith(("embed_tokens.weight", "fc1.weight", "fc1.bias")):
            merged[name] = numpy.concatenate(arrays, axis=0)
        elif name.endswith(("out_proj.weight", "fc2.weight")):
            merged[name] = numpy.concatenate(arrays, axis=1)
        else:
            merged[name] = first
    return merged


def read_safetensors(path):
    """{name: array} of a file of F16 and F32 tensors."""
    with open(path, "rb") as file:
        raw = file.read()
    length = struct.unpack("<Q", raw[:8])[0]
    tensors = {}
    for name, entry in json.loads(raw[8:8 + length]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        dtype = {"F16": "<f2", "F32": "<f4"}[entry["dtype"]]
        tensors[name] = numpy.frombuffer(raw[8 + length + begin:8 + length + end], dtype).reshape(entry["shape"])
    return tensors

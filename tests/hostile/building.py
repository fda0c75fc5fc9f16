"""Parts that hostile checkpoints are made of: pickles, zip files, safetensors files and whole tiny models, right ones
that a case then spoils. Standard library only, so that nothing checks what we write."""

import dataclasses
import json
import pathlib
import struct
import zlib

HIDDEN, HEADS, FFN, VOCAB, POSITIONS = 16, 4, 32, 40, 6


@dataclasses.dataclass
class Case:
    """One bad checkpoint. `build` gets an empty folder and returns the path to convert (the folder itself by default).
    The refusal must hold every one of `words`."""
    name: str
    words: tuple
    build: object
    commands: tuple = ("convert", "inspect")


def little(value, size):
    return (value % (1 << (8 * size))).to_bytes(size, "little")


# --- pickles --------------------------------------------------------------------------------------


def text(value):
    raw = value if isinstance(value, bytes) else value.encode()
    return b"X" + little(len(raw), 4) + raw


def integer(value):
    return b"\x8a\x08" + struct.pack("<q", value)


def tuple_of(*items):
    return b"(" + b"".join(items) + b"t"


def list_of(*items):
    return b"](" + b"".join(items) + b"e"


def dict_of(entries):
    return b"}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"


def name_of(dotted):
    module, leaf = dotted.rsplit(".", 1)
    return b"c" + module.encode() + b"\n" + leaf.encode() + b"\n"


def call(dotted, *arguments):
    return name_of(dotted) + tuple_of(*arguments) + b"R"


def storage(key, numel, kind="HalfStorage", location="cpu"):
    return tuple_of(text("storage"), name_of("torch." + kind), text(key), text(location), integer(numel)) + b"Q"


def tensor(key, shape, stride=None, offset=0, numel=None, kind="HalfStorage"):
    if stride is None:
        stride = [1] * len(shape)
        for axis in range(len(shape) - 1, 0, -1):
            stride[axis - 1] = stride[axis] * shape[axis]
    count = 1
    for size in shape:
        count *= size
    return call("torch._utils._rebuild_tensor_v2", storage(key, count if numel is None else numel, kind),
                integer(offset), tuple_of(*map(integer, shape)), tuple_of(*map(integer, stride)), b"\x89",
                name_of("collections.OrderedDict") + b")R")


def pickled(value):
    return b"\x80\x02" + value + b"."


# --- zip files ------------------------------------------------------------------------------------


@dataclasses.dataclass
class Member:
    """A member of a zip file; what is None is as it should be."""
    name: object
    data: bytes = b""
    method: int = 0
    flags: int = 0
    crc: int = None
    local_name: object = None
    local_sizes: tuple = None  # packed, unpacked
    sizes: tuple = None
    offset: int = None
    local_extra: bytes = b""
    extra: bytes = b""
    comment: bytes = b""
    signature: int = 0x02014b50
    local_signature: int = 0x04034b50
    hidden: bool = False  # has data and a local header, but stands in no directory
    ghost: bool = False   # stands in the directory only


def raw(name):
    return name if isinstance(name, bytes) else name.encode()


def zip_file(members, **end):
    """`end`: what the end record says instead of the truth: entries, disk_entries, bytes, offset, disk, comment; `wide`
    writes zip64 records, `wide_entries`, `wide_bytes`, `wide_offset`, `locator` are theirs; prefix, between, suffix are
    bytes where there should be none."""
    out, directory, count = bytearray(end.get("prefix", b"")), bytearray(), 0
    for member in members:
        offset = len(out) if member.offset is None else member.offset
        crc = zlib.crc32(member.data) if member.crc is None else member.crc
        sizes = member.sizes or (len(member.data), len(member.data))
        local_sizes = member.local_sizes or sizes
        head = little(20, 2) + little(member.flags, 2) + little(member.method, 2) + little(0, 4) + little(crc, 4)
        local_name = raw(member.name if member.local_name is None else member.local_name)
        if not member.ghost:
            out += little(member.local_signature, 4) + head + little(local_sizes[0], 4) + little(local_sizes[1], 4)
            out += little(len(local_name), 2) + little(len(member.local_extra), 2) + local_name + member.local_extra
            out += member.data
        if member.hidden:
            continue
        count += 1
        name = raw(member.name)
        directory += little(member.signature, 4) + little(20, 2) + head + little(sizes[0], 4) + little(sizes[1], 4)
        directory += little(len(name), 2) + little(len(member.extra), 2) + little(len(member.comment), 2)
        directory += little(0, 8) + little(offset, 4) + name + member.extra + member.comment
    out += end.get("between", b"")
    begin = len(out)
    out += directory
    out += wide_end(len(out), count, len(directory), begin, end)
    comment = end.get("comment", b"")
    out += little(0x06054b50, 4) + little(end.get("disk", 0), 2) + little(0, 2)
    out += little(end.get("disk_entries", end.get("entries", count)), 2) + little(end.get("entries", count), 2)
    out += little(end.get("bytes", len(directory)), 4) + little(end.get("offset", begin), 4)
    return bytes(out + little(len(comment), 2) + comment + end.get("suffix", b""))


def wide_end(at, count, directory_bytes, begin, end):
    if not end.get("wide"):
        return b""
    entries = end.get("wide_entries", count)
    record = little(0x06064b50, 4) + little(44, 8) + little(45, 2) + little(45, 2) + little(0, 8) + little(entries, 8)
    record += little(entries, 8) + little(end.get("wide_bytes", directory_bytes), 8)
    record += little(end.get("wide_offset", begin), 8)
    return record + little(0x07064b50, 4) + little(0, 4) + little(end.get("locator", at), 8) + little(1, 4)


# --- safetensors ----------------------------------------------------------------------------------


def safetensors(header, data=b"", length=None):
    raw_header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return little(len(raw_header) if length is None else length, 8) + raw_header + data


# --- whole models ---------------------------------------------------------------------------------


def model_shapes(separate):
    """Tensors of the tiny model by Metaseq's names, with q, k and v fused or apart."""
    shapes = {"embed_tokens.weight": (VOCAB, HIDDEN), "embed_positions.weight": (POSITIONS + 2, HIDDEN),
              "layer_norm.weight": (HIDDEN,), "layer_norm.bias": (HIDDEN,)}
    layer = "layers.0."
    qkv = {"qkv_proj": 3} if not separate else {"q_proj": 1, "k_proj": 1, "v_proj": 1}
    for name, factor in qkv.items():
        shapes[layer + f"self_attn.{name}.weight"] = (factor * HIDDEN, HIDDEN)
        shapes[layer + f"self_attn.{name}.bias"] = (factor * HIDDEN,)
    for name, rows, cols in (("self_attn.out_proj", HIDDEN, HIDDEN), ("fc1", FFN, HIDDEN), ("fc2", HIDDEN, FFN)):
        shapes[layer + name + ".weight"] = (rows, cols)
        shapes[layer + name + ".bias"] = (rows,)
    for name in ("self_attn_layer_norm", "final_layer_norm"):
        for kind in ("weight", "bias"):
            shapes[layer + name + "." + kind] = (HIDDEN,)
    return {"decoder." + name: shape for name, shape in shapes.items()}


def elements(shape):
    count = 1
    for size in shape:
        count *= size
    return count


def half_bytes(shape):
    return struct.pack("<e", 0.5) * elements(shape)


class PtModel:
    """A torch.save file of the tiny model, as parts that a case can spoil."""

    def __init__(self):
        self.model, self.top, self.storages = {}, {}, {}
        for key, (name, shape) in enumerate(model_shapes(separate=False).items()):
            self.storages[str(key)] = half_bytes(shape)
            self.model[name] = tensor(str(key), shape)
        self.top["cfg"] = dict_of({"model": call("argparse.Namespace")[:-1] + b"\x81" + dict_of(
            {"decoder_attention_heads": integer(HEADS), "activation_fn": text("relu")}) + b"b"})

    def pickle(self):
        return pickled(dict_of({**self.top, "model": dict_of(self.model)}))

    def members(self, pickle=None):
        pickle = self.pickle() if pickle is None else pickle
        members = [Member("archive/data.pkl", pickle), Member("archive/version", b"3\n")]
        return members + [Member(f"archive/data/{key}", data) for key, data in self.storages.items()]

    def write(self, folder, pickle=None):
        (folder / "model.pt").write_bytes(zip_file(self.members(pickle)))


def hf_name(name):
    return "model." + name.replace("decoder.layer_norm.", "decoder.final_layer_norm.")


class HfModel:
    """A Hugging Face folder of the tiny model."""

    def __init__(self):
        self.config = {"model_type": "opt", "num_attention_heads": HEADS, "do_layer_norm_before": True,
                       "activation_function": "relu", "hidden_size": HIDDEN, "ffn_dim": FFN, "vocab_size": VOCAB,
                       "num_hidden_layers": 1, "max_position_embeddings": POSITIONS}
        self.header, self.data = {}, b""
        for name, shape in model_shapes(separate=True).items():
            begin = len(self.data)
            self.data += half_bytes(shape)
            self.header[hf_name(name)] = {"dtype": "F16", "shape": list(shape), "data_offsets": [begin, len(self.data)]}

    def write(self, folder, header=None, data=None, config=None):
        raw_config = config if isinstance(config, bytes) else json.dumps(self.config).encode()
        (folder / "config.json").write_bytes(raw_config)
        (folder / "model.safetensors").write_bytes(
            safetensors(self.header if header is None else header, self.data if data is None else data))


def write_good(folder: pathlib.Path):
    """Models that must convert: what the cases spoil is right before they do."""
    for name, model in (("metaseq", PtModel()), ("huggingface", HfModel())):
        (folder / name).mkdir(parents=True)
        model.write(folder / name)
    return ["metaseq", "huggingface"]

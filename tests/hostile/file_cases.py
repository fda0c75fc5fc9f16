"""Zip files that lie, and tensors that reach where they should not."""

from building import (Case, Member, PtModel, call, integer, little, name_of, storage, tensor, text, tuple_of,
                      zip_file)

TOKENS, TOKENS_SHAPE = "decoder.embed_tokens.weight", (40, 16)


def zipped(change=None, **end):
    """The good file's members, changed."""
    def build(folder):
        members = PtModel().members()
        if change is not None:
            members = change(members) or members
        (folder / "model.pt").write_bytes(zip_file(members, **end))
    return build


def change_last(**fields):
    def change(members):
        for key, value in fields.items():
            setattr(members[-1], key, value)
    return zipped(change)


def add(*members):
    return zipped(lambda old: old + list(members))


def bytes_only(data):
    return lambda folder: (folder / "model.pt").write_bytes(data)


def no_zip():
    for what, data, word in (("empty file", b"", "empty"), ("web page", b"<html>404</html>", "web page"),
                             ("text", b"hello", "not a zip file"), ("gzip", b"\x1f\x8b\x08" + bytes(40), "gzip"),
                             ("pointer of Git LFS", b"version https://git-lfs.github.com/spec/v1\n", "LFS"),
                             ("legacy file cut early", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "cut"),
                             ("safetensors called pt", little(2, 8) + b"{}", "safetensors"),
                             ("two letters", b"PK", "2 bytes"), ("zeros after the letters", b"PK" + bytes(4096), "zip"),
                             ("end record alone", b"PK\x05\x06" + bytes(18), "data.pkl")):
        yield Case("no zip: " + what, (word,), bytes_only(data))
    for cut in (1, 10, 22, 100, 2000):
        yield Case(f"zip without its last {cut} bytes", ("zip",), lambda folder, cut=cut: bytes_only(
            zip_file(PtModel().members())[:-cut])(folder))


def members():
    yield Case("compressed member", ("compressed",), change_last(method=8))
    yield Case("bomb", ("compressed",), add(Member("archive/data/99", b"\x4b" * 100, method=8, sizes=(100, 1 << 30))))
    yield Case("member of an unknown method", ("compressed",), change_last(method=99))
    yield Case("encrypted member", ("encrypted",), change_last(flags=1))
    yield Case("strongly encrypted member", ("encrypted",), change_last(flags=0x41))
    yield Case("member with unknown flags", ("flags",), change_last(flags=0x20))
    yield Case("member that says it is larger", ("size",), change_last(sizes=(32, 1 << 20)))
    yield Case("member larger than the file", ("outside of the file",), change_last(sizes=(1 << 30, 1 << 30)))
    yield Case("member whose sizes wrap", ("extra field",), change_last(sizes=(0xffffffff, 0xffffffff)))
    yield Case("local header of another size", ("contradicts",), change_last(local_sizes=(31, 31)))
    yield Case("local header of another name", ("another name",), change_last(local_name="archive/data/xx"))
    yield Case("local header of a longer name", ("contradicts",), change_last(local_name="archive/data/15000"))
    yield Case("no local header", ("contradicts",), change_last(local_signature=0))
    yield Case("no directory entry", ("malformed",), change_last(signature=0))
    yield Case("member before the file", ("outside of the file",), change_last(offset=0xfffffff0))
    yield Case("member inside of another", ("local header",), change_last(offset=17))
    yield Case("member with a comment", ("malformed",), change_last(comment=b"x" * 60000))
    yield Case("wrong CRC of the pickle", ("CRC-32",), zipped(lambda m: setattr(m[0], "crc", 1)))
    yield Case("wrong CRC of a storage", ("CRC-32",), change_last(crc=1), commands=("convert",))
    yield Case("duplicate pickle", ("twice",), add(Member("archive/data.pkl", b"\x80\x02N.")))
    yield Case("duplicate storage", ("twice",), add(Member("archive/data/0", bytes(1280))))
    yield Case("two members in one place", ("overlaps",), zipped(lambda m: m + [
        Member(m[0].name, m[0].data, offset=0, ghost=True)]))
    yield Case("member over half of another", ("overlaps",), overlap_half())
    yield Case("extra field too long", ("extra field",), change_last(extra=b"\1\0\xff\xff"))
    yield Case("extra field that is cut", ("extra field",), change_last(extra=b"\1\0"))
    yield Case("zip64 sizes twice", ("extra field",), change_last(
        sizes=(0xffffffff, 0xffffffff), extra=(b"\1\0\x10\0" + little(32, 8) * 2) * 2))
    yield Case("zip64 sizes that are absent", ("extra field",), change_last(
        sizes=(0xffffffff, 0xffffffff), extra=b"\1\0\x08\0" + little(32, 8)))
    yield Case("zip64 size of 2^64 - 1", ("outside of the file",), change_last(
        sizes=(0xffffffff, 0xffffffff), extra=b"\1\0\x10\0" + b"\xff" * 16))
    yield Case("zip64 offset of 2^63", ("outside of the file",), change_last(
        offset=0xffffffff, extra=b"\1\0\x08\0" + little(1 << 63, 8)))


def overlap_half():
    """A member whose local header lies inside of the data of another."""
    inner = Member("archive/data/98", bytes(8))
    hidden = zip_file([inner])[:30 + len("archive/data/98") + 8]
    def change(members):
        outer = Member("archive/data/97", hidden + bytes(8))
        before = zip_file(members + [Member(outer.name, outer.data, hidden=True)])
        at = before.index(hidden)
        return members + [outer, Member(inner.name, inner.data, offset=at, ghost=True)]
    return zipped(change)


def names():
    for name in ("../evil", "archive/../../evil", "/etc/passwd", "archive//data.pkl", "C:\\evil", "archive\\data.pkl",
                 "archive/data/../../../root/.ssh/authorized_keys", "archive/code/x.py", "archive/data/1e3",
                 "archive/data/0123456789", "other/data.pkl", "archive/constants.pkl", "evil", "archive/"):
        yield Case("member named " + name, ("member" if "/" in name and name[0] != "/" else "torch.save",),
                   add(Member(name, b"x")))
    yield Case("member with a zero in its name", ("zero byte",), add(Member(b"archive/data/1\0.py", b"x")))
    yield Case("member without a name", ("malformed",), add(Member(b"", b"x")))
    yield Case("member of a long name", ("malformed",), add(Member("archive/" + "x" * 60000, b"x")))
    yield Case("member with a terminal's codes in its name", ("member",),
               add(Member(b"archive/\x1b[2J\x1b]0;x\x07", b"x")))
    yield Case("no root folder", ("torch.save",), lambda folder: (folder / "model.pt").write_bytes(
        zip_file([Member("data.pkl", PtModel().pickle())])))
    yield Case("no pickle", ("data.pkl",), zipped(lambda m: m[1:]))
    yield Case("big endian", ("byte order",), add(Member("archive/byteorder", b"big")))
    yield Case("byte order of a megabyte", ("at most",), add(Member("archive/byteorder", bytes(1 << 20))))


def ends():
    yield Case("comment of the archive", ("zip",), zipped(comment=b"x"))
    yield Case("huge comment", ("zip",), zipped(comment=b"PK\x05\x06" + b"x" * 60000))
    yield Case("bytes after the end", ("zip",), zipped(suffix=b"x" * 100))
    yield Case("zip before the zip", ("precede",), zipped(prefix=b"PK" + bytes(60)))
    yield Case("bytes before the directory", ("directory",), zipped(between=b"x" * 10, offset=0))
    yield Case("program before the zip", ("zip",), zipped(prefix=b"MZ" + bytes(60)))
    yield Case("other number of members", ("directory",), zipped(entries=3))
    yield Case("65535 members", ("directory",), zipped(entries=65535))
    yield Case("several disks", ("disks",), zipped(disk=1))
    yield Case("members on other disks", ("disks",), zipped(disk_entries=1))
    yield Case("directory outside of the file", ("directory",), zipped(offset=0xfffffff0))
    yield Case("directory of another size", ("directory",), zipped(bytes=1))
    yield Case("directory of 4 GiB", ("directory",), zipped(bytes=0xfffffff0))
    yield Case("zip64 with other members", ("contradict",), zipped(wide=True, wide_entries=3))
    yield Case("zip64 with another size", ("contradict",), zipped(wide=True, wide_bytes=3))
    yield Case("zip64 with another place", ("contradict",), zipped(wide=True, wide_offset=3))
    yield Case("zip64 directory of 2^63 bytes", ("directory",), zipped(
        wide=True, bytes=0xffffffff, wide_bytes=1 << 63))
    yield Case("zip64 of 2^60 members", ("members",), zipped(wide=True, entries=65535, wide_entries=1 << 60))
    yield Case("zip64 directory outside of the file", ("directory",), zipped(
        wide=True, offset=0xffffffff, wide_offset=(1 << 64) - 10))
    yield Case("zip64 locator to elsewhere", ("zip64",), zipped(wide=True, locator=0))
    yield Case("hundred thousand and one members", ("members",), lambda folder: (folder / "model.pt").write_bytes(
        zip_file([Member(f"a/data/{i}") for i in range(100_001)], wide=True, entries=65535)))
    yield Case("sixty thousand members", ("data.pkl",), lambda folder: (folder / "model.pt").write_bytes(
        zip_file([Member(f"a/data/{i}") for i in range(60_000)])))


def with_tensor(value, name=TOKENS):
    def build(folder):
        model = PtModel()
        model.model[name] = value
        model.write(folder)
    return build


def tensors():
    outside = ("outside of its storage",)
    good = {"shape": TOKENS_SHAPE, "numel": 640}
    yield Case("storage smaller than its view", ("storage",), with_tensor(tensor("0", (50272, 16), numel=640)))
    yield Case("storage smaller than it says", ("bytes",), with_tensor(tensor("0", (1000, 16))))
    yield Case("storage larger than it says", ("bytes",), with_tensor(tensor("0", (4, 16))))
    yield Case("view one element too far", outside, with_tensor(tensor("0", offset=1, **good)))
    yield Case("negative offset", ("offset",), with_tensor(tensor("0", offset=-1, **good)))
    yield Case("offset of 2^62", ("offset",), with_tensor(tensor("0", offset=1 << 62, **good)))
    yield Case("offset that wraps", ("offset",), with_tensor(tensor("0", offset=(1 << 63) - 1, **good)))
    yield Case("negative stride", ("stride",), with_tensor(tensor("0", stride=[-16, 1], **good)))
    yield Case("stride of 0", ("stride of 0",), with_tensor(tensor("0", stride=[0, 1], **good)))
    yield Case("both strides 0", ("stride of 0",), with_tensor(tensor("0", stride=[0, 0], **good)))
    yield Case("stride of 2^62", ("stride",), with_tensor(tensor("0", stride=[1 << 62, 1], **good)))
    yield Case("strides that wrap", outside, with_tensor(tensor("0", stride=[1 << 59, 1 << 59], **good)))
    yield Case("stride too large", outside, with_tensor(tensor("0", stride=[17, 1], **good)))
    yield Case("overlapping rows", ("strides",), with_tensor(tensor("0", stride=[3, 2], **good)))
    yield Case("fewer strides than sizes", ("strides",), with_tensor(tensor("0", stride=[1], **good)))
    yield Case("negative size", ("size",), with_tensor(tensor("0", (-40, 16), [16, 1], numel=640)))
    yield Case("size of 2^62", ("size",), with_tensor(tensor("0", (1 << 62, 1), [1, 1], numel=640)))
    yield Case("sizes whose product wraps", outside, with_tensor(
        tensor("0", (1 << 32, 1 << 32, 1 << 32), [1, 1, 1], numel=640)))
    yield Case("sizes whose product wraps to nothing", outside, with_tensor(
        tensor("0", (1 << 33, 1 << 33, 0), [1, 1, 1], numel=640)))
    yield Case("nine axes", ("sizes",), with_tensor(tensor("0", (1,) * 9, numel=640)))
    yield Case("thousand axes", ("sizes",), with_tensor(tensor("0", (1,) * 1000, numel=640)))
    yield Case("sizes that are texts", ("size",), with_tensor(call(
        "torch._utils._rebuild_tensor_v2", storage("0", 640), integer(0), tuple_of(text("40")), tuple_of(integer(1)),
        b"\x89", b"N")))
    yield Case("tensor of no storage", ("tensor",), with_tensor(call(
        "torch._utils._rebuild_tensor_v2", text("0"), integer(0), tuple_of(), tuple_of(), b"\x89", b"N")))
    yield Case("tensor of too few arguments", ("tensor",), with_tensor(call(
        "torch._utils._rebuild_tensor_v2", storage("0", 640))))
    yield Case("parameter of a text", ("parameter",), with_tensor(call(
        "torch._utils._rebuild_parameter", text("x"), b"\x89", b"N")))
    yield Case("more claimed than stored", ("twice the bytes",), alias_bomb)
    yield Case("empty tensor", ("vocab is 0",), with_tensor(tensor("0", (0, 16), numel=640)))
    yield Case("no axes", ("decoder.embed_tokens.weight",), with_tensor(tensor("0", (), numel=640)))
    yield Case("tensor of another shape", ("expected",), with_tensor(
        tensor("0", (32, 20), numel=640), "decoder.layers.0.fc1.weight"))
    yield Case("strange tensor", ("unexpected",), with_tensor(tensor("0", numel=640, shape=(40, 16)), "decoder.evil"))
    yield Case("name of 5000 bytes", ("name of a tensor",),
               with_tensor(tensor("0", numel=640, shape=(40, 16)), "x" * 5000))
    yield Case("number for a name", ("name of a tensor",), number_for_a_name)
    yield Case("no heads", ("heads",), heads(None))
    for number in (-4, 0, 3, 1 << 62):
        yield Case(f"{number} heads", ("heads",), heads(number))
    yield Case("other architecture", ("alibi",), option("alibi", b"\x88"))
    yield Case("other activation", ("silu",), option("activation_fn", text("silu")))
    yield Case("not numbers", ("NaN",), not_numbers, commands=("convert",))
    for kind, dtype in (("LongStorage", "I64"), ("ByteStorage", "U8"), ("BoolStorage", "BOOL")):
        yield Case("weights of " + kind, (dtype,), other_type(kind))
    yield Case("layers up to 99999", ("num_layers",), with_tensor(tensor("0", numel=640, shape=(40, 16)),
                                                               "decoder.layers.99999.fc1.weight"))


def alias_bomb(folder):
    model = PtModel()
    model.top["more"] = b"(" + b"".join(tensor("0", TOKENS_SHAPE) for _ in range(2000)) + b"t"
    model.write(folder)


def number_for_a_name(folder):
    model = PtModel()
    pickle = model.pickle().replace(text(TOKENS), integer(7))
    model.write(folder, pickle)


def heads(number):
    def build(folder):
        model = PtModel()
        value = b"N" if number is None else integer(number)
        model.top["cfg"] = name_of("argparse.Namespace") + b")\x81}" + text("model") + (
            b"}" + text("decoder_attention_heads") + value + b"s") + b"sb"
        model.write(folder)
    return build


def option(name, value):
    def build(folder):
        model = PtModel()
        model.top["cfg"] = b"}" + text("model") + b"}" + text(name) + value + b"ss"
        model.write(folder)
    return build


def not_numbers(folder):
    model = PtModel()
    model.storages["0"] = b"\x00\x7e" + model.storages["0"][2:]
    model.write(folder)


def other_type(kind):
    size = {"LongStorage": 8}.get(kind, 1)
    def build(folder):
        model = PtModel()
        model.storages["0"] = bytes(640 * size)
        model.model[TOKENS] = tensor("0", TOKENS_SHAPE, kind=kind)
        model.write(folder)
    return build


def sets():
    def files(*names):
        def build(folder):
            for name in names:
                PtModel().write(folder)
                (folder / "model.pt").rename(folder / name)
        return build
    yield Case("gap in the parts", ("expected part",), files("x-model_part-0.pt", "x-model_part-2.pt"))
    yield Case("part of 2^63", ("expected part",), files("x-model_part-0.pt", "x-model_part-9223372036854775807.pt"))
    yield Case("shard of 2^63", ("expected part",),
               files("x-model_part-0-shard0.pt", "x-model_part-0-shard9223372036854775807.pt"))
    yield Case("two checkpoints", ("several checkpoints",), files("x.pt", "y.pt"))
    yield Case("three parts of one", ("divide",), files(*(f"x-model_part-{i}.pt" for i in range(3))))
    yield Case("shards that are whole", ("shards",), files("x-shard0.pt", "x-shard1.pt"))


def cases():
    for group in (no_zip, members, names, ends, tensors, sets):
        yield from group()

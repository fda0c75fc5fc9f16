"""Hugging Face folders: headers and configurations that lie, files that are not there. And manifests of ours."""

import json
import os

from building import (Case, HfModel, Member, PtModel, call, dict_of, little, pickled, safetensors, tensor, text,
                      tuple_of, zip_file)

TOKENS = "model.decoder.embed_tokens.weight"
NOT_VALID = "not a valid safetensors"


def header(change):
    """The good header, changed: `change` gets it and may return bytes instead."""
    def build(folder):
        model = HfModel()
        changed = change(model.header)
        model.write(folder, header=changed if isinstance(changed, (bytes, dict)) else model.header)
    return build


def entry(**fields):
    return header(lambda h: h[TOKENS].update(fields))


def weights(data):
    def build(folder):
        HfModel().write(folder)
        (folder / "model.safetensors").write_bytes(data() if callable(data) else data)
    return build


def text_of(h):
    return json.dumps(h).encode()


def safetensors_headers():
    for what, data in (("empty file", b""), ("four bytes", b"abcd"), ("length alone", little(10, 8)),
                       ("length of 2^64 - 1", b"\xff" * 8 + b"{}"), ("length of 2^63", little(1 << 63, 8) + b"{}"),
                       ("length beyond the file", little(1 << 20, 8) + b"{}"),
                       ("text file", b"# weights of a model\n" * 9),
                       ("header that is a list", safetensors(b"[]")), ("header that is a number", safetensors(b"7"))):
        yield Case("safetensors: " + what, (NOT_VALID,), weights(data))
    yield Case("header of 17 MiB", ("16 MiB",), weights(lambda: safetensors(b"{}" + b" " * (17 << 20))))
    for what, data in (("cut", b'{"x": {"dtype"'), ("empty", b""), ("with a comment", b'{} // x'), ("twice", b"{}{}"),
                       ("not UTF-8", b'{"\xff\xfe": 1}'), ("with a bare surrogate", b'{"\\ud800": 1}'),
                       ("NaN", b'{"x": NaN}'), ("with zeros", b'{"x"\0: 1}')):
        yield Case("header that is " + what, ("JSON",), weights(safetensors(data)))
    yield Case("deep header", ("deeper",), weights(safetensors(b'{"x":' * 100_000)))
    yield Case("deep list in the header", ("deeper",), weights(safetensors(b'{"x":' + b"[" * 1_000_000)))
    yield Case("deep metadata", ("deeper",), header(lambda h: h.update(__metadata__={"a": {"b": {"c": {}}}})))
    yield Case("metadata that are no texts", ("__metadata__",), header(lambda h: h.update(__metadata__={"a": 1})))
    yield Case("metadata that are a list", ("__metadata__",), header(lambda h: h.update(__metadata__=[])))
    yield Case("one tensor twice", ("twice",), header(lambda h: text_of(h)[:-1] + b"," + json.dumps(
        {TOKENS: h[TOKENS]}).encode()[1:]))
    yield Case("list of eight million numbers", ("values",), weights(
        lambda: safetensors(b'{"x":{"shape":[' + b"0," * 8_000_000 + b"0]}}")))
    yield Case("more than a million tensors", ("values",), weights(lambda: safetensors(
        b"{" + b",".join(b'"%x":{}' % i for i in range(1_100_000)) + b"}")))
    yield Case("hundred thousand and one tensors", ("100000",), weights(lambda: safetensors(
        b"{" + b",".join(b'"%x":0' % i for i in range(100_001)) + b"}")))


def safetensors_entries():
    for what, value in (("a number", 7), ("nothing", None), ("a list", [])):
        yield Case("tensor that is " + what, ("dtype, shape and data_offsets",),
                   header(lambda h, v=value: h.update({TOKENS: v})))
    yield Case("tensor without offsets", ("dtype, shape and data_offsets",),
               header(lambda h: h[TOKENS].pop("data_offsets")))
    yield Case("tensor with more keys", ("dtype, shape and data_offsets",), entry(evil=1))
    for value in ("F8", "f16", "F16 ", "", "../x", 16, None, ["F16"]):
        yield Case(f"type {value!r}", ("dtype",), entry(dtype=value))
    for value in (-1, 1.5, "40", None, 1 << 63, 1e300, True):
        yield Case(f"size {value!r}", ("shape",), entry(shape=[value, 16]))
    yield Case("shape that is a number", ("shape",), entry(shape=640))
    yield Case("nine sizes", ("shape",), entry(shape=[1] * 9))
    yield Case("sizes that wrap", ("shape",), entry(shape=[1 << 32, 1 << 32, 1 << 32]))
    yield Case("sizes whose bytes wrap", ("shape",), entry(shape=[(1 << 63) - 1]))
    yield Case("shape of other bytes", ("shape",), entry(shape=[39, 16]))
    yield Case("type of other bytes", ("shape",), entry(dtype="F32"))
    for value in ([0], [0, 1280, 5], [-1280, 0], [0, -1], [0.5, 1280], ["0", "1280"], None, [0, 1 << 64]):
        yield Case(f"offsets {value!r}", ("data_offsets",), entry(data_offsets=value))
    yield Case("end before the begin", ("bytes",), entry(data_offsets=[1280, 0]))
    yield Case("end of 2^63 - 1", ("bytes",), entry(data_offsets=[0, (1 << 63) - 1]))
    yield Case("two tensors in one place", ("begins at byte",), header(lambda h: h.update(
        {"model.decoder.layers.0.fc1.bias": {**h["model.decoder.layers.0.fc1.bias"], "data_offsets": [0, 64]}})))
    yield Case("gap", ("begins at byte",), header(lambda h: h.pop(TOKENS) and None))
    yield Case("tensor over half of another", ("begins at byte",), entry(data_offsets=[640, 1920]))
    yield Case("bytes after the last", ("describes",), lambda folder: (
        lambda m: m.write(folder, data=m.data + b"x"))(HfModel()))
    yield Case("bytes missing", ("describes",), lambda folder: (lambda m: m.write(folder, data=m.data[:-1]))(HfModel()))
    yield Case("name of 5000 bytes in a header", ("name",), header(lambda h: h.update({"x" * 5000: h.pop(TOKENS)})))
    yield Case("tensor without a name", ("name",), header(lambda h: h.update({"": h.pop(TOKENS)})))
    yield Case("name of a path", ("missing",), header(lambda h: h.update({"../../etc/passwd": h.pop(TOKENS)})))
    yield Case("integers for weights", ("I16",), entry(dtype="I16"))
    yield Case("same name in two spellings", ("twice",), header(lambda h: h.update(
        {"decoder.embed_tokens.weight": {"dtype": "F16", "shape": [0, 16], "data_offsets": [0, 0]}})))


def config(**fields):
    def build(folder):
        model = HfModel()
        model.config.update(fields)
        model.write(folder)
    return build


def raw_config(data):
    return lambda folder: HfModel().write(folder, config=data() if callable(data) else data)


def configs():
    for what, data in (("empty", b""), ("cut", b'{"model_type": "opt"'), ("not UTF-8", b'{"model_type": "\xff"}'),
                       ("a number of 1000 digits too large", b'{"model_type": 1e999}'),
                       ("pickle", pickled(call("posix.system"))),
                       ("with a zero", b'{"model_type"\0: "opt"}'), ("Python", b"{'model_type': 'opt'}")):
        yield Case("configuration that is " + what, ("JSON",), raw_config(data))
    yield Case("configuration that is a list", ("model_type",), raw_config(b"[]"))
    yield Case("configuration of 2 MiB", ("allowed",), raw_config(lambda: b" " * (2 << 20)))
    yield Case("deep configuration", ("deeper",), raw_config(b"[" * 500_000))
    yield Case("deep objects", ("deeper",), raw_config(b'{"a":' * 100_000))
    yield Case("key twice", ("twice",), raw_config(b'{"model_type": "opt", "model_type": "gpt2"}'))
    yield Case("other model", ("model_type",), config(model_type="llama"))
    yield Case("model type that is an object", ("model_type",), config(model_type={"opt": 1}))
    yield Case("other activation function", ("activation_function",), config(activation_function="silu"))
    yield Case("no biases", ("biases",), config(enable_bias=False))
    for key in ("hidden_size", "ffn_dim", "vocab_size", "num_hidden_layers", "max_position_embeddings"):
        for value in (-1, 0, 1 << 40):
            yield Case(f"{key} {value}", (key,), config(**{key: value}))
    for value in (-4, 0, 3, 1 << 40, (1 << 64) - 4, 10 ** 30):
        yield Case(f"{value} attention heads", ("heads",), config(num_attention_heads=value))
    yield Case("special id that is no token", ("eos_id",), config(eos_token_id=1 << 40))
    yield Case("negative special id", ("bos_id",), config(bos_token_id=-5))
    yield Case("post-norm with a final norm", ("norm",), config(do_layer_norm_before=False))


def index(value, name="model.safetensors.index.json"):
    def build(folder):
        HfModel().write(folder)
        (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
        (folder / name).write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    return build


def indices():
    for target in ("../x", "../model.safetensors", "/etc/passwd", "sub/model.safetensors", "..", ".", "", "a\0b",
                   "model.safetensors/../../x", "\\\\host\\share"):
        yield Case(f"index that points to {target!r}", ("index",), index({"weight_map": {TOKENS: target}}))
    yield Case("index of a file that is missing", ("missing",), index({"weight_map": {TOKENS: "model-9.safetensors"}}))
    yield Case("index that maps to numbers", ("index",), index({"weight_map": {TOKENS: 7}}))
    yield Case("index without a map", ("weight_map",), index({"metadata": {}}))
    yield Case("index that is a list", ("weight_map",), index([]))
    yield Case("index that is no JSON", ("JSON",), index(b"{"))
    yield Case("deep index", ("deeper",), index(b'{"weight_map":' * 100_000))
    yield Case("index of 20 MiB", ("allowed",), index(b" " * (20 << 20)))
    yield Case("index with one key twice", ("twice",), index(b'{"weight_map": {"a": "x", "a": "y"}}'))


def folders():
    def links(**targets):
        def build(folder):
            HfModel().write(folder)
            for name, target in targets.items():
                path = folder / name.replace("__", ".")
                path.unlink(missing_ok=True)
                path.symlink_to(target)
        return build
    yield Case("weights linked to a text", (NOT_VALID,), links(model__safetensors="/etc/passwd"))
    yield Case("weights linked to a device", ("Metaseq",), links(model__safetensors="/dev/zero"))
    yield Case("weights linked to themselves", ("Metaseq",), links(model__safetensors="model.safetensors"))
    yield Case("configuration linked to a device", ("regular file",), links(config__json="/dev/zero"))
    yield Case("configuration linked to a text", ("JSON",), links(config__json="/etc/passwd"))
    yield Case("configuration that is a folder", ("regular file",), special(lambda path: path.mkdir()))
    yield Case("configuration that is a pipe", ("regular file",), special(os.mkfifo))
    yield Case("part of the weights is missing", ("missing",), lambda folder: part(folder))
    yield Case("no file", ("no files",), lambda folder: None)
    yield Case("only other files", ("evil.exe",), lambda folder: (folder / "evil.exe").write_bytes(b"MZ"))
    yield Case("bin that runs code", ("posix.system", "run code"), bin_file(
        dict_of({TOKENS: call("posix.system", text("touch hostile-canary"))})))
    yield Case("bin that is no dictionary", ("dictionary",), bin_file(tuple_of()))
    yield Case("bin with other things", ("holds no tensors",), bin_file(dict_of({TOKENS: text("x")})))
    yield Case("bin with one name twice", ("twice",), bin_file(
        b"}(" + (text(TOKENS) + tensor("0", (2, 2), numel=4)) * 2 + b"u", {"0": bytes(8)}))
    for name, data in (("vocab.json", b"[1, 2]"), ("vocab.json", b'{"a": -1}'), ("vocab.json", b'{"a": 99999999999}'),
                       ("vocab.json", b'{"a": 1, "a": 2}'), ("vocab.json", b'{"a": 4000}'), ("vocab.json", b"{")):
        yield Case(f"vocabulary {data.decode()}", ("vocab",), vocabulary(data), commands=("convert",))


def special(make):
    def build(folder):
        HfModel().write(folder)
        (folder / "config.json").unlink()
        make(folder / "config.json")
    return build


def part(folder):
    HfModel().write(folder)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    model = HfModel()
    first = dict(list(model.header.items())[:5])
    end = max(e["data_offsets"][1] for e in first.values())
    (folder / "model-00001-of-00002.safetensors").write_bytes(safetensors(first, model.data[:end]))


def bin_file(value, storages=None):
    def build(folder):
        HfModel().write(folder)
        (folder / "model.safetensors").unlink()
        members = [Member("archive/data.pkl", pickled(value))]
        members += [Member("archive/data/" + key, data) for key, data in (storages or {}).items()]
        (folder / "pytorch_model.bin").write_bytes(zip_file(members))
    return build


def vocabulary(data):
    def build(folder):
        PtModel().write(folder)
        (folder / "vocab.json").write_bytes(data)
        (folder / "merges.txt").write_bytes(b"#version: 0.2\n")
    return build


def cases():
    for group in (safetensors_headers, safetensors_entries, configs, indices, folders):
        yield from group()


def manifest_cases(good):
    """`good`: a converted model. Each case is a copy of it with another manifest, or other files."""
    manifest = json.loads((good / "manifest.json").read_text())
    shard = manifest["files"][0]["name"]

    def copy(folder, changed):
        for path in good.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        (folder / "manifest.json").write_bytes(changed if isinstance(changed, bytes) else json.dumps(changed).encode())

    def case(name, word, change):
        def build(folder):
            changed = json.loads(json.dumps(manifest))
            result = change(changed)
            copy(folder, result if isinstance(result, bytes) else changed)
        return Case("manifest: " + name, (word,), build, commands=("inspect",))

    yield case("empty", "JSON", lambda m: b" ")
    yield case("deep", "deeper", lambda m: b'{"a":' * 100_000)
    yield case("5 MiB", "allowed", lambda m: b" " * (5 << 20))
    yield case("other format", "format", lambda m: m.update(format="x"))
    yield case("other version", "format_version", lambda m: m.update(format_version=99))
    yield case("unknown key", "evil", lambda m: m.update(evil=1))
    yield case("file elsewhere", "not a valid name for a file", lambda m: m["files"][0].update(name="../" + shard))
    yield case("file at the root", "not a valid name for a file", lambda m: m["files"][0].update(name="/etc/passwd"))
    yield case("hidden file", "not a valid name for a file", lambda m: m["files"][0].update(name=".x"))
    yield case("file of another name", "expected", lambda m: m["files"][0].update(name="x"))
    yield case("file of 2^63 bytes", "bytes", lambda m: m["files"][0].update(bytes=1 << 63))
    yield case("file of other bytes", "bytes", lambda m: m["files"][0].update(bytes=1))
    yield case("digest that is none", "sha256", lambda m: m["files"][0].update(sha256="x" * 64))
    yield case("no files", "files", lambda m: m.update(files=[]))
    yield case("2^40 shards", "shards", lambda m: m.update(shards=1 << 40))
    yield case("no shards", "shards", lambda m: m.update(shards=0))
    yield case("hidden of 2^40", "hidden", lambda m: m["config"].update(hidden=1 << 40))
    yield case("2^31 layers", "num_layers", lambda m: m["config"].update(num_layers=1 << 31))
    yield case("other sizes", shard, lambda m: m["config"].update(ffn=64))
    yield case("name of a path", "name", lambda m: m["config"].update(name="../../x"))
    yield case("type of integers", "dtype", lambda m: m.update(dtype="I64"))
    yield case("tokenizer elsewhere", "tokenizer", lambda m: m.update(tokenizer={"vocab": "../v", "merges": "m"}))
    yield case("key twice", "twice", lambda m: json.dumps(m).encode()[:-1] + b', "format": "x"}')

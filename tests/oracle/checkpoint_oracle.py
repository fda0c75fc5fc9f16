"""Compares conversions with what torch itself reads, and refuses a file that would run code.

usage: checkpoint_oracle.py CONVERT_TOOL DEMO_MODEL_FOLDER
"""

import argparse
import collections
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy
import torch

import metaseq_files

HIDDEN, HEADS, FFN, VOCAB, POSITIONS, LAYERS = 32, 4, 64, 48, 10, 2


def convert(tool, source, target, *options):
    return subprocess.run([tool, "convert", str(source), str(target), *options], capture_output=True, text=True)


def expect(condition, what):
    if not condition:
        sys.exit(f"FAILED: {what}")
    print(f"ok: {what}")


class UnknownToReaders:
    """Pickled by reference to a module that the reader has never heard of."""

    def __init__(self):
        self.cache = {"tokens": [1, 2, 3], "nested": {"x": (1.5, None, True)}}


UnknownToReaders.__module__ = "metaseq.data.streaming"
UnknownToReaders.__qualname__ = "UnknownToReaders"


class RunsCode:
    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


def layer_shapes(prefix):
    return {prefix + "self_attn.qkv_proj.weight": (3 * HIDDEN, HIDDEN),
            prefix + "self_attn.qkv_proj.bias": (3 * HIDDEN,),
            prefix + "self_attn.out_proj.weight": (HIDDEN, HIDDEN), prefix + "self_attn.out_proj.bias": (HIDDEN,),
            prefix + "self_attn_layer_norm.weight": (HIDDEN,), prefix + "self_attn_layer_norm.bias": (HIDDEN,),
            prefix + "fc1.weight": (FFN, HIDDEN), prefix + "fc1.bias": (FFN,),
            prefix + "fc2.weight": (HIDDEN, FFN), prefix + "fc2.bias": (HIDDEN,),
            prefix + "final_layer_norm.weight": (HIDDEN,), prefix + "final_layer_norm.bias": (HIDDEN,)}


def views_of_one_storage(shapes, dtype):
    """Like unflattened FSDP output: every tensor is a view with an offset."""
    lead = 7  # so that even the first view has an offset
    flat = torch.randn(lead + sum(numpy.prod(shape) for shape in shapes.values())).to(dtype)
    views, at = {}, lead
    for name, shape in shapes.items():
        count = int(numpy.prod(shape))
        views[name] = flat[at:at + count].view(shape)
        at += count
    return views


def torch_checkpoint(dtype):
    shapes = {"decoder.embed_tokens.weight": (VOCAB, HIDDEN), "decoder.embed_positions.weight": (POSITIONS + 2, HIDDEN),
              "decoder.layer_norm.weight": (HIDDEN,), "decoder.layer_norm.bias": (HIDDEN,)}
    model = collections.OrderedDict(views_of_one_storage(shapes, dtype))
    for layer in range(LAYERS):
        model.update(views_of_one_storage(layer_shapes(f"decoder.layers.{layer}."), dtype))
    transposed = torch.randn(HIDDEN, FFN).to(dtype)
    model["decoder.layers.0.fc1.weight"] = transposed.t()  # strides other than C order
    model["decoder.layers.1.fc2.bias"] = torch.nn.Parameter(torch.randn(HIDDEN).to(dtype))
    model["decoder.version"] = torch.tensor([3.0])
    arguments = argparse.Namespace(decoder_attention_heads=HEADS, activation_fn="relu", decoder_normalize_before=True)
    return {"cfg": {"model": arguments, "common": argparse.Namespace(seed=1, half=torch.float16)}, "model": model,
            "args": None, "criterion": None, "optimizer_history": [{"num_updates": 10 ** 12, "lr": 1e-5}],
            "extra_state": {"train_iterator": UnknownToReaders(), "rng": 2 ** 200, "bytes": b"raw\xff",
                            "set": {1, 2}, "default": collections.defaultdict(list, {"a": [1]})},
            "last_optimizer_state": {"state": {0: {"exp_avg": torch.randn(5)}}}}


def canonical(model):
    """What the converted file must hold, by torch's own reading of the tensors."""
    names = {"self_attn.out_proj": "attention.out", "self_attn_layer_norm": "attention_norm",
             "final_layer_norm": "ffn_norm", "fc1": "ffn.up", "fc2": "ffn.down"}
    out = {}
    for name, tensor in model.items():
        array = tensor.detach().float().numpy()
        if name == "decoder.version":
            continue
        if "qkv_proj" in name:
            k, v, q = numpy.split(array, 3)
            out[name[8:].replace("self_attn.qkv_proj", "attention.qkv")] = numpy.concatenate([q, k, v])
        elif name == "decoder.embed_positions.weight":
            out["embed_positions.weight"] = array[2:]
        elif name.startswith("decoder.layer_norm"):
            out[name.replace("decoder.layer_norm", "final_norm")] = array
        else:
            ours = name[8:]
            for theirs, canonical_name in names.items():
                ours = ours.replace(theirs, canonical_name)
            out[ours] = array
    return out


def test_torch_files(tool, folder):
    module = type(sys)("metaseq.data.streaming")
    module.UnknownToReaders = UnknownToReaders
    sys.modules.update({"metaseq": type(sys)("metaseq"), "metaseq.data": type(sys)("metaseq.data"),
                        "metaseq.data.streaming": module})
    for dtype in (torch.float16, torch.float32, torch.bfloat16):
        checkpoint = torch_checkpoint(dtype)
        torch.save(checkpoint, folder / "restored.pt")
        target = folder / f"torch-{str(dtype)[6:]}"
        done = convert(tool, folder / "restored.pt", target, "--dtype", "fp32", "--shards", "1")
        expect(done.returncode == 0, f"torch.save of {dtype} converts {done.stderr}")
        found = metaseq_files.read_safetensors(target / "shard-000-of-001.safetensors")
        wanted = canonical(checkpoint["model"])
        expect(found.keys() == wanted.keys(), "the same tensors as torch")
        different = [name for name in wanted if not numpy.array_equal(found[name], wanted[name])]
        expect(not different, f"the same values as torch {different}")


def test_code_is_refused(tool, folder):
    touched = folder / "touched"
    cases = [("model", RunsCode(os.system, f"touch {touched}"), "posix.system"),
             ("extra_state", RunsCode(eval, f"open({str(touched)!r}, 'w')"), "builtin"),
             ("cfg", RunsCode(subprocess.call, ["touch", str(touched)]), "commands.call")]  # protocol 2 spells it so
    for place, evil, name in cases:
        checkpoint = torch_checkpoint(torch.float16)
        if place == "model":
            checkpoint["model"]["decoder.layers.0.evil"] = evil
        else:
            checkpoint[place] = {"x": evil}
        torch.save(checkpoint, folder / "evil.pt")
        done = convert(tool, folder / "evil.pt", folder / "evil")
        expect(done.returncode == 1 and name in done.stderr and f"inside '{place}'" in done.stderr,
               f"{name} in {place} is refused by name: {done.stderr.strip()}")
        expect(not touched.exists() and not (folder / "evil").exists(), "and nothing ran or was written")


def shard_digests(folder):
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("shard-*"))]


def test_demo_resplit(tool, demo, folder):
    files = [torch.load(path, map_location="cpu") for path in sorted(demo.glob("reshard-model_part-*.pt"))]
    parts = [{name: tensor.numpy() for name, tensor in file["model"].items()} for file in files]
    merged = metaseq_files.merge_parts(parts)
    done = convert(tool, demo, folder / "demo")
    expect(done.returncode == 0 and "7629312 parameters" in done.stdout,
           f"the demo converts: {done.stdout}{done.stderr}")
    wanted = shard_digests(folder / "demo")
    expect(len(wanted) == 4, "four shards")
    cfg = {"decoder_attention_heads": 4, "activation_fn": "relu"}
    for count in (1, 2, 4):
        source = folder / f"split{count}"
        source.mkdir()
        for j, part in enumerate(metaseq_files.split_parts(merged, count)):
            tensors = {name: (array.dtype, array.shape, [array]) for name, array in part.items()}
            metaseq_files.write_pt(source / f"reshard-model_part-{j}.pt", tensors, cfg)
        done = convert(tool, source, folder / f"demo{count}")
        expect(done.returncode == 0, f"{count} input parts convert {done.stderr}")
        expect(shard_digests(folder / f"demo{count}") == wanted, f"{count} input parts give the same shard bytes")
    whole = metaseq_files.read_safetensors
    convert(tool, demo, folder / "whole", "--shards", "1")
    found = whole(folder / "whole" / "shard-000-of-001.safetensors")
    expected = canonical({name: torch.from_numpy(array) for name, array in merged.items()})
    expect(all(numpy.array_equal(found[name], expected[name]) for name in expected), "the demo's values are torch's")


def main():
    tool, demo = sys.argv[1], pathlib.Path(sys.argv[2])
    print("torch", torch.__version__)
    torch.manual_seed(1)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="optserve-checkpoint-oracle-"))
    try:
        test_torch_files(tool, folder)
        test_code_is_refused(tool, folder)
        test_demo_resplit(tool, demo, folder)
    finally:
        shutil.rmtree(folder)


main()

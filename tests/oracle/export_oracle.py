"""Exports give what torch and safetensors read as the model's tensors, and convert back to the same shards.

usage: export_oracle.py CONVERT_TOOL DEMO_MODEL_FOLDER [SEED]
"""

import hashlib
import json
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import zipfile

import safetensors.torch
import torch

import opt_layouts as layouts
from opt_layouts import Sizes

MODELS = {"head size 64": Sizes(2, 4, 64, 48, 12), "head size 80": Sizes(2, 4, 80, 48, 12),
          "post-norm": Sizes(3, 4, 64, 44, 10, embed=32)}
# What OPTConfig of transformers reads, and the values that every OPT has.
CONFIG = {"model_type": "opt", "architectures": ["OPTForCausalLM"], "activation_function": "relu",
          "torch_dtype": "float16", "bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1, "enable_bias": True,
          "layer_norm_elementwise_affine": True, "_remove_final_layer_norm": False, "use_cache": True,
          "tie_word_embeddings": True, "dropout": 0.1, "attention_dropout": 0.0, "layerdrop": 0.0, "init_std": 0.02}


def expect(condition, what):
    if not condition:
        sys.exit(f"FAILED: {what}")
    print(f"ok: {what}")


def call(tool, *arguments):
    return subprocess.run([tool, *map(str, arguments)], capture_output=True, text=True)


def digests(folder, pattern):
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob(pattern))]


def without_unused_rows(tensors):
    """The rows of positions that no token uses are NaN in the layouts' writers, and zeros in an export."""
    return {name: torch.cat([torch.zeros_like(tensor[:2]), tensor[2:]]) if "embed_positions" in name else tensor
            for name, tensor in tensors.items()}


def same_tensors(found, wanted, what):
    expect(list(sorted(found)) == list(sorted(wanted)), f"{what}: the same names {set(found) ^ set(wanted)}")
    wanted = without_unused_rows(wanted)
    different = [name for name in wanted if not torch.equal(found[name], wanted[name].to(found[name].dtype)) or
                 found[name].dtype != torch.float16 or found[name].shape != wanted[name].shape]
    expect(not different, f"{what}: the same values {different}")


def back_again(tool, shards, source, what):
    target = source.parent / "again"
    done = call(tool, "convert", source, target)
    expect(done.returncode == 0 and digests(target, "shard-*") == digests(shards, "shard-*"),
           f"{what}: converts to the same shards {done.stderr}")
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (shards, target)]
    names = [manifest["config"].pop("name") for manifest in manifests]
    expect(names[0] != names[1] and manifests[0]["config"] == manifests[1]["config"] and
           manifests[0]["tokenizer"] == manifests[1]["tokenizer"], f"{what}: the same configuration")
    shutil.rmtree(target)


def exports(tool, shards, folder, *options):
    """Exports twice; the bytes must repeat."""
    for name in ("first", "second"):
        shutil.rmtree(folder / name, ignore_errors=True)
        done = call(tool, "export", shards, folder / name, *options)
        expect(done.returncode == 0, f"{' '.join(map(str, options))}: {done.stdout.splitlines()[:1]}{done.stderr}")
    expect(digests(folder / "first", "*") == digests(folder / "second", "*"), "the same bytes again")
    return folder / "first"


def test_huggingface(tool, shards, folder, model, sizes):
    wanted = layouts.huggingface_tensors(model, sizes)
    for limit in (5000, 1):
        out = exports(tool, shards, folder, "--format", "huggingface", "--file-mb-max", limit)
        names = sorted(path.name for path in out.glob("*.safetensors"))
        files = {name: safetensors.torch.load_file(out / name) for name in names}
        same_tensors({key: tensor for tensors in files.values() for key, tensor in tensors.items()}, wanted,
                     f"{len(files)} safetensors")
        with safetensors.safe_open(out / names[0], "pt") as file:
            expect(file.metadata() == {"format": "pt"}, "the metadata that transformers asks for")
        expect((len(files) > 1) == (limit == 1) == (out / "model.safetensors.index.json").exists(), "an index if many")
        if limit == 1:
            index = json.loads((out / "model.safetensors.index.json").read_text())
            expect(index["weight_map"] == {key: name for name, tensors in files.items() for key in tensors} and
                   names[0] == f"model-00001-of-{len(names):05}.safetensors" and
                   index["metadata"]["total_size"] == sum(2 * tensor.numel() for tensor in wanted.values()),
                   "the index names every tensor's file")
        config = json.loads((out / "config.json").read_text())
        expect(config == {**CONFIG, **layouts.huggingface_config(sizes)}, f"config.json {config}")
        back_again(tool, shards, out, "Hugging Face")


def test_metaseq(tool, shards, folder, model, sizes):
    for parts in (1,) if sizes.is_post_norm else (1, 2, 4):
        out = exports(tool, shards, folder, "--format", "metaseq", "--parts", parts)
        names = [f"reshard-model_part-{part}.pt" for part in range(parts)]
        names = ["reshard.pt"] if sizes.is_post_norm else names
        expect(sorted(path.name for path in out.glob("*.pt")) == names, f"the files {names}")
        for part, name in enumerate(names):
            with zipfile.ZipFile(out / name) as archive:
                expect(archive.testzip() is None, f"{name}: every CRC-32 is right")
            state = torch.load(out / name, weights_only=True)
            wanted = layouts.metaseq_part(model, sizes, part, parts, separate=sizes.is_post_norm)
            same_tensors(state["model"], wanted, f"{name} of {parts}")
            settings = layouts.metaseq_settings(sizes, parts)
            del settings["dropout"]  # training only
            found = state["cfg"]["model"]
            expect({key: found.get(key) for key in settings} == settings and
                   found["_name"] == ("transformer_lm_megatron" if parts > 1 else "transformer_lm_gpt"),
                   f"cfg.model {found}")
        back_again(tool, shards, out, f"Metaseq in {parts}")
    impossible = ((2, "in 1 part"),) if sizes.is_post_norm else ((3, "the model allows 1, 2, 4"), (0, "allows"))
    for parts, words in impossible:
        done = call(tool, "export", shards, folder / "refused", "--format", "metaseq", "--parts", parts)
        expect(done.returncode == 1 and words in done.stderr and not (folder / "refused").exists(),
               f"refused: {done.stderr.strip()}")


def test_untied(tool, folder, model, sizes):
    head = model["embed_tokens"] + 1
    wanted = {**layouts.huggingface_tensors(model, sizes), "lm_head.weight": head}
    layouts.save_huggingface(folder / "untied", wanted, layouts.huggingface_config(sizes, tie_word_embeddings=False))
    done = call(tool, "convert", folder / "untied", folder / "untied-shards")
    expect(done.returncode == 0, f"an untied head converts {done.stderr}")
    out = exports(tool, folder / "untied-shards", folder, "--format", "huggingface")
    same_tensors(safetensors.torch.load_file(out / "model.safetensors"), wanted, "untied")
    expect(json.loads((out / "config.json").read_text())["tie_word_embeddings"] is False, "config.json says so")
    back_again(tool, folder / "untied-shards", out, "an untied head")
    out = exports(tool, folder / "untied-shards", folder, "--format", "metaseq", "--parts", 2)
    for part in (0, 1):
        state = torch.load(out / f"reshard-model_part-{part}.pt", weights_only=True)
        expect(torch.equal(state["model"]["decoder.output_projection.weight"], head.chunk(2)[part]) and
               state["cfg"]["model"]["share_decoder_input_output_embed"] is False, f"the head of part {part}")
    back_again(tool, folder / "untied-shards", out, "an untied head in Metaseq's parts")


def test_demo(tool, demo, folder):
    """A trained model with its tokenizer, in the published number of parts and in others; other types of elements."""
    shards = folder / "demo"
    expect(call(tool, "convert", demo, shards).returncode == 0, "the demo converts")
    originals = [torch.load(path) for path in sorted(demo.glob("*.pt"))]
    out = exports(tool, shards, folder, "--format", "metaseq", "--parts", len(originals))
    for original, path in zip(originals, sorted(out.glob("*.pt"))):
        found = torch.load(path, weights_only=True)["model"]
        same_tensors({name: found[name] for name in original["model"]}, original["model"], f"the demo's {path.name}")
    for name in ("gpt2-vocab.json", "gpt2-merges.txt"):
        expect((out / name).read_bytes() == (demo / name).read_bytes(), f"the demo's {name}")
    back_again(tool, shards, out, "the demo")
    out = exports(tool, shards, folder, "--format", "huggingface")
    for theirs, ours in (("vocab.json", "gpt2-vocab.json"), ("merges.txt", "gpt2-merges.txt")):
        expect((out / theirs).read_bytes() == (demo / ours).read_bytes(), f"the demo's {theirs}")
    settings = json.loads((out / "tokenizer_config.json").read_text())
    expect(settings["tokenizer_class"] == "GPT2Tokenizer" and settings["add_bos_token"] is True and
           settings["bos_token"] == settings["eos_token"] == "</s>" and settings["pad_token"] == "<pad>",
           f"tokenizer_config.json {settings}")
    back_again(tool, shards, out, "the demo, Hugging Face")
    for dtype, torch_dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        other = folder / f"demo-{dtype}"
        expect(call(tool, "convert", demo, other, "--dtype", dtype).returncode == 0, f"the demo in {dtype}")
        out = exports(tool, other, folder, "--format", "metaseq")
        state = torch.load(out / "reshard-model_part-0.pt", weights_only=True)["model"]
        expect({tensor.dtype for tensor in state.values()} == {torch_dtype}, f"Metaseq's parts in {dtype}")
        back_again(tool, other, out, f"Metaseq's parts in {dtype}")
        back_again(tool, other, exports(tool, other, folder, "--format", "huggingface"), f"Hugging Face in {dtype}")


def test_refusals(tool, folder, shards):
    (folder / "taken").mkdir()
    for arguments, words in ((("--format", "gguf"), "expected huggingface or metaseq"),
                             (("--parts", 2), "only the format metaseq has parts")):
        done = call(tool, "export", shards, folder / "no", *arguments)
        expect(done.returncode == 1 and words in done.stderr, f"refused: {done.stderr.strip()}")
    done = call(tool, "export", shards, folder / "taken")
    expect(done.returncode == 1 and "exists already" in done.stderr, f"refused: {done.stderr.strip()}")
    damaged = folder / "damaged"
    shutil.copytree(shards, damaged)
    path = damaged / "shard-001-of-004.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(raw)
    before = sorted(folder.iterdir())
    done = call(tool, "export", damaged, folder / "no")
    expect(done.returncode == 1 and "shard-001-of-004.safetensors: SHA-256 is" in done.stderr and
           sorted(folder.iterdir()) == before, f"refused, and nothing left behind: {done.stderr.strip()}")


def main():
    tool, demo = sys.argv[1], pathlib.Path(sys.argv[2])
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else random.randrange(1 << 30)
    print(f"seed {seed}")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="optserve-export-"))
    try:
        for number, (what, sizes) in enumerate(MODELS.items()):
            print(what)
            model = layouts.random_model(sizes, seed)
            source, shards = folder / f"source{number}", folder / f"shards{number}"
            layouts.save_huggingface(source, layouts.huggingface_tensors(model, sizes),
                                     layouts.huggingface_config(sizes))
            done = call(tool, "convert", source, shards)
            expect(done.returncode == 0, f"{what} converts {done.stderr}")
            test_huggingface(tool, shards, folder, model, sizes)
            test_metaseq(tool, shards, folder, model, sizes)
        test_untied(tool, folder, layouts.random_model(MODELS["head size 64"], seed), MODELS["head size 64"])
        test_demo(tool, demo, folder)
        test_refusals(tool, folder, folder / "shards0")
    finally:
        shutil.rmtree(folder)


main()

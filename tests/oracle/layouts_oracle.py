"""One random model in every layout gives the same shards, byte for byte; what cannot be right is refused by name.

usage: layouts_oracle.py CONVERT_TOOL [SEED]
"""

import hashlib
import json
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

import torch

import opt_layouts as layouts
from opt_layouts import Sizes

MODELS = {"head size 64": Sizes(2, 4, 64, 48, 12), "head size 80": Sizes(2, 4, 80, 48, 12),
          "post-norm": Sizes(3, 4, 64, 44, 10, embed=32)}


def expect(condition, what):
    if not condition:
        sys.exit(f"FAILED: {what}")


class Runner:
    def __init__(self, tool, folder):
        self.tool, self.folder, self.count = tool, folder, 0

    def place(self):
        self.count += 1
        return self.folder / f"in{self.count}"

    def convert(self, source, *options):
        target = self.folder / f"out-{source.name.replace('*', '')}"
        done = subprocess.run([self.tool, "convert", str(source), str(target), *options], capture_output=True,
                              text=True)
        digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(target.glob("shard-*"))]
        if target.exists():
            shutil.rmtree(target)
        return done, digests

    def same(self, wanted, what, source, *options):
        done, digests = self.convert(source, *options)
        expect(done.returncode == 0 and digests == wanted, f"{what} gives the same shards: {done.stderr}")
        print(f"ok: {what}")

    def refused(self, source, words, *options):
        done, digests = self.convert(source, *options)
        missing = [word for word in words if word not in done.stderr]
        expect(done.returncode == 1 and not digests and not missing, f"a refusal with {missing}: {done.stderr}")
        print(f"ok: refused: {done.stderr.strip()[:300]}")


def metaseq_layouts(run, wanted, model, sizes):
    names = {1: ["reshard-model_part-{}.pt", "restored.pt"], 2: ["checkpoint_1_4000.pt-model_part-{}.pt"],
             4: ["checkpoint_1_8000-model_part-{}.pt", "reshard-model_part-{}-shard0.pt"]}
    for parts, patterns in names.items():
        for pattern in patterns:
            for views in (False, True):
                place = run.place()
                layouts.save_parts(place, pattern, model, sizes, parts, views=views)
                run.same(wanted, f"{pattern} of {parts}{' as views' if views else ''}", place)
    virtual = run.place()
    layouts.save_parts(virtual, "checkpoint_1_4000.pt-model_part-{}.pt", model, sizes, 2)
    for name in ("checkpoint_1_4000.pt", "checkpoint_1_4000.pt-model_part-1.pt", "*.pt"):
        run.same(wanted, f"the name {name}", virtual / name)
    for parts in (1, 2):
        place = run.place()
        layouts.save_parts(place, "restored.pt" if parts == 1 else "x-model_part-{}.pt", model, sizes, parts,
                           separate=True)
        run.same(wanted, f"separate q, k, v in {parts}", place)
    for parts, shards, metadata, cfg in ((1, 1, True, True), (2, 1, True, True), (2, 1, False, True),
                                         (2, 3, True, True), (4, 7, True, False), (2, 124, True, True),
                                         (4, 5, False, True)):
        place = run.place()
        layouts.save_flat(place, model, sizes, parts, shards, metadata, cfg)
        options = [] if cfg else ["--heads", str(sizes.heads)]
        run.same(wanted, f"flat, {parts} x {shards}, metadata {metadata}, cfg {cfg}", place, *options)


def metaseq_configurations(run, wanted, model, sizes):
    """Layers inside the root vector, and the other forms in which a configuration may be pickled."""
    for unwrapped, metadata in (((0, 1), True), ((0, 1), False), ((1,), True), ((0,), False)):
        place = run.place()
        layouts.save_flat(place, model, sizes, 2, 3, metadata, unwrapped=unwrapped)
        run.same(wanted, f"flat, layers {unwrapped} in the root, metadata {metadata}", place)
    for what, cfg in (("a dictionary", {"model": layouts.metaseq_settings(sizes, 2)}),
                      ("omegaconf's", layouts.container_cfg(sizes, 2))):
        place = run.place()
        layouts.save_parts(place, "reshard-model_part-{}.pt", model, sizes, 2, cfg)
        run.same(wanted, f"a configuration that is {what}", place)


def faster_transformer_layouts(run, wanted, model, sizes):
    heads = ["--heads", str(sizes.heads)]
    for parts in (1, 2, 4):
        place = run.place()
        layouts.save_faster_transformer(place, model, sizes, parts)
        run.same(wanted, f"FasterTransformer fp16 in {parts}", place, *heads)
    run.same(wanted, "FasterTransformer by one part's name", place / "part-2.pt", *heads)
    place = run.place()
    layouts.save_faster_transformer(place, model, sizes, 2, torch.float32)  # its positions stay fp16
    run.same(wanted, "FasterTransformer fp32 in 2", place, *heads, "--dtype", "fp16")


def huggingface_layouts(run, wanted, model, sizes):
    config = layouts.huggingface_config(sizes)
    tensors = layouts.huggingface_tensors(model, sizes)
    tied = {**tensors, "lm_head.weight": model["embed_tokens"]}
    bare = layouts.huggingface_tensors(model, sizes, prefix="")
    for what, safe, shards, index, content in (("one file", True, 1, True, tensors),
                                               ("index", True, 3, True, tensors),
                                               ("no index", True, 2, False, tensors),
                                               ("tied head", True, 2, True, tied),
                                               (".bin", False, 1, True, tied), (".bin, index", False, 3, True, tied),
                                               ("OPTModel", True, 1, True, bare)):
        place = run.place()
        layouts.save_huggingface(place, content, config, safe, shards, index)
        run.same(wanted, f"Hugging Face, {what}", place)


def round_trips(run, seed):
    for what, sizes in MODELS.items():
        model = layouts.random_model(sizes, seed)
        first = run.place()
        if sizes.is_post_norm:
            layouts.save_old_350m(first, model, sizes)
        else:
            layouts.save_parts(first, "reshard-model_part-{}.pt", model, sizes, 1)
        done, wanted = run.convert(first)
        expect(done.returncode == 0 and len(wanted) == 4, f"{what} converts: {done.stderr}")
        print(f"{what}, seed {seed}")
        if not sizes.is_post_norm:
            metaseq_layouts(run, wanted, model, sizes)
            metaseq_configurations(run, wanted, model, sizes)
            faster_transformer_layouts(run, wanted, model, sizes)
        huggingface_layouts(run, wanted, model, sizes)


def untied_heads(run, model, sizes):
    tensors = {**layouts.huggingface_tensors(model, sizes), "lm_head.weight": model["embed_tokens"] + 1}
    place, other = run.place(), run.place()
    layouts.save_huggingface(place, tensors, layouts.huggingface_config(sizes, tie_word_embeddings=False))
    done, untied = run.convert(place)
    expect(done.returncode == 0 and len(untied) == 4, f"an untied head converts: {done.stderr}")
    state = layouts.metaseq_part(model, sizes)
    state["decoder.output_projection.weight"] = model["embed_tokens"] + 1
    other.mkdir()
    cfg = layouts.metaseq_cfg(sizes)
    cfg["model"].share_decoder_input_output_embed = False
    torch.save({"cfg": cfg, "model": state}, other / "x.pt")
    run.same(untied, "an untied head of Metaseq", other)
    (place / "config.json").write_text(json.dumps(layouts.huggingface_config(sizes)))
    run.refused(place, ["differ from it; --head table serves the table"])
    layouts.save_huggingface(run.place(), layouts.huggingface_tensors(model, sizes),
                             layouts.huggingface_config(sizes, tie_word_embeddings=False))
    run.refused(run.folder / f"in{run.count}", ["is not the token table, but lm_head.weight is missing"])


def metaseq_refusals(run, model, sizes):
    for key, value, found in (("decoder_layers", 3, 2), ("decoder_embed_dim", 512, 256), ("decoder_input_dim", 64, 256),
                              ("decoder_ffn_embed_dim", 4096, 1024), ("max_target_positions", 2048, 12)):
        cfg = layouts.metaseq_cfg(sizes, 2)
        setattr(cfg["model"], key, value)
        place = run.place()
        layouts.save_parts(place, "reshard-model_part-{}.pt", model, sizes, 2, cfg)
        run.refused(place, [f"{key} is {value}, the tensors have {found}", "reshard-model_part-0.pt"])
    for heads, words in ((3, ["heads is 3", "divide the width 256"]), (2, ["4 parts", "divide by 1, 2 only"])):
        cfg = layouts.metaseq_cfg(sizes, 4)
        cfg["model"].decoder_attention_heads = heads
        place = run.place()
        layouts.save_parts(place, "reshard-model_part-{}.pt", model, sizes, 4, cfg)
        run.refused(place, words)
    place = run.place()
    layouts.save_parts(place, "reshard-model_part-{}.pt", model, sizes, 4)
    (place / "reshard-model_part-2.pt").unlink()
    run.refused(place, ["reshard-model_part-3.pt: expected part 2"])
    place = run.place()
    layouts.save_flat(place, model, sizes, 2, 3)
    (place / "checkpoint_last-model_part-1-shard2.pt").unlink()
    run.refused(place, ["shard 2 of its part is missing"])


def metaseq_mixtures(run, model, sizes, seed):
    """Parts of two checkpoints, of two configurations, and copies that drifted apart by rounding."""
    place = run.place()
    layouts.save_parts(place, "x-model_part-{}.pt", model, sizes, 2)
    intact, wanted = run.convert(place)
    expect("warning" not in intact.stderr.replace("warning: no vocabulary", ""), f"no drift: {intact.stderr}")
    state = torch.load(place / "x-model_part-1.pt")
    other = layouts.metaseq_part(layouts.random_model(sizes, seed + 1), sizes, 1, 2)
    torch.save({**state, "model": other}, place / "x-model_part-1.pt")
    run.refused(place, ["the parts do not belong to one checkpoint: embed_positions.weight is", "in part 1 at element"])
    norm = "decoder.layers.1.final_layer_norm.weight"
    drifted = {**state["model"], norm: state["model"][norm] * (1 + 2 ** -9)}
    torch.save({**state, "model": drifted}, place / "x-model_part-1.pt")
    done, digests = run.convert(place)
    expect(done.returncode == 0 and digests == wanted and
           "layers.1.ffn_norm.weight differs between parts" in done.stderr,
           f"drift by rounding is a warning: {done.stderr}")
    state["cfg"]["model"].decoder_attention_heads = 8
    torch.save(state, place / "x-model_part-1.pt")
    run.refused(place, ["decoder_attention_heads=4, x-model_part-1.pt says decoder_attention_heads=8"])


def flat_refusals(run, model, sizes):
    place = run.place()
    layouts.save_flat(place, model, sizes, 1, 3)
    path = place / "checkpoint_last-model_part-0-shard1.pt"
    state = torch.load(path)
    state["model"]["decoder.layers.1.flat_param_0"] = state["model"]["decoder.layers.1.flat_param_0"][:-5].clone()
    torch.save(state, path)
    run.refused(place, ["'decoder.layers.1.flat_param_0' holds 789757 elements in 3 shards, its tensors need 789760"])
    # A tool has kept the records of the first shard for all shards: the lengths decide.
    place = run.place()
    layouts.save_flat(place, model, sizes, 1, 5)
    first = torch.load(place / "checkpoint_last-model_part-0-shard0.pt")["shard_metadata"]
    for path in place.iterdir():
        torch.save({**torch.load(path), "shard_metadata": first}, path)
    plain = run.place()
    layouts.save_parts(plain, "x.pt", model, sizes, 1)
    run.same(run.convert(plain)[1], "records of another shard", place)
    place = run.place()
    layouts.save_flat(place, model, sizes, 2, 1, metadata=False, cfg=False)
    run.refused(place, ["flat tensor 'flat_param_0' holds 10240 elements"], "--heads", "4")  # not of 2048 positions


def flat_without_records(run, seed):
    """Neither metadata nor configuration: the width follows from the length of a layer."""
    sizes = Sizes(2, 4, 64, 48, 2048)
    model = layouts.random_model(sizes, seed)
    plain, flat = run.place(), run.place()
    layouts.save_parts(plain, "x.pt", model, sizes, 1)
    layouts.save_flat(flat, model, sizes, 2, 7, metadata=False, cfg=False)
    run.same(run.convert(plain)[1], "flat without metadata and configuration", flat, "--heads", "4")


def faster_transformer_refusals(run, model, sizes):
    heads = ["--heads", "4"]
    place = run.place()
    layouts.save_faster_transformer(place, model, sizes, 2, quantise=True)
    run.refused(place, ["part-0.pt: is quantised", "convert the checkpoint that it was made from"], *heads)
    place = run.place()
    layouts.save_faster_transformer(place, model, sizes, 4)
    run.refused(place, ["do not say how many attention heads", "2 layers of width 256"])
    (place / "part-3.pt").unlink()
    run.refused(place, ["its widths are those of one part of 4, found 3"], *heads)
    (place / "part-1.pt").unlink()
    run.refused(place, ["part-2.pt: expected part 1"], *heads)
    place = run.place()
    layouts.save_faster_transformer(place, model, sizes, 1)
    state = torch.load(place / "part-0.pt")
    torch.save({"weights": state["weights"][:-1]}, place / "part-0.pt")
    run.refused(place, ["holds 28 tensors, expected 12 for each layer and 5 more"], *heads)
    state["weights"][4], state["weights"][6] = state["weights"][6], state["weights"][4]
    torch.save(state, place / "part-0.pt")
    run.refused(place, ["entry 4 of its list is [3, 256], which is not a shape that this entry can have"], *heads)


def huggingface_refusals(run, model, sizes):
    tensors = layouts.huggingface_tensors(model, sizes)
    for key, value, found in (("num_hidden_layers", 5, 2), ("hidden_size", 128, 256), ("ffn_dim", 2048, 1024),
                              ("vocab_size", 50272, 48), ("word_embed_proj_dim", 64, 256),
                              ("max_position_embeddings", 2048, 12)):
        place = run.place()
        layouts.save_huggingface(place, tensors, layouts.huggingface_config(sizes, **{key: value}))
        run.refused(place, [f"config.json: {key} is {value}, the tensors have {found}"])
    place = run.place()
    layouts.save_huggingface(place, tensors, layouts.huggingface_config(sizes), shards=3)
    index = json.loads((place / "model.safetensors.index.json").read_text())
    missing = "model-00002-of-00003.safetensors"
    (place / missing).rename(place / "aside")
    run.refused(place, [f"{missing} is missing"])
    (place / "aside").rename(place / missing)
    some = next(iter(index["weight_map"]))
    for change, words in (({some: missing}, [f"{some} is in model-00001-of-00003.safetensors, not in {missing}"]),
                          ({"model.decoder.extra": missing}, ["model.decoder.extra is not in " + missing]),
                          ({some: "../" + missing}, ["not a file of the folder"])):
        changed = {**index, "weight_map": {**index["weight_map"], **change}}
        (place / "model.safetensors.index.json").write_text(json.dumps(changed))
        run.refused(place, words)
    del index["weight_map"][some]
    (place / "model.safetensors.index.json").write_text(json.dumps(index))
    run.refused(place, [f"{some} of model-00001-of-00003.safetensors is not in the index"])
    (place / "model.safetensors.index.json").unlink()
    (place / "model-00003-of-00003.safetensors").unlink()
    run.refused(place, ["shard 3 of 3"])


def main():
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 30)
    print(f"seed {seed}")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="optserve-layouts-"))
    try:
        run = Runner(sys.argv[1], folder)
        round_trips(run, seed)
        sizes = MODELS["head size 64"]
        model = layouts.random_model(sizes, seed)
        untied_heads(run, model, sizes)
        metaseq_refusals(run, model, sizes)
        metaseq_mixtures(run, model, sizes, seed)
        flat_refusals(run, model, sizes)
        flat_without_records(run, seed)
        faster_transformer_refusals(run, model, sizes)
        huggingface_refusals(run, model, sizes)
    finally:
        shutil.rmtree(folder)


main()

"""Folders as the tools around transformers leave them, converted and served, against OPTForCausalLM itself: the
log-probabilities of prompts and the greedy ids after them, on the CPU, in groups of several sizes.

usage: transformers_oracle.py CONVERT_TOOL CHECKPOINT_RUN DEMO_MODEL [PART ...]
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from transformers import OPTForCausalLM

import transformers_tokenizers
from opt_folders import HEAD, TABLE, config, save_bin, save_safetensors, state, write_json
from transformers_run import Runner, expect, reference

def heads(run):
    cfg = config()
    tied = state(cfg)
    model = reference(cfg, tied)
    for what, save in (("bin", save_bin), ("safetensors", save_safetensors)):
        for name, tensors in (("table only", tied), ("head only", {**{k: v for k, v in tied.items() if k != TABLE},
                                                                   HEAD: tied[TABLE]}),
                              ("both", {**tied, HEAD: tied[TABLE]}),
                              ("head in fp32", {**tied, HEAD: tied[TABLE].float()}),
                              ("table in fp32", {**tied, TABLE: tied[TABLE].float(), HEAD: tied[TABLE]}),
                              ("head of another name", {**tied, "output_projection.weight": tied[TABLE]}),
                              ("Metaseq's name", {**tied, "model.decoder.output_projection.weight": tied[TABLE]})):
            place = run.place(f"{name} in {what}", cfg)
            save(place, tensors)
            checkpoint = run.same(place, model)
            manifest = json.loads((checkpoint / "manifest.json").read_text())
            expect(manifest["config"]["tied_output"], f"{name}: the head is the table")
            wide = name == "table in fp32"
            expect(manifest["dtype"] == ("F32" if wide else "F16"), f"{name}: dtype {manifest['dtype']}")
    for listed in (TABLE, HEAD):
        for kept in (TABLE, HEAD):
            place = run.place(f"index of {listed}, file of {kept}", cfg)
            names = sorted(name for name in tied if name != TABLE)
            first, second = names[:9], names[9:]
            save_safetensors(place, {**{name: tied[name] for name in first}, kept: tied[TABLE]},
                             "model-00001-of-00002.safetensors")
            save_safetensors(place, {name: tied[name] for name in second}, "model-00002-of-00002.safetensors")
            index = {**{name: "model-00001-of-00002.safetensors" for name in first + [listed]},
                     **{name: "model-00002-of-00002.safetensors" for name in second}}
            write_json(place / "model.safetensors.index.json", {"metadata": {}, "weight_map": index})
            run.same(place, model)
    untied = config(tie_word_embeddings=False)
    own = state(untied)
    place = run.place("untied", untied)
    save_safetensors(place, own)
    run.same(place, reference(untied, own))
    contradicting = run.place("head that differs", cfg)
    save_safetensors(contradicting, own)
    run.refused(contradicting, ["lm_head.weight", "--head table", "--head own"])
    table = {name: tensor for name, tensor in own.items() if name != HEAD}
    run.same(contradicting, reference(cfg, table), "--head", "table", name="head that differs, the table")
    run.folder.joinpath("head that differs-converted").rename(run.folder / "table")
    run.same(contradicting, reference(untied, own), "--head", "own", name="head that differs, its own")
    place = run.place("no head of its own", cfg)
    save_bin(place, tied)
    run.refused(place, ["own head was asked for", "no lm_head.weight"], "--head", "own")
    place = run.place("untied, without its head", untied)
    save_bin(place, tied)
    run.refused(place, ["lm_head.weight is missing", "--head table"])
    run.same(place, model, "--head", "table")


def wrappers(run):
    cfg = config()
    tensors = state(cfg)
    model = reference(cfg, tensors)
    for prefix in ("module.", "_orig_mod.", "module._orig_mod.", "_forward_module.", "base_model.model.",
                   "pretrained_model.", "module.base_model.model."):
        place = run.place("prefix " + prefix, cfg)
        save_bin(place, {prefix + name: tensor for name, tensor in tensors.items()})
        run.same(place, model)
    place = run.place("FSDP inside", cfg)
    save_safetensors(place, {
        name.replace("layers.", "_fsdp_wrapped_module.layers.").replace(
            "self_attn.", "_fsdp_wrapped_module._checkpoint_wrapped_module.self_attn."): tensor
        for name, tensor in tensors.items()})
    run.same(place, model)
    place = run.place("OPTModel alone", cfg)
    save_safetensors(place, {name.removeprefix("model."): tensor for name, tensor in tensors.items()})
    run.same(place, model)
    for key in ("state_dict", "model_state_dict", "module", "model"):
        place = run.place("inside of " + key, cfg)
        save_bin(place, {key: tensors, "epoch": 3, "optimizer": {"lr": 0.1}})
        run.same(place, model)
    for name, extra, words in (("a number", {"step": 100}, "'step' is left out: it is a number"),
                               ("a text", {"author": "me"}, "'author' is left out: it is a text"),
                               ("a value head", {"v_head.summary.weight": torch.zeros(1, 32)}, "v_head.summary.weight"),
                               ("a classifier", {"score.weight": torch.zeros(2, 32)}, "score.weight is left out")):
        place = run.place("besides " + name, cfg)
        save_bin(place, {**tensors, **extra})
        run.same(place, model, warnings=[words])
    place = run.place("one tensor twice", cfg)
    save_bin(place, {**tensors, "decoder.layers.0.fc1.bias": torch.zeros(64).half()})
    run.refused(place, ["twice", "model.decoder.layers.0.fc1.bias"])


def relatives(run):
    galactica = {"activation_function": "gelu", "enable_bias": False, "layer_norm_elementwise_affine": False}
    for name, fields in (("gelu", {"activation_function": "gelu"}), ("no biases", {"enable_bias": False}),
                         ("norms without weights", {"layer_norm_elementwise_affine": False}),
                         ("no final norm", {"_remove_final_layer_norm": True}), ("Galactica", galactica),
                         ("Galactica without a final norm", {**galactica, "_remove_final_layer_norm": True}),
                         ("post-norm with gelu and no biases",
                          {"activation_function": "gelu", "enable_bias": False, "pre": False, "embed": 16})):
        cfg = config(vocab=132, **fields)
        tensors = state(cfg)
        model = reference(cfg, tensors)
        place = run.place(name, cfg)
        save_safetensors(place, tensors)
        checkpoint = run.same(place, model, worlds=(1, 2, 4))
        exported = run.folder / (name + "-exported")
        done = subprocess.run([run.convert_tool, "export", str(checkpoint), str(exported)], capture_output=True,
                              text=True)
        expect(done.returncode == 0, f"{name} is exported: {done.stderr}")
        again = OPTForCausalLM.from_pretrained(exported, torch_dtype=torch.float32).eval()
        ids = torch.arange(2, 30)[None]
        with torch.no_grad():
            error = (again(ids).logits - model(ids).logits).abs().max().item()
        expect(error < 1e-4, f"{name}: the export is off by {error}")
    cfg = config(enable_bias=False)
    place = run.place("biases that should not be there", cfg)
    save_safetensors(place, state(config()))
    run.refused(place, ["says that the model has no biases", "model.decoder.layers.0.self_attn."])


def vocabularies(run):
    for vocab in (129, 131):
        for heads, hidden, ffn, shards in ((4, 32, 64, (1, 2, 4)), (6, 48, 96, (1, 2, 3, 6))):
            for tied in (True, False):
                cfg = config(vocab=vocab, heads=heads, hidden=hidden, ffn=ffn, tie_word_embeddings=tied)
                tensors = state(cfg)
                model = reference(cfg, tensors)
                for count in shards:
                    place = run.place(f"{vocab} rows in {count} shards, {heads} heads, tied {tied}", cfg)
                    save_safetensors(place, tensors)
                    checkpoint = run.same(place, model, "--shards", str(count), worlds=shards)
                    served = json.loads((checkpoint / "manifest.json").read_text())["config"]
                    padding = -vocab % count
                    expect((served["vocab"], served["vocab_real"], served.get("vocab_padding", 0)) ==
                           (vocab + padding, vocab, padding), f"{place.name}: {served}")
    exported = run.folder / "exported"
    done = subprocess.run([run.convert_tool, "export", str(checkpoint), str(exported)], capture_output=True, text=True)
    expect(done.returncode == 0, f"a padded model is exported: {done.stderr}")
    back = OPTForCausalLM.from_pretrained(exported, torch_dtype=torch.float16).state_dict()
    unused = {"model.decoder.embed_positions.weight": 2}  # rows that no token uses
    expect(all(torch.equal(back[name][unused.get(name, 0):], tensor[unused.get(name, 0):])
               for name, tensor in tensors.items()), "the export has no padding")
    print("ok: the export has no padding")


# What FasterTransformer's own converters write: raw files of [in, out] matrices.
def write_c_model(folder, cfg, tensors, parts, dtype):
    place = folder / f"{parts}-gpu"
    place.mkdir()
    get = lambda name: tensors["model.decoder." + name]
    to_file = lambda name, tensor: tensor.contiguous().to(dtype).numpy().tofile(place / f"model.{name}.bin")
    hidden, pre = cfg["hidden_size"], cfg["do_layer_norm_before"]
    to_file("wpe", get("embed_positions.weight")[2:])
    to_file("wte", get("embed_tokens.weight"))
    to_file("lm_head.weight", tensors.get(HEAD, get("embed_tokens.weight")))
    final = pre and not cfg.get("_remove_final_layer_norm", False)
    for leaf in ("weight", "bias"):
        if final:
            to_file("final_layernorm." + leaf, get("final_layer_norm." + leaf))
        for i in range(cfg["num_hidden_layers"]):
            old, new = f"layers.{i}.", f"layers.{i}."
            to_file(new + "input_layernorm." + leaf, get(old + "self_attn_layer_norm." + leaf))
            to_file(new + "post_attention_layernorm." + leaf, get(old + "final_layer_norm." + leaf))
            for part in range(parts):
                qkv = torch.stack([get(f"{old}self_attn.{x}_proj.{leaf}").chunk(parts)[part] for x in "qkv"])
                to_file(f"{new}attention.query_key_value.{leaf}.{part}",
                        qkv.permute(2, 0, 1) if leaf == "weight" else qkv)
                up = get(f"{old}fc1.{leaf}").chunk(parts)[part]
                to_file(f"{new}mlp.dense_h_to_4h.{leaf}.{part}", up.t() if leaf == "weight" else up)
                if leaf == "weight":
                    for theirs, ours in (("attention.dense", "self_attn.out_proj"), ("mlp.dense_4h_to_h", "fc2")):
                        to_file(f"{new}{theirs}.weight.{part}", get(f"{old}{ours}.weight").t().chunk(parts)[part])
            if leaf == "bias":
                to_file(new + "attention.dense.bias", get(old + "self_attn.out_proj.bias"))
                to_file(new + "mlp.dense_4h_to_h.bias", get(old + "fc2.bias"))
    (place / "config.ini").write_text(
        f"[gpt]\nmodel_name = opt\nhead_num = {cfg['num_attention_heads']}\n"
        f"size_per_head = {hidden // cfg['num_attention_heads']}\ninter_size = {cfg['ffn_dim']}\n"
        f"max_pos_seq_len = {cfg['max_position_embeddings']}\nnum_layer = {cfg['num_hidden_layers']}\n"
        f"layernorm_eps = 1e-5\nlayernorm_type = {'pre' if pre else 'post'}_layernorm\nactivation_type = Relu\n"
        f"has_post_decoder_layernorm = {int(final)}\nvocab_size = {cfg['vocab_size']}\nstart_id = 2\nend_id = 2\n"
        f"weight_data_type = {'fp16' if dtype == torch.float16 else 'fp32'}\n")
    return place


def other_files(run):
    for name, fields in (("", {}), (" without a final norm", {"_remove_final_layer_norm": True}),
                         (" post-norm", {"pre": False}), (" untied", {"tie_word_embeddings": False})):
        cfg = config(**fields)
        tensors = state(cfg)
        model = reference(cfg, tensors)
        for parts, dtype in ((1, torch.float16), (2, torch.float32), (4, torch.float16)):
            place = run.place(f"c-model of {parts}{name}")
            inner = write_c_model(place, cfg, tensors, parts, dtype)
            run.same(place if parts == 2 else inner, model, name=place.name)
    inner = write_c_model(run.place("c-model"), config(), state(config()), 2, torch.float16)
    (inner / "model.wte.bin").write_bytes(bytes(8))
    run.refused(inner, ["model.wte.bin: has 8 bytes, the sizes in config.ini give 8384"])
    write_c_model(inner.parent, config(), state(config()), 1, torch.float16)
    run.refused(inner.parent, ["several models", "1-gpu", "2-gpu"])
    cfg = config()
    tensors = state(cfg)
    model = reference(cfg, tensors)
    legacy = {"_use_new_zipfile_serialization": False}
    place = run.place("a file before PyTorch 1.6", cfg)
    shared = tensors[TABLE]
    save_bin(place, {**tensors, HEAD: shared, TABLE: shared}, **legacy)
    run.same(place, model)
    good = (place / "pytorch_model.bin").read_bytes()
    for what, data, words in (("cut", good[:-9], ["cut"]), ("longer", good + b"x", ["after its last storage"]),
                              ("of another length", good[:-72] + b"\0" * 72, ["pytorch_model.bin"])):
        place = run.place("a legacy file that is " + what, cfg)
        (place / "pytorch_model.bin").write_bytes(data)
        if what != "of another length":
            run.refused(place, words)

    class Worse:
        def __reduce__(self):
            import os
            return (os.system, ("true",))

    place = run.place("a legacy file that runs code", cfg)
    save_bin(place, {**tensors, "x": Worse()}, **legacy)
    run.refused(place, ["posix.system", "refused"])
    metaseq = {}
    for name, tensor in tensors.items():
        metaseq[name.removeprefix("model.").replace("decoder.final_layer_norm", "decoder.layer_norm")] = tensor
    for what, options in (("", {}), (" before PyTorch 1.6", legacy)):
        place = run.place("a bare dictionary" + what)
        torch.save(metaseq, place / "restored.pt", **options)
        run.same(place, model, "--heads", "4")


# The effect of rounding is not judged here; --verify checks whether the checkpoint computes what its rounded weights
# give.
def quantised(run):
    for seed in range(6):
        for outliers in (False, True):
            cfg = config(vocab=132, hidden=128, heads=2, ffn=256, layers=3)
            tensors = state(cfg, seed)
            if outliers:
                for i in range(3):
                    tensors[f"model.decoder.layers.{i}.fc1.weight"][7] *= 60
                    tensors[f"model.decoder.layers.{i}.self_attn.q_proj.weight"][:, 5] *= 40
            place = run.place(f"seed {seed}{' with outliers' if outliers else ''}", cfg)
            save_safetensors(place, tensors)
            for how in ("int8", "int8-mse", "fp8", "int4"):
                done, target = run.convert(place, "--quantize", how)
                expect(done.returncode == 0 and "verified" in done.stdout and "off the source's by" in done.stdout,
                       f"{place.name} in {how}: {done.stdout}{done.stderr}")
                target.rename(run.folder / f"{place.name} {how}")
    print("ok: quantised models are verified")


def refusals(run):
    cfg = config()
    tensors = state(cfg)
    first = "model.decoder.layers.0.self_attn.q_proj"
    for name, changed, words in (
            ("an adapter that is not merged",
             {**tensors, first + ".lora_A.default.weight": torch.zeros(4, 32)}, ["lora_A", "merge it first"]),
            ("a base layer of an adapter",
             {**{k: v for k, v in tensors.items() if k != first + ".weight"},
              first + ".base_layer.weight": tensors[first + ".weight"]}, ["base_layer", "merge it first"]),
            ("GPTQ", {**tensors, first + ".qweight": torch.zeros(4, 32, dtype=torch.int32)}, ["qweight", "GPTQ"]),
            ("bitsandbytes", {**tensors, first + ".weight.absmax": torch.zeros(4)}, ["absmax", "bitsandbytes"]),
            ("ZeRO-3", {k: v[:0] if v.dim() == 2 else v for k, v in tensors.items()},
             ["ZeRO-3 without gathering", "zero_to_fp32.py", "embed_tokens.weight"]),
            ("a tensor of another shape", {**tensors, first + ".weight": torch.zeros(32, 31).half()},
             [first + ".weight is F16[32, 31], expected [32, 32]"]),
            ("a missing tensor", {k: v for k, v in tensors.items() if k != first + ".weight"},
             ["missing " + first + ".weight"]),
            ("an unknown tensor", {**tensors, "model.decoder.layers.0.extra": torch.zeros(3)},
             ["unexpected model.decoder.layers.0.extra"])):
        place = run.place(name, cfg)
        save_bin(place, changed)
        run.refused(place, words)
    for name, fields, words in (
            ("another activation", {"activation_function": "silu"}, ['activation_function is "silu"', '"gelu"']),
            ("quantised by its configuration", {"quantization_config": {"quant_method": "gptq"}},
             ["quantised", "gptq"]),
            ("another number of heads", {"num_attention_heads": 4}, ["8 attention heads were asked for",
                                                                      "num_attention_heads is 4"])):
        place = run.place(name, {**cfg, **fields})
        save_bin(place, tensors)
        run.refused(place, words, *(("--heads", "8") if "heads" in name else ()))
    hub = run.place("models--facebook--opt-125m")
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text("27dcfa74d334bc871f3234de431e71c6eeba5dd6")
    snapshot = hub / "snapshots" / "27dcfa74d334bc871f3234de431e71c6eeba5dd6"
    snapshot.mkdir(parents=True)
    run.refused(hub, ["cache folder", "snapshots/27dcfa74d334bc871f3234de431e71c6eeba5dd6"])
    adapter = run.place("an adapter alone")
    write_json(adapter / "adapter_config.json", {"peft_type": "LORA"})
    save_safetensors(adapter, {"x": torch.zeros(1)}, "adapter_model.safetensors")
    run.refused(adapter, ["an adapter", "merge it"])
    zero = run.place("a checkpoint of DeepSpeed")
    (zero / "global_step10").mkdir()
    (zero / "latest").write_text("global_step10")
    (zero / "zero_to_fp32.py").write_text("")
    run.refused(zero, ["DeepSpeed", "zero_to_fp32.py"])
    for name, file in (("TensorFlow", "tf_model.h5"), ("Flax", "flax_model.msgpack"), ("GGUF", "opt.gguf")):
        place = run.place("weights of " + name, cfg)
        (place / file).write_bytes(b"\0" * 100)
        run.refused(place, [file, "not read"])


def tokenizers(run):
    transformers_tokenizers.tokenizers(run, pathlib.Path(sys.argv[3]))


def main():
    with tempfile.TemporaryDirectory() as folder:
        run = Runner(sys.argv[1], sys.argv[2], pathlib.Path(folder))
        for part in (heads, wrappers, transformers_tokenizers.settings, tokenizers, relatives, vocabularies, quantised,
                     other_files, refusals):
            if part.__name__ in sys.argv[4:] or len(sys.argv) == 4:
                part(run)


main()

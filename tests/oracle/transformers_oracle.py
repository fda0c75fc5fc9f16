"""Folders as the tools around transformers leave them, converted and served, against OPTForCausalLM itself: the
log-probabilities of prompts and the greedy ids after them, on the CPU, in groups of several sizes.

usage: transformers_oracle.py CONVERT_TOOL CHECKPOINT_RUN
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from transformers import OPTConfig, OPTForCausalLM

from opt_folders import HEAD, TABLE, config, new_folder, save_bin, save_safetensors, state, write_json

NEW_TOKENS = 6
ERROR_MAX = 2e-5  # of a log-probability in fp32, relative to 1 + its size


def expect(condition, what):
    if not condition:
        sys.exit(f"FAILED: {what}")


def reference(cfg, tensors):
    """transformers' own model of canonical tensors, in fp32."""
    model = OPTForCausalLM(OPTConfig(**{**cfg, "torch_dtype": "float32"}))
    wide = {name: tensor.float() for name, tensor in tensors.items()}
    if cfg.get("tie_word_embeddings", True):
        wide[HEAD] = wide[TABLE]
    model.load_state_dict(wide)
    return model.eval()


class Runner:
    def __init__(self, convert_tool, checkpoint_run, folder):
        self.convert_tool, self.checkpoint_run, self.folder = convert_tool, checkpoint_run, folder

    def place(self, name, cfg=None):
        return new_folder(self.folder / name, cfg)

    def convert(self, source, *options):
        target = self.folder / (source.name + "-converted")
        done = subprocess.run([self.convert_tool, "convert", str(source), str(target), "--verify", *options],
                              capture_output=True, text=True)
        return done, target

    def refused(self, source, words, *options):
        done, target = self.convert(source, *options)
        missing = [word for word in words if word not in done.stderr]
        expect(done.returncode != 0 and not target.exists() and not missing,
               f"{source.name}: a refusal that says {missing}: {done.stderr}{done.stdout}")
        print(f"ok: {source.name} is refused: {done.stderr.strip()[:160]}")

    def run(self, checkpoint, **request):
        done = subprocess.run([self.checkpoint_run, str(checkpoint)], input=json.dumps(request), capture_output=True,
                              text=True)
        expect(done.returncode == 0, f"{checkpoint}: {done.stderr}")
        return json.loads(done.stdout)

    def same(self, source, model, *options, worlds=(1, 2), warnings=(), name=None):
        """The converted folder computes what `model` does. Returns the checkpoint."""
        done, target = self.convert(source, *options)
        expect(done.returncode == 0, f"{source.name} converts: {done.stderr}")
        for words in warnings:
            expect(words in done.stderr, f"{source.name} warns of {words}: {done.stderr}")
        expect(warnings or "warning: no vocabulary" in done.stderr and done.stderr.count("warning:") == 1,
               f"{source.name} gives no warning but one: {done.stderr}")
        self.compare(target, model, worlds, name or source.name)
        return target

    def compare(self, checkpoint, model, worlds, name):
        manifest = json.loads((checkpoint / "manifest.json").read_text())
        worlds = [world for world in worlds if manifest["shards"] % world == 0]
        real = manifest["config"]["vocab_real"]
        generator = torch.Generator().manual_seed(1)
        prompts = [[2] + torch.randint(4, real, (length,), generator=generator).tolist() for length in (1, 7, 30)]
        answers = self.run(checkpoint, prompts=prompts, worlds=worlds, new_tokens=NEW_TOKENS)
        for world, generations in answers.items():
            for prompt, found in zip(prompts, generations):
                self.compare_one(model, prompt, found, real, f"{name} on {world}", manifest["config"])
        print(f"ok: {name}, groups of {', '.join(answers)}")

    @staticmethod
    def compare_one(model, prompt, found, real, name, served):
        ids = prompt + found["tokens"]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, :, :real]
        logprobs = logits.log_softmax(-1)
        wanted = logprobs[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
        error = ((torch.tensor(found["logprobs"]) - wanted).abs() / (1 + wanted.abs())).max().item()
        expect(error <= ERROR_MAX, f"{name}: log-probabilities are off by {error}")
        pad = served["pad_id"]
        for i, token in enumerate(found["tokens"]):
            row = logits[len(prompt) + i - 1].clone()
            if pad < real:
                row[pad] = -torch.inf
            expect(row[token] >= row.max() - 1e-4, f"{name}: {token} is not the best id at {len(prompt) + i}")


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


def main():
    with tempfile.TemporaryDirectory() as folder:
        run = Runner(sys.argv[1], sys.argv[2], pathlib.Path(folder))
        for part in (heads, wrappers, relatives, vocabularies, refusals):
            if len(sys.argv) < 4 or sys.argv[3] == part.__name__:
                part(run)


main()

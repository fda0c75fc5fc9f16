"""What a converted checkpoint serves, compared with transformers' own model: for the oracles beside this file."""

import json
import subprocess
import sys

import torch
from transformers import OPTConfig, OPTForCausalLM

from opt_folders import HEAD, TABLE, new_folder

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
        target = self.folder / (str(source.relative_to(self.folder)).replace("/", "-") + "-converted")
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

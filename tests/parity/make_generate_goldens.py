"""Writes tests/data/generate_goldens.json: what transformers' generate() gives for the demo model under many settings.
Only for making them anew: needs torch and transformers, and the model as `optserve export --format huggingface` writes
it.

usage: make_generate_goldens.py HUGGING_FACE_FOLDER DEMO_GOLDENS OUTPUT [SEED]
"""

import json
import random
import sys

import torch
import transformers

CASES, NEW_TOKENS_MAX, EOS = 60, 24, 2


def beam_settings(draw):
    settings = {"num_beams": draw.choice([2, 3, 4, 6, 10]), "length_penalty": draw.choice([-1.0, 0.0, 0.5, 1.0, 2.0]),
                "early_stopping": draw.choice([False, True, "never"])}
    if draw.random() < 0.7:  # hypotheses of many lengths
        settings["sequence_bias"] = {EOS: draw.choice([4.0, 6.0, 8.0])}
    return settings


def settings_of(draw, vocab):
    settings = {"max_new_tokens": draw.randint(1, NEW_TOKENS_MAX)}
    is_search = draw.random() < 0.75
    settings.update(beam_settings(draw) if is_search else {"repetition_penalty": draw.choice([0.9, 1.1, 1.3, 2.0])})
    if draw.random() < 0.3:
        settings["min_new_tokens"] = draw.randint(1, settings["max_new_tokens"])
    if draw.random() < 0.3:
        settings["bad_words_ids"] = [[draw.randrange(4, 300) for _ in range(draw.randint(1, 2))] for _ in range(30)]
    if draw.random() < 0.3:
        bias = settings.setdefault("sequence_bias", {})
        bias.update({draw.randrange(4, vocab): draw.uniform(-5, 8) for _ in range(5)})
    return settings


def generate(model, prompt, settings):
    """All sequences that come back, best first, without the prompt; nothing after the end of a text."""
    arguments = dict(settings)
    if "sequence_bias" in arguments:
        arguments["sequence_bias"] = [[[token], value] for token, value in arguments["sequence_bias"].items()]
    beams = arguments.get("num_beams", 1)
    given = torch.tensor([prompt])
    out = model.generate(given, attention_mask=torch.ones_like(given), do_sample=False, num_return_sequences=beams,
                         eos_token_id=EOS, pad_token_id=1, return_dict_in_generate=True, output_scores=True,
                         **arguments)
    found = []
    for sequence in out.sequences.tolist():
        ids = sequence[len(prompt):]
        found.append(ids[:ids.index(EOS) + 1] if EOS in ids else ids)
    scores = out.sequences_scores.tolist() if beams > 1 else []
    return found, scores


def main():
    folder, goldens, output = sys.argv[1:4]
    seed = int(sys.argv[4]) if len(sys.argv) > 4 else random.randrange(2 ** 32)
    print("seed", seed)
    draw = random.Random(seed)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with open(goldens, encoding="utf-8") as file:
        prompts = [case["prompt_ids"] for case in json.load(file)["cases"]]
    cases = []
    while len(cases) < CASES:
        settings, prompt = settings_of(draw, model.config.vocab_size), draw.choice(prompts)
        ids, scores = generate(model, prompt, settings)
        cases.append({"prompt_ids": prompt, "ids": ids, "scores": scores, **settings})
    made_by = f"transformers {transformers.__version__}, torch {torch.__version__}, float32, seed {seed}"
    with open(output, "w", encoding="utf-8") as file:
        lines = ",\n".join(json.dumps(case) for case in cases)
        file.write(f'{{"made_by": "{made_by}", "cases": [\n{lines}\n]}}\n')
    print(len(cases), "cases,", sum(len(case["ids"]) > 1 for case in cases), "of them searches")


main()

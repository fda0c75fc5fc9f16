#!/usr/bin/env python3
"""The real lm-eval against a local stack with the demo model, and its numbers against a direct computation.

usage: lm_eval_by_hand.py FOLDER_OF_PROGRAMS SOURCE_FOLDER PYTHON_WITH_LM_EVAL [DOCUMENTS]

PYTHON_WITH_LM_EVAL: the interpreter of a virtual environment with `pip install lm_eval[api]==0.4.13`; 760 MB, which is
why CI runs a restatement of its requests and of its parser instead (openai_client_test.py). This program itself needs
NumPy.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from lm_eval_rules import Direct, agrees, post

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from local_stack import Stack, expect

TASKS = {
    "demo_choice": """output_type: multiple_choice
doc_to_text: "{{text}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
target_delimiter: " "
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
""",
    "demo_rolling": """output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{whole}}"
metric_list: [{metric: word_perplexity}]
""",
    "demo_writing": """output_type: generate_until
doc_to_text: "{{text}}"
doc_to_target: "{{choices[0]}}"
generation_kwargs: {until: ["\\n\\n", ".", "?", "!", ";", ":"], max_gen_toks: 24, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
""",
}


def greedy_words(url, text):
    ids = post(url + "/tokenize", {"prompt": text, "add_special_tokens": False})["tokens"]
    answer = post(url + "/v1/completions", {"model": "demo", "prompt": ids, "max_tokens": 3, "temperature": 0})
    return answer["choices"][0]["text"].strip()


def write_tasks(sources, folder, count, url):
    words = (sources / "deploy/demo-model/heldout.txt").read_text(encoding="utf-8").split()
    documents = []
    for number in range(count):
        part = words[30 * number:30 * number + 30]
        text = " ".join(part[:20])
        choices = [" ".join(part[20:]), " ".join(reversed(part[20:])), part[20], greedy_words(url, text)]
        documents.append({"text": text, "choices": choices, "answer": 0, "whole": " ".join(part)})
    data = folder / "documents.jsonl"
    data.write_text("".join(json.dumps(document) + "\n" for document in documents), encoding="utf-8")
    for name, text in TASKS.items():
        files = f"{{data_files: {{test: {data}}}}}"
        (folder / f"{name}.yaml").write_text(
            f"task: {name}\ndataset_path: json\ndataset_kwargs: {files}\ntest_split: test\n{text}", encoding="utf-8")


def run_lm_eval(python, url, folder):
    command = [python, "-m", "lm_eval", "--model", "local-completions", "--model_args",
               f"model=demo,base_url={url}/v1/completions,num_concurrent=1,max_retries=1", "--tasks", ",".join(TASKS),
               "--include_path", str(folder), "--output_path", str(folder / "out"), "--log_samples",
               "--batch_size", "8"]
    environment = os.environ | {"HF_HOME": str(folder / "cache"), "HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"FAILED: lm-eval ended with {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-6000:]}")
    print(done.stdout)
    samples = {}
    for name in TASKS:
        (path,) = (folder / "out").rglob(f"samples_{name}_*.jsonl")
        samples[name] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return samples


def main():
    programs, sources = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])
    count = int(sys.argv[4]) if len(sys.argv) > 4 else 6
    with tempfile.TemporaryDirectory(prefix="optserve-lm-eval-") as folder, \
            Stack(programs, sources, pathlib.Path(folder)) as stack:
        tasks = pathlib.Path(folder, "tasks")
        tasks.mkdir()
        write_tasks(sources, tasks, count, stack.api_url)
        samples = run_lm_eval(sys.argv[3], stack.api_url, tasks)
        direct = Direct(stack.folder / "demo")

        def ids_of(text):
            return post(stack.api_url + "/tokenize", {"prompt": text, "add_special_tokens": False})["tokens"]

        scored = greedy = 0
        for sample in samples["demo_choice"]:
            for (context, continuation), ((found, is_greedy),) in zip(
                    [arguments.values() for arguments in sample["arguments"].values()], sample["resps"]):
                whole, length = ids_of(context + continuation), len(ids_of(context))
                expected = direct.score(whole, length)
                greedy += bool(expected[1])
                found = (float(found), is_greedy in (True, "True"))
                if not agrees(found, expected, len(whole) - length):
                    sys.exit(f"FAILED: {context!r} {continuation!r}: lm-eval has {found}, directly {expected}")
                scored += 1
        expect(scored == 4 * count and greedy > 0, f"{scored} log-likelihoods are those of a direct computation, "
                                                   f"{greedy} of greedy continuations")
        for sample in samples["demo_rolling"]:
            (text,) = next(iter(sample["arguments"].values())).values()
            whole = [direct.config["eos_id"]] + ids_of(text)
            expected = direct.score(whole, 1)
            found = sample["resps"][0][0]
            found = float(found[0] if isinstance(found, list) else found)
            if abs(found - expected[0]) > 1e-3:
                sys.exit(f"FAILED: rolling {text!r}: lm-eval has {found}, directly {expected}")
        expect(len(samples["demo_rolling"]) == count, f"{count} rolling log-likelihoods too")
        for sample in samples["demo_writing"]:
            context = next(iter(sample["arguments"].values()))["arg_0"]
            text = post(stack.api_url + "/detokenize", {"tokens": direct.generate(ids_of(context), 24)})["prompt"]
            for stop in ["\n\n", ".", "?", "!", ";", ":"]:
                text = text.split(stop)[0]
            if sample["resps"][0][0] != text:
                sys.exit(f"FAILED: {context!r}: lm-eval has {sample['resps'][0][0]!r}, directly {text!r}")
        expect(len(samples["demo_writing"]) == count, f"{count} generations too")


main()

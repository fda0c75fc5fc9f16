"""What lm-eval's `local-completions` sends and how it reads the answers (lm_eval 0.4.13), and the same scores computed
directly, by the forward pass of tests/parity/opt_reference.py."""

import json
import pathlib
import sys
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "parity"))
import numpy as np  # noqa: E402
import opt_reference  # noqa: E402

# Two computations of a score differ by less than this per token, and a token that is the best by less may be the best
# in one of them only.
TOLERANCE = 1e-4


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def score_request(model, sequences):
    return {"model": model, "prompt": sequences, "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234,
            "echo": True}


def read_scores(answer, context_lengths):
    """For each sequence the log-probability of what follows its context, and whether greedy choice gives the same."""
    scores = []
    for choice, length in zip(sorted(answer["choices"], key=lambda choice: choice["index"]), context_lengths):
        values = choice["logprobs"]["token_logprobs"][length:-1]
        best = choice["logprobs"]["top_logprobs"][length:-1]
        scores.append((sum(values), all(value == max(top.values()) for value, top in zip(values, best))))
    return scores


class Direct:
    """The model of a checkpoint's folder."""

    def __init__(self, folder):
        self.config, self.weights = opt_reference.load(pathlib.Path(folder))

    def score(self, ids, context_length):
        """The same as read_scores() of one sequence; the second value is None where rounding decides."""
        rows = opt_reference.logits(self.config, self.weights, np.array(ids[:-1]))
        logprobs = rows - np.log(np.exp(rows - rows.max(-1, keepdims=True)).sum(-1, keepdims=True)) - rows.max(
            -1, keepdims=True)
        total, is_greedy = 0.0, True
        for position in range(context_length, len(ids)):
            row = logprobs[position - 1]
            total += row[ids[position]]
            second, first = np.sort(row)[-2:]
            if row[ids[position]] == first and first - second > TOLERANCE:
                continue
            if is_greedy is not False:
                is_greedy = False if row[ids[position]] < first - TOLERANCE else None
        return total, is_greedy

    def generate(self, ids, count):
        """The next tokens by greedy choice, up to the end of the text."""
        known = list(ids)
        while len(known) < len(ids) + count:
            row = opt_reference.logits(self.config, self.weights, np.array(known))[-1]
            row[self.config["pad_id"]] = -np.inf
            known.append(int(row.argmax()))
            if known[-1] == self.config["eos_id"]:
                break
        return known[len(ids):]


def agrees(found, expected, tokens):
    return abs(found[0] - expected[0]) <= TOLERANCE * tokens and expected[1] in (None, found[1])

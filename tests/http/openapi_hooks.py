"""For schemathesis: keeps generated requests small, and few. What a request costs is not part of its schema."""

import collections
import os
import random

import schemathesis
from schemathesis.generation.modes import GenerationMode

MOST = {"max_tokens": 2, "max_completion_tokens": 2, "max_output_tokens": 2, "num_predict": 2, "n": 2, "best_of": 2,
        "beam_width": 2, "max_new_tokens": 2}
# With these fields a request may correctly end at once with a 503 or 504.
LEFT_OUT = {"deadline_ms", "queue_timeout_ms", "ttl_ms", "queue_ms", "run_ms", "delay_ms"}


def limit_of(path):
    """The field that says how much is wanted, of routes that otherwise give as much as fits."""
    if path.endswith("/responses"):
        return "max_output_tokens"
    return "max_tokens" if path.endswith("/completions") or path == "/generate" else None


# At most this many edge cases of a route are tried: the first ones and some of the others, chosen by the seed.
EDGES_MOST = int(os.environ.get("OPTSERVE_EDGES", "0"))
SEED = os.environ.get("OPTSERVE_SEED", "0")
FIRST, SHARE = 8, 0.1
seen, taken = collections.Counter(), collections.Counter()


def is_edge(case):
    return case.meta is not None and case.meta.phase.name.value == "coverage"


@schemathesis.hook
def filter_case(context, case):
    if not is_edge(case) or EDGES_MOST == 0:
        return True
    route = case.operation.label
    seen[route] += 1
    if taken[route] >= EDGES_MOST:
        return False
    if seen[route] > FIRST and random.Random(f"{SEED} {route} {seen[route]}").random() > SHARE:
        return False
    taken[route] += 1
    return True


@schemathesis.hook
def map_case(context, case):
    """What is wrong on purpose stays so: it is refused before anything runs."""
    if is_edge(case) and case.meta.generation.mode == GenerationMode.POSITIVE:
        case.body = small_body(case.operation.path, case.body)
    return case


@schemathesis.hook
def map_body(context, body):
    return small_body(context.operation.path, body)


def small_body(path, body):
    if not isinstance(body, dict):
        return body
    small = {name: value for name, value in body.items() if name not in LEFT_OUT}
    for fields in [small, small.get("options")]:
        if isinstance(fields, dict):
            for name, most in MOST.items():
                if isinstance(fields.get(name), int) and not isinstance(fields[name], bool):
                    fields[name] = min(fields[name], most)
    limit = limit_of(path)
    if limit and {"prompt", "messages", "input"} & small.keys() and small.get(limit) is None:
        small[limit] = 2
    if path in ("/api/generate", "/api/chat") and isinstance(small.get("options"), dict | None):
        small["options"] = {"num_predict": 2} | (small.get("options") or {})
    if isinstance(small.get("prompt"), list):
        small["prompt"] = small["prompt"][:2]
    return small

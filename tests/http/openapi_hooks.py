"""For schemathesis: keeps generated requests small. What a request costs is not part of its schema."""

import schemathesis

MOST = {"max_tokens": 2, "max_completion_tokens": 2, "max_output_tokens": 2, "num_predict": 2, "n": 2, "best_of": 2,
        "beam_width": 2, "max_new_tokens": 2}
# With these a request may end at once with a 503 or 504, and rightly so.
LEFT_OUT = {"deadline_ms", "queue_timeout_ms", "ttl_ms", "queue_ms", "run_ms", "delay_ms"}


def limit_of(path):
    """The field that says how much is wanted, of routes that otherwise give as much as fits."""
    if path.endswith("/responses"):
        return "max_output_tokens"
    return "max_tokens" if path.endswith("/completions") or path == "/generate" else None


@schemathesis.hook
def map_body(context, body):
    if not isinstance(body, dict):
        return body
    small = {name: value for name, value in body.items() if name not in LEFT_OUT}
    for fields in [small, small.get("options")]:
        if isinstance(fields, dict):
            for name, most in MOST.items():
                if isinstance(fields.get(name), int) and not isinstance(fields[name], bool):
                    fields[name] = min(fields[name], most)
    limit = limit_of(context.operation.path)
    if limit and {"prompt", "messages", "input"} & small.keys() and small.get(limit) is None:
        small[limit] = 2
    if isinstance(small.get("prompt"), list):
        small["prompt"] = small["prompt"][:2]
    return small

"""What vLLM's own tests of completions (tests/entrypoints/openai/completion, with OPT) expect of a server, as a table.

Where this gateway differs on purpose, the row says so: see docs/http_api.md.
"""

import json

PROMPT = "Hello, my name is"
TOKENS = 8  # of the prompt, the leading one included; with the vocabulary of published models 6
BASE = {"model": "demo", "prompt": PROMPT, "max_tokens": 5, "temperature": 0}


def tops(choice):
    return choice["logprobs"]["top_logprobs"]


def one(answer):
    return answer["choices"][0]


# Name, what is added to BASE (None removes a field), and what must be true of the answer.
GOOD = [
    ("a single completion", {}, lambda a: a["usage"] == {
        "prompt_tokens": TOKENS, "completion_tokens": 5, "total_tokens": TOKENS + 5}
        and a["object"] == "text_completion" and one(a)["finish_reason"] == "length" and one(a)["logprobs"] is None),
    ("a prompt of ids", {"prompt": [0, 5, 0, 6, 0]},
     lambda a: a["usage"]["prompt_tokens"] == 5 and one(a)["text"]),
    ("prompts of ids", {"prompt": [[2, 5], [2, 6, 7]]}, lambda a: [c["index"] for c in a["choices"]] == [0, 1]
     and a["usage"]["prompt_tokens"] == 5),
    ("prompts", {"prompt": [PROMPT, PROMPT]}, lambda a: one(a)["text"] == a["choices"][1]["text"]),
    ("prompts with n", {"prompt": [PROMPT, "The cat"], "n": 2, "temperature": 1, "seed": 3},
     lambda a: [c["index"] for c in a["choices"]] == [0, 1, 2, 3]),
    ("n outputs that differ", {"n": 3, "temperature": 1.0, "max_tokens": 20, "seed": 1},
     lambda a: len({c["text"] for c in a["choices"]}) == 3 and a["usage"]["prompt_tokens"] == TOKENS),
    ("best_of", {"n": 1, "best_of": 3, "temperature": 1.0, "seed": 1}, lambda a: len(a["choices"]) == 1),
    ("logprobs null", {"logprobs": None}, lambda a: one(a)["logprobs"] is None),
    ("logprobs 0", {"logprobs": 0}, lambda a: len(one(a)["logprobs"]["token_logprobs"]) == 5
     and all(len(top) <= 1 for top in tops(one(a)))),
    ("logprobs 5", {"logprobs": 5}, lambda a: all(5 <= len(top) <= 6 for top in tops(one(a)))
     and len(one(a)["logprobs"]["tokens"]) == 5),
    ("echo", {"echo": True}, lambda a: one(a)["text"].startswith(PROMPT)),
    ("echo with logprobs", {"echo": True, "logprobs": 1, "max_tokens": 1},
     lambda a: one(a)["logprobs"]["token_logprobs"][0] is None and tops(one(a))[0] is None
     and len(one(a)["logprobs"]["tokens"]) == TOKENS + 1 and all(one(a)["logprobs"]["token_logprobs"][1:])),
    ("echo without output", {"echo": True, "logprobs": 1, "max_tokens": 0},
     lambda a: one(a)["text"] == PROMPT and len(one(a)["logprobs"]["tokens"]) == TOKENS),
    ("echo of ids", {"prompt": [2, 100, 200], "echo": True, "logprobs": 1, "max_tokens": 1},
     lambda a: len(one(a)["logprobs"]["tokens"]) == 4),
    ("text_offset", {"logprobs": 0, "echo": True},
     lambda a: one(a)["logprobs"]["text_offset"] == sorted(one(a)["logprobs"]["text_offset"])),
    ("min_tokens and ignore_eos", {"min_tokens": 5, "ignore_eos": True},
     lambda a: a["usage"]["completion_tokens"] == 5),
    ("allowed ids", {"allowed_token_ids": [30, 31]}, lambda a: a["usage"]["completion_tokens"] == 5),
    ("a stop id", {"allowed_token_ids": [30], "stop_token_ids": [30]}, lambda a: one(a)["finish_reason"] == "stop"
     and one(a)["stop_reason"] == 30 and a["usage"]["completion_tokens"] == 1),
    ("a bias that forbids", {"allowed_token_ids": [30, 31], "logit_bias": {"30": -100}, "return_token_ids": True},
     lambda a: set(one(a)["token_ids"]) == {31}),
    ("a bias that forces", {"logit_bias": {"40": 100}, "return_token_ids": True, "max_tokens": 2},
     lambda a: one(a)["token_ids"] == [40, 40]),
    ("ids beside texts", {"return_token_ids": True}, lambda a: len(one(a)["token_ids"]) == 5
     and len(one(a)["prompt_token_ids"]) == TOKENS),
    ("tokens as ids", {"return_tokens_as_token_ids": True, "logprobs": 1},
     lambda a: all(t.startswith("token_id:") for t in one(a)["logprobs"]["tokens"])),
    ("prompt_logprobs", {"prompt_logprobs": 1}, lambda a: len(one(a)["prompt_logprobs"]) == TOKENS
     and one(a)["prompt_logprobs"][0] is None),
    ("a prompt that is cut", {"prompt": "word " * 3000, "truncate_prompt_tokens": 10},
     lambda a: a["usage"]["prompt_tokens"] == 10),
    ("beams", {"use_beam_search": True, "n": 2}, lambda a: len(a["choices"]) == 2
     and one(a)["text"] != a["choices"][1]["text"]),
    ("no model is named", {"model": None}, lambda a: a["model"] == "demo"),
    ("fields that change nothing", {"user": "me", "cache_salt": "s", "session_id": "x", "metadata": {"a": "b"}},
     lambda a: one(a)["text"]),
    ("continuous_usage_stats is taken with a stream alone, and ignored",
     {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}, None),
]

# Name, what is added, status, code.
BAD = [
    ("an unknown model", {"model": "nothing"}, 404, "model_not_found"),
    ("too many logprobs", {"logprobs": 21}, 400, "invalid_value"),
    ("a prompt that is too long", {"prompt": "word " * 3000}, 400, "context_length_exceeded"),
    ("ids that are too many", {"prompt": [5] * 3000}, 400, "context_length_exceeded"),
    ("no room for the output", {"max_tokens": 2048}, 400, "context_length_exceeded"),
    ("an id beyond the vocabulary", {"prompt": [2, 1_000_000]}, 400, "invalid_value"),
    ("a negative id", {"prompt": [-1]}, 400, "invalid_value"),
    ("max_tokens 0 without echo", {"max_tokens": 0}, 400, "invalid_value"),
    ("max_tokens below 0", {"max_tokens": -1}, 400, "invalid_value"),
    ("a temperature below 0", {"temperature": -1}, 400, "invalid_value"),
    ("a temperature that is no number", {"temperature": "hot"}, 400, "invalid_value"),
    ("top_p 0", {"top_p": 0}, 400, "invalid_value"),
    ("n 0", {"n": 0}, 400, "invalid_value"),
    ("best_of below n", {"n": 3, "best_of": 2}, 400, "invalid_value"),
    ("no prompt", {"prompt": ...}, 400, "missing_required_parameter"),
    ("a prompt of mixed kinds", {"prompt": ["a", 1]}, 400, "invalid_value"),
    ("stream_options without a stream", {"stream_options": {"include_usage": True}}, 400, "invalid_value"),
    ("a suffix", {"suffix": "end"}, 400, "unsupported_parameter"),
    ("a format of output", {"response_format": {"type": "json_object"}}, 400, "unsupported_parameter"),
    ("an unknown field, since it may change the output", {"temperatur": 1}, 400, "unknown_parameter"),
    ("a bias of no id", {"logit_bias": {"word": 1}}, 400, "invalid_value"),
    ("a bias that is too large", {"logit_bias": {"5": 101}}, 400, "invalid_value"),
    ("an empty list of allowed ids beyond the vocabulary", {"allowed_token_ids": [1_000_000]}, 400, "invalid_value"),
]


def body_of(changes):
    return {name: value for name, value in (BASE | changes).items() if value is not ...}


def frames(content):
    return [json.loads(frame.removeprefix(b"data: ")) for frame in content.split(b"\n\n")
            if frame.startswith(b"data: {")]


def check_streams(api, expect):
    """The matrix of stream_options, and streamed text beside whole text."""
    _, whole = api.post("/v1/completions", BASE | {"n": 2, "seed": 4, "temperature": 1})
    for options in (None, {"include_usage": False}, {"include_usage": True},
                    {"include_usage": True, "continuous_usage_stats": True}):
        body = BASE | {"n": 2, "seed": 4, "temperature": 1} | ({"stream_options": options} if options else {})
        chunks = frames(api.stream("/v1/completions", body))
        texts, reasons = ["", ""], [None, None]
        for choice in (choice for chunk in chunks for choice in chunk["choices"]):
            texts[choice["index"]] += choice["text"]
            reasons[choice["index"]] = choice["finish_reason"] or reasons[choice["index"]]
        expect(texts == [c["text"] for c in whole["choices"]] and reasons == ["length", "length"], f"stream {options}")
        with_usage = [chunk for chunk in chunks if chunk.get("usage")]
        if options and options["include_usage"]:
            expect(with_usage == chunks[-1:] and chunks[-1]["choices"] == []
                   and chunks[-1]["usage"] == whole["usage"], "the usage is in the last chunk, without choices")
        else:
            expect(not with_usage, "no usage where none was asked for")


def check_behaviours(api, expect):
    for name, changes, is_right in GOOD:
        if is_right is None:
            continue  # of streams
        status, answer = api.post("/v1/completions", body_of(changes))
        is_good = status == 200 and is_right(answer)
        expect(is_good, name if is_good else f"{name}: {status} {json.dumps(answer)[:2000]}")
    expected = api.post("/v1/completions", BASE)[1]["choices"]
    for name, changes, status, code in BAD:
        got, answer = api.post("/v1/completions", body_of(changes))
        error = answer.get("error", {})
        expect(got == status and error["code"] == code and {"message", "type", "param", "code"} <= error.keys(),
               f"refused: {name}" + ("" if (got, error.get("code")) == (status, code) else f": {got} {answer}"))
        if api.post("/v1/completions", BASE)[1]["choices"] != expected:
            expect(False, f"the server works as before after: {name}")
    whole = api.post("/v1/completions", BASE | {"max_tokens": 20})[1]["choices"][0]["text"]
    stop = whole[4:8]
    for included in (False, True):
        _, answer = api.post("/v1/completions", BASE | {"max_tokens": 20, "stop": [stop, "zebra"],
                                                        "include_stop_str_in_output": included})
        choice = answer["choices"][0]
        end = whole.index(stop) + (len(stop) if included else 0)
        expect(choice["text"] == whole[:end] and choice["stop_reason"] == stop and choice["finish_reason"] == "stop",
               f"a stop string is {'kept' if included else 'left out'}")
    drawn = [api.post("/v1/completions", BASE | {"temperature": 1, "seed": seed, "max_tokens": 12})[1]
             for seed in (7, 7, 8)]
    seeds = [answer["choices"][0]["text"] for answer in drawn]
    expect(seeds[0] == seeds[1] != seeds[2], "a seed says which output")
    _, answer = api.post("/v1/completions", BASE | {"bad_words": [whole[:5].strip() or "the"], "max_tokens": 20})
    expect(answer["choices"][0]["text"] != whole, "bad words are not written")
    check_streams(api, expect)

#!/usr/bin/env python3
"""The official Python package of OpenAI, as it is, against a real local stack.

usage: openai_client_test.py FOLDER_OF_PROGRAMS SOURCE_FOLDER [PARAMETER_SETS [SEED]]
"""

import asyncio
import json
import pathlib
import random
import sys
import tempfile
import time
import urllib.request

import openai
from lm_eval_rules import Direct, agrees, post, read_scores, score_request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from local_stack import LIMIT_SECONDS, Stack, expect

PROMPTS = ["Once upon a time", "The cat said: \"", "In 1812 the emperor", "naïve café – ", "a b c d e f g", "\n"]


def client_of(stack, package_class=openai.OpenAI):
    return package_class(base_url=stack.api_url + "/v1", api_key="unused", timeout=LIMIT_SECONDS)


def check_models(client):
    model = client.models.list().data[0]
    expect(model.id == "demo" and client.models.retrieve("demo") == model, "models are listed and found")


def check_choices(client):
    made = client.completions.create(model="demo", prompt=PROMPTS[:2], n=2, seed=7, temperature=0.8, max_tokens=8,
                                     echo=True, logprobs=2)
    expect([choice.index for choice in made.choices] == [0, 1, 2, 3], "choices come prompt by prompt")
    expect(all(choice.text.startswith(PROMPTS[choice.index // 2]) for choice in made.choices), "echo gives the prompt")
    for scores in [choice.logprobs for choice in made.choices]:
        sizes = {len(scores.tokens), len(scores.token_logprobs), len(scores.text_offset), len(scores.top_logprobs)}
        expect(len(sizes) == 1 and scores.token_logprobs[0] is None, f"{sizes} log-probabilities, the first is none")
    usage = made.usage
    expect(usage.completion_tokens == 32 and usage.total_tokens == usage.prompt_tokens + 32, "usage counts all choices")
    again = client.completions.create(model="demo", prompt=PROMPTS[:2], n=2, seed=7, temperature=0.8, max_tokens=8)
    expect([c.text for c in again.choices] == [c.text[len(PROMPTS[c.index // 2]):] for c in made.choices],
           "the same seed gives the same choices")


def random_parameters(pick):
    parameters = {"prompt": pick.choice(PROMPTS), "max_tokens": pick.randint(1, 24), "seed": pick.randrange(1 << 31),
                  "temperature": pick.choice([0, 0.5, 1, 1.7])}
    optional = {"top_p": pick.choice([0.1, 0.9, 1]), "n": pick.randint(1, 3), "echo": True,
                "stop": pick.choice([" the", ["a", "\n"], ["zebra"]]), "presence_penalty": pick.uniform(-2, 2),
                "frequency_penalty": pick.uniform(-2, 2),
                "logit_bias": {str(pick.randint(4, 500)): pick.randint(-9, 9)}}
    extensions = {"top_k": pick.randint(1, 50), "min_p": 0.05, "repetition_penalty": 1.2, "min_tokens": 1,
                  "ignore_eos": True, "include_stop_str_in_output": True}
    parameters |= {name: value for name, value in optional.items() if pick.random() < 0.3}
    extra = {name: value for name, value in extensions.items() if pick.random() < 0.2}
    return parameters | {"model": "demo", "extra_body": extra}


def check_streams(client, sets, seed):
    pick = random.Random(seed)
    tokens = 0
    for number in range(sets):
        parameters = random_parameters(pick)
        whole = client.completions.create(**parameters)
        texts, reasons = [""] * len(whole.choices), [None] * len(whole.choices)
        for chunk in client.completions.create(**parameters, stream=True):
            for choice in chunk.choices:
                texts[choice.index] += choice.text
                reasons[choice.index] = choice.finish_reason or reasons[choice.index]
        if texts != [c.text for c in whole.choices] or reasons != [c.finish_reason for c in whole.choices]:
            sys.exit(f"FAILED: seed {seed}, set {number}: {parameters}\nstreamed {texts} {reasons}\nwhole {whole}")
        tokens += whole.usage.completion_tokens
    expect(tokens > 5 * sets, f"streamed text is unstreamed text for {sets} sets of parameters (seed {seed})")


def check_scores(stack):
    """Log-likelihoods as lm-eval asks for them: batches of ids, the best token at each place."""
    texts = [("Once upon a time", " there was"), ("The cat said", ": hello"), ("In 1812", " zzz"), ("a b c", " d e")]
    direct = Direct(stack.folder / "demo")
    sequences, lengths = [], []

    def ids_of(text):
        return post(stack.api_url + "/tokenize", {"prompt": text, "add_special_tokens": False})["tokens"]

    for context, continuation in texts:
        known = ids_of(context)
        sequences += [ids_of(context + continuation), known + direct.generate(known, 3)]
        lengths += [len(known)] * 2
    answer = post(stack.api_url + "/v1/completions", score_request("demo", sequences))
    for choice, ids in zip(answer["choices"], sequences):
        scores = choice["logprobs"]
        expect(len(scores["token_logprobs"]) == len(scores["top_logprobs"]) == len(ids) + 1, "one entry for each id")
    found = read_scores(answer, lengths)
    expected = [direct.score(ids, length) for ids, length in zip(sequences, lengths)]
    for ids, length, one, other in zip(sequences, lengths, found, expected):
        if not agrees(one, other, len(ids) - length):
            sys.exit(f"FAILED: {ids} from {length}: the answer has {one}, directly {other}")
    expect([is_greedy for _, is_greedy in found].count(True) >= len(texts), f"{len(found)} scores are those of a "
                                                                            "direct computation")


def check_chats(client):
    """The same answer streamed and not, with the log-probabilities of chats; a completion of the template's prompt."""
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Who was the king?"}]
    asked = {"model": "demo", "messages": messages, "max_completion_tokens": 20, "temperature": 0.7, "seed": 3, "n": 2}
    whole = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
    texts = ["", ""]
    for chunk in client.chat.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    expect([choice.message.content for choice in whole.choices] == texts and all(texts), "a chat streams its answers")
    tokens = whole.choices[0].logprobs.content
    expect(len(tokens) == 20 and all(len(token.top_logprobs) == 2 for token in tokens), "tokens have log-probabilities")
    prompt = "Be kind.\n\nUser: Who was the king?\nAssistant:"
    plain = client.completions.create(model="demo", prompt=prompt, max_tokens=20, temperature=0.7, seed=3, n=2,
                                      stop="\nUser:")
    expect([choice.text for choice in plain.choices] == texts, "a chat is a completion of what its template writes")
    try:
        client.chat.completions.create(model="demo", messages=[{"role": "tool", "content": "x", "tool_call_id": "1"}])
        expect(False, "a message of a tool is refused")
    except openai.BadRequestError as error:
        expect(error.param.startswith("messages[0]"), f"a message of a tool is refused: {error.message[:80]}")


def check_responses(client):
    asked = {"model": "demo", "input": "Who was the king?", "max_output_tokens": 40, "temperature": 0}
    whole = client.responses.create(**asked)
    expect(whole.status in ("completed", "incomplete") and whole.output_text, f"a response is {whole.status}")
    text, numbers = "", []
    for event in client.responses.create(**asked, stream=True):
        numbers.append(event.sequence_number)
        if event.type == "response.output_text.delta":
            text += event.delta
    expect(text == whole.output_text and numbers == sorted(set(numbers)), "a response streams its text")
    # In the background; the stream is left in the middle, and continues after the last event that was read.
    text, last, name = "", None, None
    with client.responses.create(**asked, stream=True, background=True) as stream:
        for event in stream:
            last = event.sequence_number
            name = event.response.id if event.type == "response.created" else name
            text += event.delta if event.type == "response.output_text.delta" else ""
            if len(text) > 10:
                break
    for event in client.responses.retrieve(name, stream=True, starting_after=last):
        if event.sequence_number <= last:
            sys.exit(f"FAILED: event {event.sequence_number} comes after {last}")
        text += event.delta if event.type == "response.output_text.delta" else ""
        last = event.sequence_number
    expect(text == whole.output_text, "a stream goes on after the event that was seen last")
    again = "".join(event.delta for event in client.responses.retrieve(name, stream=True)
                    if event.type == "response.output_text.delta")
    expect(again == text and client.responses.retrieve(name).output_text == text, "a response is retrieved")
    queued = client.responses.create(model="demo", input="Once", background=True, max_output_tokens=900,
                                     extra_body={"ignore_eos": True})
    expect(queued.status == "queued" and queued.background, "a response in the background is queued")
    cancelled = client.responses.cancel(queued.id)
    end = time.monotonic() + LIMIT_SECONDS
    while cancelled.status in ("queued", "in_progress") and time.monotonic() < end:
        cancelled = client.responses.retrieve(queued.id)
    expect(cancelled.status == "cancelled", "and cancelled")


def check_ollama(stack):
    expect(post(stack.api_url + "/api/generate", {"model": "demo", "prompt": "x", "stream": False,
                                                  "options": {"num_predict": 1}})["done"], "Ollama's generate answers")
    asked = {"model": "demo:latest", "messages": [{"role": "user", "content": "Who was the king?"}],
             "options": {"num_predict": 20, "seed": 5}}
    whole = post(stack.api_url + "/api/chat", asked | {"stream": False})
    request = urllib.request.Request(stack.api_url + "/api/chat", json.dumps(asked).encode())
    with urllib.request.urlopen(request, timeout=LIMIT_SECONDS) as answer:
        kind, lines = answer.headers["Content-Type"], [json.loads(line) for line in answer]
    text = "".join(line["message"]["content"] for line in lines)
    expect(kind == "application/x-ndjson" and text == whole["message"]["content"] and text, "Ollama's chat streams")
    expect([line["done"] for line in lines] == [False] * (len(lines) - 1) + [True] and lines[-1]["eval_count"] == 20,
           "the last one has the counts")
    with urllib.request.urlopen(stack.api_url + "/api/tags", timeout=LIMIT_SECONDS) as answer:
        expect(json.load(answer)["models"][0]["name"] == "demo", "models have tags")


def check_errors(client):
    wrong = [({"model": "no-such-model"}, openai.NotFoundError, "model"),
             ({"max_tokens": 100_000}, openai.BadRequestError, "max_tokens"),
             ({"temperature": -1}, openai.BadRequestError, "temperature"),
             ({"suffix": "end"}, openai.BadRequestError, "suffix"),
             ({"extra_body": {"temprature": 1}}, openai.BadRequestError, "temprature"),
             ({"prompt": "word " * 2_000}, openai.BadRequestError, None)]
    for change, kind, parameter in wrong:
        try:
            client.completions.create(**({"model": "demo", "prompt": "Once"} | change))
            expect(False, f"{change} is refused")
        except openai.APIStatusError as error:
            expect(type(error) is kind and error.request_id and (parameter is None or error.param == parameter),
                   f"{type(error).__name__} about {error.param}: {error.message[:90]}")


async def check_async(stack):
    async with client_of(stack, openai.AsyncOpenAI) as client:
        async def stream(number):
            pieces = await client.completions.create(model="demo", prompt=f"Number {number}", max_tokens=12,
                                                     temperature=0, stream=True)
            return "".join([piece.choices[0].text async for piece in pieces if piece.choices])

        texts = await asyncio.gather(*[stream(number) for number in range(40)])
        whole = await client.completions.create(model="demo", prompt=[f"Number {number}" for number in range(16)],
                                                max_tokens=12, temperature=0)
        expect(texts[:16] == [choice.text for choice in whole.choices], "40 streams at a time")


def check_restart(stack, client):
    """The gateway is killed in mid-stream: the stream ends with an error, the next gateway serves the next request."""
    stream = client.completions.create(model="demo", prompt="Once", max_tokens=900, stream=True,
                                       extra_body={"ignore_eos": True})
    next(iter(stream))
    stack.kill("gateway")
    try:
        for _ in stream:
            pass
        expect(False, "a stream whose gateway dies ends with an error")
    except openai.APIError as error:
        expect(True, f"a stream whose gateway dies ends with {type(error).__name__}")
    patient = client.with_options(max_retries=10)
    expect(patient.completions.create(model="demo", prompt="Once", max_tokens=2).choices[0].text,
           "the client's own retries reach the next gateway")


def main():
    programs, sources = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])
    sets = int(sys.argv[3]) if len(sys.argv) > 3 else 60
    seed = int(sys.argv[4]) if len(sys.argv) > 4 else random.randrange(1 << 31)
    with tempfile.TemporaryDirectory(prefix="optserve-openai-") as folder, \
            Stack(programs, sources, pathlib.Path(folder)) as stack, client_of(stack) as client:
        check_models(client)
        check_choices(client)
        check_streams(client, sets, seed)
        check_scores(stack)
        check_chats(client)
        check_responses(client)
        check_ollama(stack)
        check_errors(client)
        asyncio.run(check_async(stack))
        check_restart(stack, client)


main()

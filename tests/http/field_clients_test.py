#!/usr/bin/env python3
"""What the programs of the field send, and how they read the answers, against a real local stack: the stream parsers of
official clients and benchmarks, vLLM's published behaviours of completions, and LangChain's requests.

usage: field_clients_test.py FOLDER_OF_PROGRAMS SOURCE_FOLDER [SEED]
"""

import http.client
import json
import pathlib
import random
import sys
import tempfile
import threading
import time
import urllib.parse

from stream_rules import READERS, Aiperf, GenaiPerf, Guidellm, OpenAI, VllmBench, read
from vllm_behaviours import check_behaviours

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from local_stack import Stack, expect

KEEP_ALIVE_SECONDS = 15


class Api:
    def __init__(self, url):
        self.host = urllib.parse.urlsplit(url).netloc

    def ask(self, method, path, body=None, **headers):
        """(status, headers, bytes)"""
        connection = http.client.HTTPConnection(self.host, timeout=60)
        try:
            connection.request(method, path, None if body is None else json.dumps(body),
                               {"Content-Type": "application/json", **headers})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def post(self, path, body, **headers):
        status, _, text = self.ask("POST", path, body, **headers)
        return status, json.loads(text)

    def stream(self, path, body):
        status, headers, content = self.ask("POST", path, body | {"stream": True})
        if status != 200 or not headers["Content-Type"].startswith("text/event-stream"):
            sys.exit(f"FAILED: a stream says that it is one: {status} {headers}")
        return content


def text_of(answer):
    return "".join(choice.get("text") or choice.get("message", {}).get("content") or "" for choice in answer["choices"])


def check_parsers(api, pick):
    prompt = {"model": "demo", "prompt": "Naïve café – ", "max_tokens": 24, "seed": 5, "n": 2}
    chat = {"model": "demo", "messages": [{"role": "user", "content": "Who was the king?"}], "max_tokens": 12,
            "seed": 5}
    for path, body in [("/v1/completions", prompt), ("/v1/completions", prompt | {"echo": True}),
                       ("/v1/completions", prompt | {"logprobs": 2}), ("/v1/chat/completions", chat)]:
        status, whole = api.post(path, body)
        if status != 200:
            sys.exit(f"FAILED: {path}: {whole}")
        for options in ({}, {"stream_options": {"include_usage": True}}):
            content = api.stream(path, body | options)
            for reader_class in READERS:
                if options and reader_class is GenaiPerf:
                    continue  # it does not ask for the usage, which it cannot read
                for cuts in (None, pick):
                    reader = read(reader_class, content, cuts)
                    name = f"{reader_class.__name__} reads {path} {options}"
                    if reader.error or not reader.is_done or sorted(reader.text) != sorted(text_of(whole)):
                        sys.exit(f"FAILED: {name}: {reader.error} {reader.text!r} {content!r}")
                    if options and reader.usage["completion_tokens"] != whole["usage"]["completion_tokens"]:
                        sys.exit(f"FAILED: {name}: {reader.usage}")
        print(f"ok: every parser reads {path}", flush=True)


def check_rules():
    """The readers tell a stream that they cannot read: each trap of the field is one here."""
    chunk = b'data: {"object":"text_completion","choices":[{"index":0,"text":"a"}]}\n\n'
    usage = b'data: {"object":"text_completion","choices":[],"usage":{"completion_tokens":1}}\n\n'
    done = b"data: [DONE]\n\n"
    error = b'event: error\ndata: {"error":{"message":"m"}}\n\n'
    for bad, readers in [
            (b"id: 1\n" + chunk + b": keep-alive\n\n" + done, [OpenAI, VllmBench]),
            (b"event: text\n" + chunk + done, [VllmBench]),
            (b": c\n" + chunk + done, [VllmBench]),
            (chunk.replace(b"\n", b"\r\n") + done.replace(b"\n", b"\r\n"), [VllmBench]),
            (b"id: 1\n\n" + chunk + done, [OpenAI, VllmBench]),
            (chunk + usage + done, [GenaiPerf]),
            (chunk + error + done, [OpenAI, VllmBench, Guidellm, Aiperf, GenaiPerf])]:
        for reader_class in readers:
            reader = read(reader_class, bad)
            expect(reader.error or reader.text != "a", f"{reader_class.__name__} stumbles over {bad[:24]!r}")
    for reader_class in READERS:
        reader = read(reader_class, chunk + b": keep-alive\n\n" + done)
        expect(reader.error is None and reader.text == "a", f"{reader_class.__name__} takes a comment of its own")


class Held(threading.Thread):
    """A stream whose job waits in a paused queue until the gateway has sent a comment."""

    def __init__(self, api, ends_well):
        super().__init__()
        self.api, self.ends_well = api, ends_well
        self.content = b""

    def run(self):
        body = {"model": "demo", "prompt": "Once", "max_tokens": 4, "seed": 1, "stream": True,
                "idempotency_key": f"held-{self.ends_well}"}
        _, _, self.content = self.api.ask("POST", "/v1/completions", body)


def check_silence_and_errors(api, held):
    """Comments in a stream that waits, and an error in the middle of one that has begun."""
    jobs = [job["job"] for job in json.loads(api.ask("GET", "/v1/jobs?state=queued")[2])["jobs"]
            if job["key"].startswith("held-False")]
    api.post(f"/v1/jobs/{jobs[0]}/cancel", {})
    api.post("/v1/queue", {"action": "resume"})
    for stream in held:
        stream.join(60)
        expect(b"\n\n: keep-alive\n\n" in b"\n\n" + stream.content, "a stream that waits gets comments of their own")
        for reader_class in READERS:
            reader = read(reader_class, stream.content)
            good = reader.error is None and reader.text != "" and reader.is_done
            expect(good == stream.ends_well, f"{reader_class.__name__}: {'it ended well' if good else reader.error}")


def check_langchain(api):
    """What `langchain_openai.OpenAI` 1.7.4 sends for `batch` of 20 prompts, and what it reads."""
    body = {"model": "demo", "prompt": [f"Prompt {i}" for i in range(20)], "temperature": 0.7, "top_p": 1,
            "frequency_penalty": 0, "presence_penalty": 0, "n": 1, "seed": None, "logprobs": None, "max_tokens": 2}
    status, answer = api.post("/v1/completions", body)
    expect(status == 200 and [c["index"] for c in answer["choices"]] == list(range(20)), "LangChain: prompt by prompt")
    usage = answer["usage"]
    expect(usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"], "LangChain: its token usage")
    status, answer = api.post("/v1/completions", body | {"n": 2, "best_of": 2, "prompt": body["prompt"][:3],
                                                         "stop": ["\n"], "logit_bias": {"50": -100}})
    expect(status == 200 and len(answer["choices"]) == 6, "LangChain: n for each prompt")
    status, answer = api.post("/v1/chat/completions", {
        "model": "demo", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
        "temperature": 0.7, "n": 1, "stream": False, "max_completion_tokens": 3})
    expect(status == 200 and answer["choices"][0]["message"]["role"] == "assistant", "LangChain: ChatOpenAI")
    status, answer = api.post("/v1/completions", body | {"prompt": ["x " * 4000]})
    expect(status == 400 and "maximum context length is" in answer["error"]["message"], "LangChain knows an overflow")


def check_traces(api):
    """W3C Trace Context: in, out, and with the job."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    body = {"model": "demo", "prompt": "Once", "max_tokens": 2, "idempotency_key": "traced"}
    status, headers, _ = api.ask("POST", "/v1/completions", body, traceparent=trace)
    expect(status == 200 and headers["traceparent"] == trace, "a trace comes back")
    status, headers, _ = api.ask("POST", "/v1/completions", body, traceparent=trace.upper())
    expect(status == 200 and headers["traceparent"] is None, "one that means nothing is ignored, and the job the same")
    jobs = [job for job in json.loads(api.ask("GET", "/v1/jobs?order=desc")[2])["jobs"] if job["key"] == "traced"]
    record = json.loads(api.ask("GET", f"/v1/jobs/{jobs[0]['job']}/record")[2])
    expect(len(jobs) == 1 and record["traceparent"] == trace and record["prompt"] == "Once", "the job has its trace")


def check_logs(folder):
    """Every process names the trace of a job that it worked on."""
    processes = set()
    for path in folder.glob("**/*.log"):
        if "0af7651916cd43dd8448eb211c80319c" in path.read_text(encoding="utf-8", errors="replace"):
            processes.add(path.stem.split("-")[0])
    expect({"gateway", "scheduler", "tokenizer", "worker"} <= processes, f"the trace is in the logs of {processes}")


def check_deletion(api):
    status, made = api.post("/v1/responses", {"model": "demo", "input": "Once", "max_output_tokens": 2})
    path = f"/v1/responses/{made['id']}"
    status, _, body = api.ask("DELETE", path)
    expect(status == 200 and json.loads(body) == {"id": made["id"], "object": "response", "deleted": True},
           "a response is deleted")
    expect(api.ask("GET", path)[0] == 404 and api.ask("DELETE", path)[0] == 404, "and gone")
    for group in ("g1", "g2"):
        for _ in range(3):
            api.post("/v1/jobs", {"model": "demo", "prompt": "Once", "max_new_tokens": 1, "group": group})
    while any(json.loads(api.ask("GET", f"/v1/groups/{group}")[2])["open"] for group in ("g1", "g2")):
        time.sleep(0.05)
    expect(json.loads(api.ask("DELETE", "/v1/jobs?group=g1")[2]) == {"deleted": 3}, "operators delete ended jobs")
    expect(json.loads(api.ask("GET", "/v1/groups/g2")[2])["succeeded"] == 3, "and no others")
    expect(api.ask("DELETE", "/v1/jobs")[0] == 400 and api.ask("DELETE", "/v1/jobs?state=running")[0] == 400,
           "and never all, or open ones")
    job = json.loads(api.ask("GET", "/v1/jobs?group=g2&order=desc&limit=1")[2])["jobs"][0]["job"]
    expect(api.ask("DELETE", f"/v1/jobs/{job}")[0] == 200 and api.ask("GET", f"/v1/jobs/{job}")[0] == 404, "one job")
    status, facts = api.post("/api/show", {"model": "demo:latest"})
    expect(status == 200 and facts["model_info"]["general.architecture"] == "opt", "Ollama's facts of a model")
    expect(api.post("/api/show", {"model": "nothing"})[0] == 404, "and of none")


def main():
    programs, sources = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else random.randrange(1 << 31)
    print(f"seed {seed}")
    check_rules()
    with tempfile.TemporaryDirectory(prefix="optserve-field-") as folder, \
            Stack(programs, sources, pathlib.Path(folder)) as stack:
        api = Api(stack.api_url)
        check_parsers(api, random.Random(seed))
        check_behaviours(api, expect)
        check_langchain(api)
        check_traces(api)
        check_deletion(api)
        api.post("/v1/queue", {"action": "pause"})
        held = [Held(api, ends_well) for ends_well in (True, False)]
        for stream in held:
            stream.start()
        time.sleep(KEEP_ALIVE_SECONDS + 2)
        check_silence_and_errors(api, held)
        check_logs(pathlib.Path(folder))


main()

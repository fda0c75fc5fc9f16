#!/usr/bin/env python3
"""The Python client against a real local stack: the examples of docs/python.md, and streams through the death of the
scheduler, the tokenizer and the worker.

usage: python_client_test.py FOLDER_OF_PROGRAMS SOURCE_FOLDER
"""

import asyncio
import concurrent.futures
import pathlib
import sys
import tempfile
import time

from local_stack import LIMIT_SECONDS, Stack, expect
from page_examples import run_page

PROGRAMS, SOURCES = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])
sys.path.insert(0, str(SOURCES / "libs/pyclient/src"))

import optserve  # noqa: E402: the path has to be known first

PROMPTS = [f"Chapter {i}. Once" for i in range(32)]
LONG = {"max_new_tokens": 80, "ignore_eos": True, "temperature": 0}


def check_page(stack):
    count = run_page(SOURCES / "docs/python.md", stack.endpoint, stack.folder)
    expect(count > 10, f"the {count} examples of docs/python.md print what they show")


def check_results(client):
    stream = client.stream(PROMPTS[0], **LONG)
    text = "".join(stream)
    expect(text == stream.text == stream.result().text == client.generate(PROMPTS[0], **LONG).text,
           "a stream is its result, and the same as without a stream")
    results = list(client.map(PROMPTS[:20], in_flight=7, max_new_tokens=8, temperature=0))
    alone = [client.generate(prompt, max_new_tokens=8, temperature=0).text for prompt in PROMPTS[:20]]
    expect([result.text for result in results] == alone, "map keeps the order of 20 prompts")
    outcomes = list(client.map([PROMPTS[0], ""], return_errors=True, max_new_tokens=2))
    expect([type(each) for each in outcomes] == [optserve.JobResult, optserve.BadRequest], "map tells errors in place")
    job = client.submit("Once", max_new_tokens=1000, ignore_eos=True)
    expect(client.cancel(job).state == optserve.JobState.CANCELLED, "a job is cancelled")


def check_in_running_loop(endpoint):
    async def notebook():
        with optserve.Client(endpoint, model="demo") as client:
            return client.generate("Once", max_new_tokens=2).succeeded

    expect(asyncio.run(notebook()), "the blocking client works where a loop runs")
    with optserve.Client(endpoint) as client:
        pass
    try:
        client.status()
        expect(False, "a closed client says so")
    except RuntimeError as error:
        expect("closed" in str(error), "a closed client says so")


def read(stream):
    """The pieces of a stream; each continues the text where the one before ended."""
    text = b""
    for piece in stream:
        if piece.offset != len(text):
            return f"a piece at {piece.offset} after {len(text)} bytes"
        text += piece.encode()
    return text.decode()


def check_kills(stack, client):
    undisturbed = [result.text for result in client.map(PROMPTS, **LONG)]
    for names in (["scheduler"], ["worker-0", "tokenizer"]):
        begin = time.monotonic()
        streams = [client.stream(prompt, **LONG) for prompt in PROMPTS]
        first = next(streams[0])
        with concurrent.futures.ThreadPoolExecutor(len(streams)) as pool:
            texts = [pool.submit(read, stream) for stream in streams[1:]]
            open_streams = sum(not text.done() for text in texts)
            for name in names:
                stack.kill(name)
            rest = "".join(streams[0])
            texts = [first + rest] + [text.result(LIMIT_SECONDS) for text in texts]
        different = sum(a != b for a, b in zip(texts, undisturbed))
        expect(different == 0 and open_streams > 0,
               f"{' and '.join(names)} killed while {open_streams + 1} of 32 streams were open: {different} other "
               f"texts, each byte once ({time.monotonic() - begin:.1f} s)")


def main():
    with tempfile.TemporaryDirectory(prefix="optserve-python-") as folder, \
            Stack(PROGRAMS, SOURCES, pathlib.Path(folder)) as stack:
        check_page(stack)
        check_in_running_loop(stack.endpoint)
        with optserve.Client(stack.endpoint, model="demo") as client:
            check_results(client)
            check_kills(stack, client)


main()

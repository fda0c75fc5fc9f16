#!/usr/bin/env python3
"""A hundred streams over HTTP while every kind of process is killed: each resumes or ends with a clear error, every job
has its result, and no text comes twice.

usage: http_faults_test.py FOLDER_OF_PROGRAMS SOURCE_FOLDER [STREAMS [ROUNDS]]
"""

import asyncio
import json
import pathlib
import random
import sys
import tempfile

import httpx2 as httpx

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from local_stack import LIMIT_SECONDS, Stack, expect

VICTIMS = ["gateway", "scheduler", "tokenizer", "worker-0"]


def frames_of(buffer):
    """The whole frames at the front of what has come, and the rest."""
    *whole, rest = buffer.split("\n\n")
    return whole, rest


async def frames(response):
    buffer = ""
    async for piece in response.aiter_text():
        whole, buffer = frames_of(buffer + piece)
        for frame in whole:
            fields = dict(line.split(": ", 1) for line in frame.splitlines() if ": " in line)
            if "data" in fields:
                yield fields


class JobStream:
    """The events of one job, from one connection after the other, each from the byte that the one before ended with."""

    def __init__(self, client, number, tokens):
        self.client, self.number, self.tokens = client, number, tokens
        self.text = b""
        self.connections = 0

    @property
    def job(self):
        return {"prompt": f"Once upon a time {self.number}", "max_new_tokens": self.tokens, "temperature": 0.9,
                "seed": self.number, "ignore_eos": True, "key": f"stream-{self.number}", "ttl_ms": 120_000}

    async def again(self, call):
        """A gateway that is gone, or a scheduler that is not back yet, is asked again."""
        while True:
            try:
                answer = await call()
                if answer.status_code < 500 and answer.status_code != 429:
                    return answer
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)

    async def submit(self):
        answer = await self.again(lambda: self.client.post("/v1/jobs", json=self.job))
        if answer.status_code != 202:
            sys.exit(f"FAILED: {answer.status_code} {answer.text}")
        self.id = answer.json()["job"]

    async def follow(self):
        while True:
            self.connections += 1
            try:
                finished = await self.follow_once()
                if finished:
                    return finished
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)

    async def follow_once(self):
        headers = {"Last-Event-ID": str(len(self.text))} if self.text else {}
        async with self.client.stream("GET", f"/v1/jobs/{self.id}/events", headers=headers) as response:
            if response.status_code in (429, 503):
                return None
            if response.status_code != 200:
                sys.exit(f"FAILED: events of a job: {response.status_code} {await response.aread()}")
            async for fields in frames(response):
                data = json.loads(fields["data"])
                if fields["event"] == "text":
                    self.text += data["text"].encode()
                    if int(fields["id"]) != len(self.text):
                        sys.exit(f"FAILED: job {self.number} is at byte {len(self.text)}, the stream at {fields['id']}")
                elif fields["event"] == "restarted":
                    self.text = b""
                elif fields["event"] == "finished":
                    return data
                elif fields["event"] == "error":
                    return None
        return None

    async def run(self):
        await self.submit()
        result = await self.follow()
        if result["state"] != "succeeded" or result["text"].encode() != self.text:
            sys.exit(f"FAILED: job {self.number}: {result}\nstreamed {self.text!r}")
        stored = await self.again(lambda: self.client.get(f"/v1/jobs/{self.id}/result"))
        if stored.json()["text"] != result["text"]:
            sys.exit(f"FAILED: the stored result of job {self.number} is another one")
        return result["text"]


async def stream_completion(client, number, tokens):
    """A stream of the completions API. Returns its text, or None if it ended with an error or was cut."""
    body = {"model": "demo", "prompt": f"Once upon a time {number}", "max_tokens": tokens, "temperature": 0.9,
            "seed": number, "ignore_eos": True, "stream": True}
    text, is_done = "", False
    try:
        async with client.stream("POST", "/v1/completions", json=body) as response:
            if response.status_code != 200:
                error = json.loads(await response.aread())["error"]
                if response.status_code not in (429, 503) or not error["message"]:
                    sys.exit(f"FAILED: refused with {response.status_code}: {error}")
                return None
            async for fields in frames(response):
                if is_done:
                    sys.exit("FAILED: something comes after [DONE]")
                if fields["data"] == "[DONE]":
                    is_done = True
                    continue
                data = json.loads(fields["data"])
                if "error" in data:
                    if not data["error"]["message"]:
                        sys.exit(f"FAILED: an error without words: {data}")
                    text = None
                elif text is None:
                    sys.exit("FAILED: text comes after an error")
                else:
                    text += data["choices"][0]["text"] if data["choices"] else ""
    except httpx.TransportError:
        return None
    return text if is_done else None


async def complete(client, number, tokens):
    """Asks until a stream is whole, as a client without a job's id does. Returns its text, and how often it asked."""
    attempts = 0
    while True:
        attempts += 1
        text = await stream_completion(client, number, tokens)
        if text is not None:
            return text, attempts
        await asyncio.sleep(0.2)


async def check_round(stack, client, seed, num_streams):
    pick = random.Random(seed)
    tokens = [pick.randint(40, 160) for _ in range(num_streams)]
    jobs = [JobStream(client, seed * 1_000 + number, tokens[number]) for number in range(num_streams)]

    async def kill():
        for victim in pick.sample(VICTIMS, len(VICTIMS)):
            await asyncio.sleep(pick.uniform(0.2, 1))
            await asyncio.to_thread(stack.kill, victim)

    completions = [complete(client, job.number, job.tokens // 4) for job in jobs]
    *results, _ = await asyncio.gather(*[job.run() for job in jobs], *completions, kill())
    texts, streamed = results[:num_streams], results[num_streams:]
    expect(len(set(texts)) > num_streams / 2, f"{num_streams} jobs end with their own texts (seed {seed})")
    wrong = [number for number in range(num_streams) if not texts[number].startswith(streamed[number][0])]
    attempts = sum(attempts for _, attempts in streamed)
    expect(not wrong and attempts > num_streams, f"{num_streams} completions are right after {attempts} attempts")
    connections = sum(job.connections for job in jobs)
    expect(connections > num_streams, f"streams were resumed: {connections} connections for {num_streams} jobs")


async def main():
    programs, sources = map(pathlib.Path, sys.argv[1:3])
    num_streams = int(sys.argv[3]) if len(sys.argv) > 3 else 100
    rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    with tempfile.TemporaryDirectory() as scratch, Stack(programs, sources, pathlib.Path(scratch)) as stack:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=stack.api_url, timeout=LIMIT_SECONDS, limits=limits) as client:
            for _ in range(rounds):
                await check_round(stack, client, random.randrange(1_000_000), num_streams)


if __name__ == "__main__":
    asyncio.run(main())

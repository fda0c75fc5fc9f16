#!/usr/bin/env python3
"""How fast the client libraries are, C++ and Python beside each other: jobs accepted in bulk, tokens streamed, and jobs
of one token one after the other, a second. A scheduler that only answers feeds them (one process, so at most as fast as
it is itself), each client on one core.

usage: client_rate.py CPP_CLIENT_RATE [ROUNDS]
"""

import os
import pathlib
import statistics
import subprocess
import sys
import time

import msgpack
import zmq

HERE = pathlib.Path(__file__).resolve().parent
SUBMIT, SUBMIT_REPLY, JOB_EVENTS, JOB_FINISHED, GET_STATUS, SYSTEM_STATUS, PING, PONG = 1, 2, 4, 5, 9, 10, 12, 13
STREAMS, TOKENS, JOBS, SINGLE = 64, 1000, 20_000, 1000


def feed(ready):
    """Accepts every job, and streams the tokens of those that are followed, one event for each job in a message."""
    socket = zmq.Context().socket(zmq.ROUTER)
    socket.setsockopt(zmq.SNDHWM, 0)
    ready(socket.bind_to_random_port("tcp://127.0.0.1"))
    pack, number = msgpack.packb, 0
    while True:
        peer, frame = socket.recv_multipart()
        _, kind, body = msgpack.unpackb(frame)
        if kind == PING:
            socket.send_multipart([peer, pack([1, PONG, {"number": body["number"], "term": 1}])])
        elif kind == GET_STATUS:
            socket.send_multipart([peer, pack([1, SYSTEM_STATUS, {"request": body["request"]}])])
        elif kind == SUBMIT:
            ids = [(number + i).to_bytes(16, "big") for i in range(len(body["jobs"]))]
            number += len(ids)
            socket.send_multipart([peer, pack([1, SUBMIT_REPLY, {"request": body["request"],
                                                                 "outcomes": [[each] for each in ids]}])])
            if body.get("stream", True):
                tokens = body["jobs"][0].get("max_new_tokens", 16)
                for token in range(tokens):
                    events = [[each, 5 * token, " word", token + 1, token + 1, tokens, 2] for each in ids]
                    socket.send_multipart([peer, pack([1, JOB_EVENTS, {"events": events}])])
                for each in ids:
                    result = {"job": each, "state": 3, "text": " word" * tokens}
                    socket.send_multipart([peer, pack([1, JOB_FINISHED, {"result": result}])])


def measure_python(endpoint, what):
    sys.path.insert(0, str(HERE.parents[1] / "libs/pyclient/src"))
    import optserve  # only in this process

    with optserve.Client(endpoint, model="demo", timeout=60) as client:
        client.status()
        begin = time.monotonic()
        if what == "submit":
            done = len(client.submit_many(["Once upon a time"] * JOBS))
        elif what == "single":
            done = sum(client.generate("Once upon a time", max_new_tokens=1).succeeded for _ in range(SINGLE))
        else:
            jobs = [optserve.JobSpec(model="demo", prompt="Once upon a time", max_new_tokens=TOKENS)
                    for _ in range(STREAMS)]
            done = sum(1 for stream in client._start(jobs) for _ in stream)
        print(round(done / (time.monotonic() - begin)))


def main():
    if sys.argv[1] == "--python":
        return measure_python(*sys.argv[2:4])
    if sys.argv[1] == "--feed":
        return feed(lambda port: print(port, flush=True))
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    feeder = subprocess.Popen([sys.executable, __file__, "--feed"], stdout=subprocess.PIPE, text=True)
    try:
        endpoint = f"tcp://127.0.0.1:{int(feeder.stdout.readline())}"
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(feeder.pid, cores[:1])
        for what, count in (("submit", JOBS), ("stream", STREAMS), ("single", SINGLE)):
            for name, command in (("C++", [sys.argv[1], endpoint, what, str(count)]),
                                  ("Python", [sys.executable, __file__, "--python", endpoint, what])):
                rates = [int(subprocess.run(command, capture_output=True, text=True, check=True,
                                            preexec_fn=lambda: os.sched_setaffinity(0, cores[-1:])).stdout.split()[-1])
                         for _ in range(rounds)]
                print(f"{what}, {name}: {statistics.median(rates):,} a second; {rounds} rounds: {sorted(rates)}",
                      flush=True)
    finally:
        feeder.kill()


main()

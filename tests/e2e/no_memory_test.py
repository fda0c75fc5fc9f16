#!/usr/bin/env python3
"""Allocations fail at random places of every service while jobs run: a process may end, but every accepted job has its
result once, with the text that it has without the fault.

usage: no_memory_test.py FOLDER_OF_PROGRAMS SOURCE_FOLDER [ROUNDS [SEED]]
"""

import os
import pathlib
import random
import sys
import tempfile

from local_stack import LIMIT_SECONDS, Stack, expect

PROGRAMS, SOURCES = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])
ROUNDS = int(sys.argv[3]) if len(sys.argv) > 3 else 8
SEED = int(sys.argv[4]) if len(sys.argv) > 4 else random.randrange(1 << 31)
sys.path.insert(0, str(SOURCES / "libs/pyclient/src"))

import optserve  # noqa: E402: the path has to be known first

PROMPTS = [f"Chapter {i}. Once" for i in range(24)]
OPTIONS = {"max_new_tokens": 24, "ignore_eos": True, "temperature": 0.8, "seed": 5, "max_attempts": 10}
# The process of the stack, its program, and how many processes of that program start before the one that fails.
VICTIMS = [("scheduler", "optserve-scheduler", 0), ("tokenizer", "optserve-tokenizer", 0),
           ("worker-0", "optserve-worker", 0), ("worker-0", "optserve-worker", 1)]
FEWEST, MOST = 1_000, 60_000  # allocations of a start, and of a start and this many jobs



def run_round(stack, client, plans, victim, choose, expected):
    name, program, processes = victim
    allocations = int(FEWEST * (MOST / FEWEST) ** choose.random())
    (plans / program).write_text(f"{processes} {allocations}\n")
    pid = stack.pid(name)
    os.kill(pid, 9)  # the next one has the plan
    jobs = [client.submit(prompt, **OPTIONS) for prompt in PROMPTS]
    texts = [client.wait(job, timeout=LIMIT_SECONDS).text for job in jobs]
    expect(texts == expected, f"{len(jobs)} jobs end once, though allocation {allocations} of {program} fails")


def main():
    print(f"seed {SEED}", flush=True)
    choose = random.Random(SEED)
    with tempfile.TemporaryDirectory(prefix="optserve-no-memory-") as folder:
        plans = pathlib.Path(folder, "plans")
        plans.mkdir()
        os.environ["LD_PRELOAD"] = str(PROGRAMS / "libno_memory_preload.so")
        os.environ["NO_MEMORY"] = str(plans)
        with Stack(PROGRAMS, SOURCES, pathlib.Path(folder)) as stack:
            with optserve.Client(stack.endpoint, model="demo", timeout=LIMIT_SECONDS) as client:
                expected = [result.text for result in client.map(PROMPTS, **OPTIONS)]
                for number in range(ROUNDS):  # one after the other: a process that often ends is started ever later
                    run_round(stack, client, plans, VICTIMS[number % len(VICTIMS)], choose, expected)
            logs = "".join(path.read_text(errors="replace") for path in pathlib.Path(stack.run_folder).glob("*.log"))
        ends = sum(logs.count(words) for words in ("bad_alloc", "Out of memory", "out of memory", "signal 6"))
        expect(ends > 0, f"memory did run out: {ends} lines of logs say so")


if __name__ == "__main__":
    main()

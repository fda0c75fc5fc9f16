#!/usr/bin/env python3
"""Runs the cases of real_cases/*.json with both client libraries against a real local stack, and then streams of both
while its processes are killed: both libraries see the same.

usage: real.py CPP_DRIVER FOLDER_OF_PROGRAMS SOURCE_FOLDER
"""

import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))
from local_stack import Stack, expect
from run import is_as_expected

CASE_SECONDS = 120
STREAMS, PROCESSES = 32, 4  # of each language
VICTIMS = ["scheduler", "tokenizer", "worker-0"]


def drive(command, endpoint, calls):
    """The results of the calls, or text that says why there are none."""
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1] / "libs/pyclient/src")}
    done = subprocess.run(command, input=json.dumps({"endpoints": endpoint, "calls": calls, "timeout_ms": 20_000}),
                          capture_output=True, text=True, timeout=CASE_SECONDS, env=environment)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else done.stderr


def at(results, path):
    for step in path.split("."):
        results = results[int(step) if isinstance(results, list) else step]
    return results


def check_case(name, case, commands, endpoint):
    found = {}
    for language, command in commands.items():
        tag = f"{name}-{language}".replace("+", "p")
        results = drive(command, endpoint, json.loads(json.dumps(case["calls"]).replace("$tag", tag)))
        if not isinstance(results, list) or not is_as_expected(case["results"], results):
            sys.exit(f"FAILED: {name}, {language}: expected {json.dumps(case['results'])}\n"
                     f"     got {json.dumps(results)}")
        for one, other in case.get("same", []):
            if at(results, one) != at(results, other):
                sys.exit(f"FAILED: {name}, {language}: {one} and {other} differ: {results}")
        found[language] = [result.get("text") if isinstance(result, dict) else None for result in results]
    texts = list(found.values())
    expect(all(text == texts[0] for text in texts), f"{name}: {case['about']}")


def stream_calls(language, number):
    return [{"call": "generate",
             "job": {"key": f"kill-{language.replace('+', 'p')}-{number}-{i}", "model": "demo", "max_new_tokens": 120,
                     "prompt": f"Once upon a time {number} {i}", "seed": i, "temperature": 0.9, "ignore_eos": True,
                     "ttl_ms": 600_000}} for i in range(STREAMS // PROCESSES)]


def check_kills(stack, commands):
    with concurrent.futures.ThreadPoolExecutor(2 * PROCESSES) as pool:
        runs = {(language, number): pool.submit(drive, command, stack.endpoint, stream_calls(language, number))
                for language, command in commands.items() for number in range(PROCESSES)}
        for victim in VICTIMS:
            concurrent.futures.wait(runs.values(), timeout=0.7)
            stack.kill(victim)
        results = {key: run.result() for key, run in runs.items()}
    texts = {}
    for (language, number), found in results.items():
        if not isinstance(found, list):
            sys.exit(f"FAILED: {language}: {found}")
        for i, result in enumerate(found):
            if result.get("state") != "succeeded" or result["streamed"] != result["text"]:
                sys.exit(f"FAILED: {language}, stream {number}.{i}: {result}")
            texts.setdefault((number, i), set()).add(result["text"])
    expect(len(texts) == STREAMS and all(len(of_both) == 1 for of_both in texts.values()),
           f"{STREAMS} streams of each library through kills of {', '.join(VICTIMS)}: the same text, once")


def main():
    driver, programs, sources = (pathlib.Path(argument).resolve() for argument in sys.argv[1:4])
    commands = {"C++": [str(driver)], "Python": [sys.executable, "-B", str(HERE / "driver.py")]}
    with tempfile.TemporaryDirectory(prefix="optserve-conformance-") as folder, \
            Stack(programs, sources, pathlib.Path(folder)) as stack:
        for path in sorted(HERE.glob("real_cases/*.json")):
            check_case(path.stem, json.loads(path.read_text(encoding="utf-8")), commands, stack.endpoint)
        check_kills(stack, commands)


if __name__ == "__main__":
    main()

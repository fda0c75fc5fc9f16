#!/usr/bin/env python3
"""Runs the cases of cases/*.json with both client libraries against schedulers that follow a script.

usage: run.py CPP_DRIVER [WORD]    only cases with the word in their name
"""

import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import time

import zmq

from scripted_scheduler import ScriptedScheduler

HERE = pathlib.Path(__file__).resolve().parent
CASE_SECONDS = 60
AT_ONCE = 12  # they wait more than they compute


def is_as_expected(expected, found):
    if isinstance(expected, dict):
        return isinstance(found, dict) and all(
            name in found and is_as_expected(value, found[name]) for name, value in expected.items())
    if isinstance(expected, list):
        return isinstance(found, list) and len(expected) == len(found) and all(map(is_as_expected, expected, found))
    return expected == found


def run_case(case, command):
    """What went wrong; empty if nothing did."""
    context = zmq.Context()
    schedulers = [ScriptedScheduler(context, steps) for steps in case["schedulers"]]
    for scheduler in schedulers:
        scheduler.start()
    given = {"endpoints": ",".join(s.endpoint for s in schedulers), "calls": case["calls"],
             **case.get("options", {})}
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1] / "libs/pyclient/src")}
    try:
        done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, timeout=CASE_SECONDS,
                              env=environment)
        output, failure = done.stdout, done.stderr if done.returncode else ""
    except subprocess.TimeoutExpired:
        output, failure = "", f"nothing came for {CASE_SECONDS} s"
    wrong = [f"scheduler {i}: {why}" for i, why in enumerate(s.stop() for s in schedulers) if why]
    context.destroy(0)
    if failure:
        wrong.append(f"driver: {failure}")
    else:
        results = json.loads(output.splitlines()[-1])  # the lines before are a library's log
        if not is_as_expected(case["results"], results):
            wrong.append(f"expected {json.dumps(case['results'])}\n     got {json.dumps(results)}")
    return wrong


def main():
    driver, word = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""
    commands = {"C++": [driver], "Python": [sys.executable, "-B", str(HERE / "driver.py")]}
    vectors = subprocess.run([driver, "--vectors"], capture_output=True, text=True, check=True).stdout
    if vectors != (HERE / "vectors.json").read_text(encoding="utf-8"):
        sys.exit("vectors.json is not what the C++ library gives: conformance_driver --vectors")
    cases = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(HERE.glob("cases/*.json"))
             if word in path.stem}
    if not cases:
        sys.exit("no cases")
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        begin = time.monotonic()
        longest_first = sorted(cases.items(), key=lambda item: "mute" not in json.dumps(item[1]))
        runs = {pool.submit(run_case, case, command): (name, language)
                for name, case in longest_first for language, command in commands.items()}
        for run in concurrent.futures.as_completed(runs):
            name, language = runs[run]
            wrong = run.result()
            failed += bool(wrong)
            print(f"{'FAILED' if wrong else 'ok'}: {name}, {language} ({time.monotonic() - begin:.1f} s)")
            for line in wrong:
                print(f"  {line}")
    print(f"{len(runs)} runs of {len(cases)} cases, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

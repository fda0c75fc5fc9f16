#!/usr/bin/env python3
"""`optserve batch` over a real local stack: both forms of lines, errors, kills of everything, and the same answers.

usage: batch_test.py FOLDER_OF_PROGRAMS SOURCE_FOLDER [LINES]
"""

import collections
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

from local_stack import LIMIT_SECONDS, Stack, expect


def request(number):
    body = {"prompt": f"Once upon a time {number}", "max_tokens": 2 + number % 40, "temperature": 0.8,
            "seed": number}
    return {"custom_id": f"c{number}", "method": "POST", "url": "/v1/completions", "body": body}


def job(number):
    return {"custom_id": f"c{number}", "prompt": f"The cat {number}", "max_new_tokens": 3}


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def command(stack, *arguments):
    return [stack.optserve, "batch", *map(str, arguments), "--dir", stack.run_folder]


def run_batch(stack, *arguments, status=0):
    done = subprocess.run(command(stack, *arguments), capture_output=True, text=True, timeout=LIMIT_SECONDS)
    if done.returncode != status:
        sys.exit(f"FAILED: {arguments} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def texts_of(path):
    """The text of each line by its custom_id; a custom_id that comes twice ends the test."""
    lines = read_lines(path)
    counts = collections.Counter(line["custom_id"] for line in lines)
    expect(max(counts.values()) == 1, f"each of {len(lines)} lines is answered once")
    return {line["custom_id"]: line["result"]["text"] if "result" in line else
            line["response"]["body"]["choices"][0]["text"] for line in lines}


def check_forms(stack, folder):
    write_lines(folder / "in.jsonl", [request(1), job(2), {"custom_id": "bad", "prompt": 7},
                                      {**request(4), "url": "/v1/other"}, request(5)])
    done = run_batch(stack, folder / "in.jsonl", folder / "out.jsonl", "--json", status=1)
    expect(json.loads(done.stdout)["answered"] == 3 and json.loads(done.stdout)["failed"] == 2, "counts are printed")
    expect(sorted(texts_of(folder / "out.jsonl")) == ["c1", "c2", "c5"], "both forms of lines are answered")
    errors = {line["custom_id"]: line for line in read_lines(folder / "out.jsonl.errors")}
    expect("prompt" in errors["bad"]["error"]["message"], "the error of a job names the field")
    expect(errors["c4"]["response"]["status_code"] == 400, "the error of a request has its status")
    expect(not (folder / "out.jsonl.run").exists() and not (folder / "out.jsonl.part").exists(), "nothing is left over")
    done = run_batch(stack, folder / "in.jsonl", folder / "out.jsonl", status=1)
    expect("--restart" in done.stderr, "answers are not overwritten")
    write_lines(folder / "in.jsonl", [request(1)])
    run_batch(stack, folder / "in.jsonl", folder / "out.jsonl", "--restart")
    expect(not (folder / "out.jsonl.errors").exists(), "a run without errors leaves no file of errors")


def check_refusals(stack, folder):
    done = run_batch(stack, folder / "missing.jsonl", folder / "out2.jsonl", status=1)
    expect("missing.jsonl" in done.stderr, "a missing input is named")
    done = run_batch(stack, folder, folder / "out2.jsonl", status=2)
    expect("is not a file" in done.stderr, "a folder is no input")
    (folder / "empty.jsonl").write_text("")
    run_batch(stack, folder / "empty.jsonl", folder / "empty.out")
    expect((folder / "empty.out").read_text() == "", "an empty input has an empty output")


def check_kills(stack, folder, lines):
    """Command, scheduler and a rank are killed; the same command goes on, and every line is there once."""
    source = folder / "many.jsonl"
    write_lines(source, [request(number) if number % 2 else job(number) for number in range(lines)])
    run_batch(stack, source, folder / "calm.out")
    output = folder / "killed.out"
    kills = 0
    for victim in [None, "scheduler", "worker-0", None, "scheduler"]:
        started = subprocess.Popen(command(stack, source, output, "--open-jobs", 16), stderr=subprocess.DEVNULL)
        part, before = pathlib.Path(f"{output}.part"), kills
        end = time.monotonic() + LIMIT_SECONDS
        want = lines * (kills + 1) // 7
        while started.poll() is None and (not part.exists() or part.read_bytes().count(b"\n") < want):
            if time.monotonic() > end:
                sys.exit("FAILED: no progress")
            time.sleep(0.02)
        if started.poll() is None and victim:
            stack.kill(victim)
            kills += 1
            time.sleep(0.2)
        if started.poll() is None:
            started.send_signal(signal.SIGKILL)
            kills += before == kills
        started.wait()
    done = run_batch(stack, source, output)
    expect(kills >= 3 and "goes on after" in done.stderr, f"the command goes on after {kills} kills")
    expect(texts_of(output) == texts_of(folder / "calm.out"), f"all {lines} answers are those of a run without kills")


def check_changed_input(stack, folder):
    source, output = folder / "changed.jsonl", folder / "changed.out"
    write_lines(source, [request(number) for number in range(400)])
    started = subprocess.Popen(command(stack, source, output), stderr=subprocess.DEVNULL)
    while not pathlib.Path(f"{output}.run").exists():
        time.sleep(0.01)
    expect("another process" in run_batch(stack, source, output, status=1).stderr, "two runs do not mix")
    started.send_signal(signal.SIGINT)
    expect(started.wait(LIMIT_SECONDS) == 130, "Ctrl-C ends the command")
    write_lines(source, [request(1)])
    expect("has changed" in run_batch(stack, source, output, status=1).stderr, "a changed input is refused")
    run_batch(stack, source, output, "--restart")
    expect(len(texts_of(output)) == 1, "with --restart it is answered")


def main():
    programs, sources = map(pathlib.Path, sys.argv[1:3])
    lines = int(sys.argv[3]) if len(sys.argv) > 3 else 500
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        with Stack(programs, sources, folder) as stack:
            check_forms(stack, folder)
            check_refusals(stack, folder)
            check_kills(stack, folder, lines)
            check_changed_input(stack, folder)
    print("all of `optserve batch` is as it should be")


if __name__ == "__main__":
    main()

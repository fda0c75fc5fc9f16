"""Runs the real converter, in its cage, over checkpoints that are made to harm it. Each must be refused for the right
reason, quickly, in little memory, and leave nothing: no file, no process, no model.

usage: hostile_test.py CONVERTER [--only PART_OF_A_NAME] [--every N] [--sandbox require|try|off] [--no-limits]
"""

import argparse
import ctypes
import os
import pathlib
import shutil
import sys
import tempfile
import threading
import time

import file_cases
import folder_cases
import pickle_cases
from building import write_good

SECONDS_MAX = 5
MIB_MAX = 300
KILL_SECONDS = 60
REFUSED = 1
CASES_MIN = 150
PR_SET_CHILD_SUBREAPER = 36


def files_below(folder):
    return sorted(str(path) for path in folder.rglob("*"))


class Run:
    """One program run to its end; processes that outlive it become ours."""

    def __init__(self, command, folder):
        begin = time.monotonic()
        with open(folder / "output", "wb") as output:
            pid = os.fork()
            if pid == 0:
                os.chdir(folder / "elsewhere")
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                os.execv(command[0], command)
        killer = threading.Timer(KILL_SECONDS, os.kill, (pid, 9))
        killer.start()
        _, status, usage = os.wait4(pid, 0)
        killer.cancel()
        self.seconds = time.monotonic() - begin
        self.status = os.waitstatus_to_exitcode(status)
        self.mib = usage.ru_maxrss / 1024  # of the program or of its reader, whichever is larger
        self.text = (folder / "output").read_bytes().decode(errors="replace")
        try:
            os.waitpid(-1, os.WNOHANG)
            self.left_process = True
        except ChildProcessError:
            self.left_process = False


def faults(case, run, folder, before, has_limits):
    if run.status != REFUSED:
        yield f"exit status {run.status}, expected {REFUSED}"
    for word in case.words:
        if word.lower() not in run.text.lower():
            yield f"the reason lacks '{word}'"
    if "\x1b" in run.text:
        yield "the reason holds a terminal's codes"
    if has_limits and run.seconds > SECONDS_MAX:
        yield f"took {run.seconds:.1f} s"
    if has_limits and run.mib > MIB_MAX:
        yield f"took {run.mib:.0f} MiB"
    if run.left_process:
        yield "a process is left"
    if files_below(folder) != before:
        yield f"files changed: {set(files_below(folder)) ^ set(before)}"


def check(case, options, root):
    folder = root / "case"
    for name in ("input", "elsewhere", "out"):
        (folder / name).mkdir(parents=True)
    (folder / "output").touch()
    source = case.build(folder / "input")
    source = source if isinstance(source, pathlib.Path) else folder / "input"
    before = files_below(folder)
    failed = []
    for command in case.commands:
        arguments = [options.converter, command, str(source)]
        arguments += [str(folder / "out" / "model"), "--progress=false"] if command == "convert" else []
        run = Run(arguments + ["--sandbox", options.sandbox], folder)
        check.slowest = max(check.slowest, (run.seconds, case.name))
        check.largest = max(check.largest, (run.mib, case.name))
        found = list(faults(case, run, folder, before, not options.no_limits))
        if found:
            failed.append(f"{command}: {'; '.join(found)}\n    it said: {run.text.strip()[:400]}")
    shutil.rmtree(folder)
    return failed


def convert_good(options, root):
    """The models that the cases spoil convert, so a refusal is for what was spoilt."""
    for name in write_good(root / "good"):
        (root / "elsewhere").mkdir(exist_ok=True)
        run = Run([options.converter, "convert", str(root / "good" / name), str(root / "good" / (name + "-out")),
                   "--progress=false", "--sandbox", options.sandbox], root)
        if run.status != 0:
            sys.exit(f"FAILED: the good {name} model is refused: {run.text}")
    return root / "good" / "metaseq-out"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("converter")
    parser.add_argument("--only", default="")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--sandbox", default="require")
    parser.add_argument("--no-limits", action="store_true")
    options = parser.parse_args()
    options.converter = os.path.abspath(options.converter)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    root = pathlib.Path(tempfile.mkdtemp(prefix="optserve-hostile-"))
    begin, failed, check.slowest, check.largest = time.monotonic(), 0, (0, ""), (0, "")
    try:
        good = convert_good(options, root)
        cases = [*pickle_cases.cases(), *file_cases.cases(), *folder_cases.cases(), *folder_cases.manifest_cases(good)]
        names = [case.name for case in cases]
        if len(set(names)) != len(names):
            sys.exit(f"FAILED: two cases of one name: {sorted(n for n in set(names) if names.count(n) > 1)}")
        if len(cases) < CASES_MIN:
            sys.exit(f"FAILED: {len(cases)} cases, expected at least {CASES_MIN}")
        for case in cases[::options.every]:
            if options.only not in case.name:
                continue
            for fault in check(case, options, root):
                failed += 1
                print(f"FAILED: {case.name}: {fault}")
    finally:
        shutil.rmtree(root)
    print(f"{len(cases)} hostile checkpoints in {time.monotonic() - begin:.1f} s; slowest {check.slowest[0]:.2f} s "
          f"({check.slowest[1]}), largest {check.largest[0]:.0f} MiB ({check.largest[1]}); {failed} failures")
    sys.exit(1 if failed else 0)


main()

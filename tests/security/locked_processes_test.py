#!/usr/bin/env python3
"""Every service of a running stack has locked itself: no new privileges and a filter of system calls in each thread.

  locked_processes_test.py PROGRAMS SOURCES
"""

import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from local_stack import LIMIT_SECONDS, Stack, expect, run

SERVICES = {"scheduler", "tokenizer", "worker", "gateway", "converter"}


def threads_of(pid):
    return [task / "status" for task in pathlib.Path(f"/proc/{pid}/task").iterdir()]


def is_locked(status):
    lines = status.read_text(encoding="utf-8").splitlines()
    return "NoNewPrivs:\t1" in lines and "Seccomp:\t2" in lines


def children_of(pid):
    return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def look_at_stack(programs, sources, folder):
    with Stack(programs, sources, folder) as stack:
        answer = subprocess.run([stack.optserve, "generate", "--scheduler", stack.endpoint, "--model", "demo",
                                 "--max-new-tokens", "8", "The"], capture_output=True, text=True, timeout=LIMIT_SECONDS)
        expect(answer.returncode == 0 and answer.stdout, f"a locked stack answers {answer.stderr}")
        run(stack.optserve, "convert", "--remote", "--scheduler", stack.endpoint, str(folder / "opt"),
            str(folder / "again"), "--progress=false")
        expect((folder / "again/manifest.json").exists(), "a locked converter converts")
        seen = set()
        for process in stack.state["processes"]:
            kind = process["name"].rstrip("-0123456789")
            seen.add(kind)
            pids = [process["pid"], *(children_of(process["pid"]) if kind == "worker" else [])]
            for pid in pids:
                statuses = threads_of(pid)
                expect(statuses and all(is_locked(status) for status in statuses),
                       f"{process['name']}, process {pid}: its {len(statuses)} threads are locked")
        expect(seen >= SERVICES, f"a service of each kind was looked at: {sorted(seen)}")


def refuse_an_unknown_word(programs):
    for service in sorted(SERVICES - {"converter"}):
        done = subprocess.run([programs / f"optserve-{service}", "--sandbox=perhaps"], capture_output=True, text=True,
                              timeout=LIMIT_SECONDS)
        expect(done.returncode == 2 and "sandbox" in done.stderr, f"{service} refuses --sandbox=perhaps")


def main():
    programs, sources = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
    refuse_an_unknown_word(programs)
    with tempfile.TemporaryDirectory(prefix="optserve-locked-") as folder:
        look_at_stack(programs, sources, pathlib.Path(folder))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""What makes the command line pleasant: `optserve top` at a terminal and in a pipe, `optserve doctor`, completion as
bash, zsh and fish compute it, and manual pages as man formats them.

usage: terminal_test.py FOLDER_OF_PROGRAMS SOURCE_FOLDER
"""

import fcntl
import json
import os
import pathlib
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time

from local_stack import LIMIT_SECONDS, Stack, expect

PROGRAMS, SOURCES = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])
OPTSERVE = str(PROGRAMS / "optserve")


def output_of(*command, status=0, **environment):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=LIMIT_SECONDS,
                          stdin=subprocess.DEVNULL, env={**os.environ, **environment})
    if done.returncode != status:
        sys.exit(f"FAILED: {command}\nended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


class Top:
    """`optserve top` at a terminal of a given size."""

    def __init__(self, endpoint, rows, columns):
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "xterm"
            os.execv(OPTSERVE, [OPTSERVE, "top", "--interval", "0.1", "--scheduler", endpoint])
        self.seen = ""
        self.resize(rows, columns)

    def resize(self, rows, columns):
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self):
        if select.select([self.terminal], [], [], 0.1)[0]:
            try:
                self.seen += os.read(self.terminal, 65536).decode(errors="replace")
            except OSError:  # it has ended
                pass

    def last_screen(self):
        """Lines of the last whole drawing."""
        drawings = self.seen.split("\x1b[H")
        whole = [drawing for drawing in drawings if "\x1b[J" in drawing]
        return re.sub(r"\x1b\[K", "", whole[-1].split("\x1b[J")[0]).split("\r\n") if whole else []

    def wait_for(self, what, condition):
        end = time.monotonic() + LIMIT_SECONDS
        while not condition(self.last_screen()):
            if time.monotonic() > end:
                sys.exit(f"FAILED: {what}\n{self.seen[-3000:]!r}")
            self.read()
        print(f"ok: {what}", flush=True)

    def end(self, key):
        os.write(self.terminal, key)
        end = time.monotonic() + LIMIT_SECONDS
        while True:
            self.read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.read()
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > end:
                sys.exit("FAILED: top goes on after its end was asked for")


def check_top(stack):
    top = Top(stack.endpoint, 30, 100)
    top.wait_for("top shows the model and the services",
                 lambda lines: any(re.match(r"demo +open", line) for line in lines)
                 and any("worker-0" in line for line in lines))
    output_of(OPTSERVE, "generate", "Once", "--max-new-tokens", "4", "--scheduler", stack.endpoint)
    top.wait_for("top follows what happens", lambda lines: any("succeeded 1 " in line for line in lines))
    top.resize(6, 40)
    top.wait_for("top fits a smaller terminal",
                 lambda lines: len(lines) == 6 and max(map(len, lines)) <= 40 and "more lines" in lines[-1])
    top.resize(30, 100)
    top.wait_for("top fits a larger one again", lambda lines: any("worker-0" in line for line in lines))
    expect(top.end(b"q") == 0 and top.seen.rstrip().endswith("\x1b[?1049l"), "q ends top and gives the terminal back")
    top = Top(stack.endpoint, 30, 100)
    top.wait_for("top runs", lambda lines: any("worker-0" in line for line in lines))
    expect(top.end(b"\x03") == 0, "Ctrl-C ends it too")

    plain = output_of(OPTSERVE, "top", "--count", "2", "--interval", "0.1", "--scheduler", stack.endpoint)
    expect(plain.count("optserve top") == 2 and "\x1b" not in plain and "worker-0" in plain,
           "in a pipe top is plain text")

    top = Top(stack.endpoint, 30, 100)
    top.wait_for("top runs", lambda lines: any("worker-0" in line for line in lines))
    stack.kill("scheduler")
    top.wait_for("top follows a scheduler that is started anew", lambda lines: any("term 2" in line for line in lines))
    expect(top.end(b"q") == 0, "and ends")

    output_of(OPTSERVE, "top", "--scheduler", "tcp://127.0.0.1:9", status=3)


def check_doctor(folder):
    report = json.loads(output_of(OPTSERVE, "doctor", "--json", "--dir", folder))
    subjects = [finding["subject"] for finding in report["findings"]]
    expect({"processor", "memory", "disk", "ports", "clock"} <= set(subjects), f"doctor looks at {', '.join(subjects)}")
    text = output_of(OPTSERVE, "doctor", "--dir", "/nowhere", status=1)
    expect("problem  disk" in text and "-> " in text, "doctor says what to do, and fails if something is missing")
    expect("\x1b" not in text, "in a pipe without colours")


def completed(shell, script, words):
    """What the shell offers for the last word."""
    line = " ".join(words)
    if shell == "fish":
        printed = output_of("fish", "--no-config", "-c", f"source {script}; complete -C {json.dumps(line)}")
        return {row.split("\t")[0] for row in printed.splitlines()}
    if shell == "bash":
        quoted = " ".join(f"'{word}'" for word in words)
        return set(output_of("bash", "--norc", "-c", f"source {script}; COMP_WORDS=({quoted}); "
                             f"COMP_CWORD={len(words) - 1}; _optserve; printf '%s\\n' \"${{COMPREPLY[@]}}\"").split())
    # zsh completes only at a terminal, so this prints what _optserve hands to the completion system instead.
    quoted = " ".join(f"'{word}'" for word in words)
    printed = output_of("zsh", "--no-rcs", "-c", f"""
        compdef() {{ }}
        _files() {{ print files }}
        _describe() {{ print -l -- "${{choices[@]}}" }}
        source {script}
        words=({quoted}) CURRENT={len(words)} PREFIX='{words[-1]}'
        _optserve""")
    offered = {row.split(":")[0] for row in printed.splitlines()}
    return {word for word in offered if word.startswith(words[-1])}


def check_completion(folder):
    for shell in ("bash", "zsh", "fish"):
        if shutil.which(shell) is None:
            sys.exit(f"FAILED: there is no {shell}: deploy/install-deps --test")
        script = folder / f"optserve.{shell}"
        script.write_text(output_of(OPTSERVE, f"--completion={shell}"), encoding="utf-8")
        output_of(shell, "-n", script)
        found = [completed(shell, script, words) for words in
                 (["optserve", "gen"], ["optserve", "jobs", "li"], ["optserve", "jobs", "list", "--sta"],
                  ["optserve", "jobs", "list", "--state", "que"], ["optserve", "up", "--no-g"])]
        expect(found == [{"generate"}, {"list"}, {"--state"}, {"queued"}, {"--no-gateway"}],
               f"{shell} completes commands, options and words {found}")


def check_manuals(folder):
    pages = folder / "man"
    pages.mkdir()
    for program in sorted(PROGRAMS.glob("optserve*")):
        if program.name != "optserve-checkpoint-reader":
            output_of(program, f"--manual={pages}")
    helps = output_of(OPTSERVE, "generate", "--help-all")
    page = output_of("man", "-l", pages / "optserve-generate.1", MANWIDTH="200", LC_ALL="C.UTF-8")
    options = set(re.findall(r"^  (--[a-z-]+)", helps, re.M))
    missing = {option for option in options if not re.search(rf"^ +{option}\b", page, re.M)}
    expect(len(options) > 50 and not missing, f"the page of generate has its {len(options)} options {missing}")
    count = 0
    for each in sorted(pages.iterdir()):
        done = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", each], capture_output=True,
                              text=True, env={**os.environ, "MANROFFSEQ": "", "MANWIDTH": "80", "LC_ALL": "C.UTF-8"})
        if done.returncode != 0 or done.stderr:
            sys.exit(f"FAILED: {each.name}: {done.stderr}")
        count += 1
    expect(count > 30, f"man formats {count} pages without a warning")


def main():
    with tempfile.TemporaryDirectory(prefix="optserve-terminal-") as name:
        folder = pathlib.Path(name)
        check_doctor(folder)
        check_completion(folder)
        check_manuals(folder)
        with Stack(PROGRAMS, SOURCES, folder) as stack:
            check_top(stack)


main()

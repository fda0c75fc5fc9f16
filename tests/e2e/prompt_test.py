#!/usr/bin/env python3
"""`optserve prompt` against a real local stack: through a pseudo-terminal, as a person types, and through a pipe.

usage: prompt_test.py FOLDER_OF_PROGRAMS SOURCE_FOLDER
"""

import os
import pathlib
import pty
import select
import stat
import subprocess
import sys
import tempfile
import time

from local_stack import LIMIT_SECONDS, Stack, expect

PROGRAMS, SOURCES = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])
UP, LEFT, RUBOUT, CTRL_A, CTRL_C, CTRL_D = "\x1b[A", "\x1b[D", "\x7f", "\x01", "\x03", "\x04"


def options(stack):
    return ["--scheduler", stack.endpoint, "--temperature", "0", "--max-new-tokens", "8"]


def command(stack):
    return [stack.optserve, "prompt", *options(stack)]


class Terminal:
    """The program at a pseudo-terminal, with a state folder of its own."""

    def __init__(self, stack, state, **environment):
        self.seen = ""
        self.at = 0
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            os.environ.update(XDG_STATE_HOME=str(state), TERM="xterm", HOME=str(state), **environment)
            os.execv(stack.optserve, command(stack))

    def type(self, text):
        os.write(self.descriptor, text.encode())

    def enter(self, line):
        """Types a line at the next prompt."""
        self.wait_for(">>> ", f"a prompt for {line!r}")
        self.type(line + "\r")

    def read(self):
        if not select.select([self.descriptor], [], [], 0.1)[0]:
            return True
        try:
            data = os.read(self.descriptor, 65536)
        except OSError:  # the other end is closed
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)

    def wait_for(self, text, what):
        """Waits for `text` behind all that was waited for before; returns what came before it."""
        end = time.monotonic() + LIMIT_SECONDS
        while text not in self.seen[self.at:]:
            if time.monotonic() > end or not self.read():
                sys.exit(f"FAILED: {what}: no {text!r} in {self.seen[self.at:]!r}, after {self.seen[:self.at]!r}")
        begin = self.at
        self.at = self.seen.index(text, begin) + len(text)
        return self.seen[begin:self.at - len(text)]

    def status(self):
        while self.read():
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def one_answer(stack, prompt):
    made = subprocess.run([stack.optserve, "generate", prompt, *options(stack)], capture_output=True, text=True,
                          timeout=LIMIT_SECONDS, check=True)
    return made.stdout


def check_editing_and_history(stack, state):
    upon = one_answer(stack, "Once upon")
    terminal = Terminal(stack, state)
    terminal.wait_for(">>> ", "a prompt")
    terminal.type("nce uponn" + RUBOUT + CTRL_A + "O\r")
    terminal.wait_for(upon.replace("\n", "\r\n"), "the answer to the edited line")
    terminal.enter("one\\")
    terminal.wait_for("... ", "a line that goes on")
    terminal.type(CTRL_C)
    terminal.wait_for(">>> ", "Ctrl-C clears what was begun")
    terminal.type("half a line" + CTRL_C)
    terminal.enter("/set temperature 7")
    terminal.wait_for("temperature is 7, expected 0 to 2", "a wrong value")
    terminal.enter("/set temprature 1")
    terminal.wait_for("did you mean 'temperature'?", "a suggestion")
    terminal.enter("/save " + str(state / "talk"))
    terminal.enter("/quit")
    expect(terminal.status() == 0, "typed text is edited, errors are told, and /quit ends")
    expect((state / "talk").read_text(encoding="utf-8").startswith(">>> Once upon\n" + upon), "/save writes the talk")

    terminal = Terminal(stack, state)
    terminal.enter("/save " + str(state / "talk"))
    terminal.wait_for("there is no prompt yet", "/save without a prompt")
    terminal.wait_for(">>> ", "a prompt")
    terminal.type(7 * UP + "\r")  # over /save, /quit, /save, two of /set, and the line that went on
    terminal.wait_for(upon.replace("\n", "\r\n"), "the prompt of the first run, from the history")
    terminal.enter("/save " + str(state / "talk"))
    terminal.wait_for("File exists", "a file of another run is left alone")
    terminal.wait_for(">>> ", "a prompt")
    terminal.type(CTRL_D)
    expect(terminal.status() == 0, "the history lasts, and Ctrl-D ends")
    history = state / "optserve/history"
    expect(stat.S_IMODE(history.stat().st_mode) == 0o600, "the history is its owner's alone")


def check_interrupt(stack, state):
    terminal = Terminal(stack, state)
    for line in ("/set max-new-tokens 900", "/set ignore-eos on", "Once upon a time"):
        terminal.enter(line)
    terminal.wait_for(one_answer(stack, "Once upon a time").replace("\n", "\r\n"), "the first tokens of the answer")
    terminal.type(CTRL_C)
    terminal.wait_for("cancelled job ", "Ctrl-C cancels the answer")
    for line in ("/set max-new-tokens 4", "/tokens on", "Once"):
        terminal.enter(line)
    terminal.wait_for("75% or more", "the legend of the colours")
    terminal.enter("/continue")
    terminal.wait_for("75% or more", "a continuation")
    terminal.enter("/quit")
    expect(terminal.status() == 0 and "\x1b[3" in terminal.seen, "an answer is cancelled, and later ones are coloured")
    plain = Terminal(stack, state, NO_COLOR="1")
    plain.enter("/tokens on")
    plain.enter("Once")
    plain.wait_for("%  \"", "a line for a token")
    plain.enter("/quit")
    expect(plain.status() == 0 and "\x1b[32m" not in plain.seen, "NO_COLOR is honoured")


def check_pipe(stack):
    def piped(text):
        return subprocess.run(command(stack), input=text, capture_output=True, text=True, timeout=LIMIT_SECONDS)

    prompts = ["Once upon", "/set max-new-tokens 8", "The king"]
    ran = piped("\n".join(prompts))
    wanted = "".join(one_answer(stack, prompt) + "\n" for prompt in prompts[::2])
    expect((ran.returncode, ran.stdout, ran.stderr) == (0, wanted, ""), "each line of a pipe is a prompt")
    ran = piped("/set top-k many\nOnce upon\n")
    expect(ran.returncode == 1 and ran.stdout == one_answer(stack, "Once upon") + "\n" and "top-k" in ran.stderr,
           "an error in a pipe is told by the status, and the next lines are done")
    closed = subprocess.Popen(command(stack), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    closed.stdin.write(b"/set max-new-tokens 900\n/set ignore-eos on\nOnce upon\nThe king\n")
    closed.stdin.flush()
    closed.stdout.read(1)
    closed.stdout.close()
    told = closed.stderr.read().decode()
    expect(closed.wait(LIMIT_SECONDS) == 0 and told.count("cancelled job") == 1 and "write" not in told,
           "when nobody reads the output, the job is cancelled and the program ends")


def main():
    with tempfile.TemporaryDirectory(prefix="optserve-prompt-") as folder, \
            Stack(PROGRAMS, SOURCES, pathlib.Path(folder)) as stack:
        state = pathlib.Path(folder, "state")
        state.mkdir()
        check_pipe(stack)
        check_editing_and_history(stack, state)
        check_interrupt(stack, state)


main()

"""A stack of `optserve up` with the demo model, for the tests that are written in Python."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

LIMIT_SECONDS = 60


def expect(condition, what):
    if not condition:
        sys.exit(f"FAILED: {what}")
    print(f"ok: {what}", flush=True)


def run(*command):
    done = subprocess.run([command[0], *command[1:]], capture_output=True, text=True, timeout=LIMIT_SECONDS)
    if done.returncode != 0:
        sys.exit(f"{command}\nended with {done.returncode}\n{done.stdout}{done.stderr}")


class Stack:
    """`optserve up` with the demo model in a folder of its own."""

    def __init__(self, programs, sources, folder, *options):
        self.options = options
        self.optserve = str(programs / "optserve")
        self.sources = sources
        self.folder = folder
        self.run_folder = str(folder / "run")

    def __enter__(self):
        shutil.copytree(self.sources / "deploy/demo-model", self.folder / "opt")
        run(self.optserve, "convert", str(self.folder / "opt"), str(self.folder / "demo"), "--progress=false")
        run(self.optserve, "up", "--model", str(self.folder / "demo"), "--name", "demo", "--dir", self.run_folder,
            "--ports", "auto", "--converter-root", str(self.folder), "--worker-option", "threads=1",
            "--chat-template", "plain", *self.options)
        if self.state["client_secret_key"]:  # for clients of this process and for commands that it starts
            os.environ["OPTSERVE_SECRET_KEY"] = self.state["client_secret_key"]
            os.environ["OPTSERVE_SERVER_KEY"] = self.state["server_key"]
        return self

    def __exit__(self, *_):
        run(self.optserve, "down", "--now", "--dir", self.run_folder)

    @property
    def state(self):
        return json.loads(pathlib.Path(self.run_folder, "stack.json").read_text(encoding="utf-8"))

    @property
    def endpoint(self):
        return self.state["client_endpoint"]

    @property
    def api_url(self):
        return self.state["api_url"]

    def pid(self, name):
        return next(process["pid"] for process in self.state["processes"] if process["name"] == name)

    def kill(self, name):
        """Kills the process, or the rank of a worker, and waits until the stack has another one."""
        pid = self.pid(name)
        if name.startswith("worker"):
            pid = int(pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + LIMIT_SECONDS
        while not name.startswith("worker") and self.pid(name) in (pid, -1):
            if time.monotonic() > end:
                sys.exit(f"FAILED: no other {name} within {LIMIT_SECONDS} s")
            time.sleep(0.01)

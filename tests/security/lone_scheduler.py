"""A real scheduler with a journal and quotas of tenants, and without services: what it accepts waits."""

import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.request

from local_stack import LIMIT_SECONDS, expect

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from ports import free_port  # noqa: E402: the path has to be known first

CONFIGURATION = 78


def wait_until(condition, what):
    end = time.monotonic() + LIMIT_SECONDS
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"FAILED: not within {LIMIT_SECONDS} s: {what}")
        time.sleep(0.05)
    expect(True, what)


def forget_variables():
    """So that nothing of the caller's environment reaches the programs."""
    for variable in [one for one in os.environ if one.startswith("OPTSERVE_")]:
        del os.environ[variable]


class LoneScheduler:
    def __init__(self, programs, folder, *options):
        self.program = programs / "optserve-scheduler"
        self.folder = folder
        self.options = options
        self.quotas = folder / "quotas"
        self.log = folder / "log"
        self.clients, self.services, self.http = (free_port() for _ in range(3))
        self.process = None

    def write_quotas(self, text):
        """As an editor or a mounted ConfigMap does: the file is another one at once."""
        next_one = self.folder / "quotas.new"
        next_one.write_text(text, encoding="utf-8")
        next_one.chmod(0o644)
        next_one.rename(self.quotas)

    @property
    def endpoint(self):
        return f"tcp://127.0.0.1:{self.clients}"

    def words(self, *more):
        return [self.program, "--bind-clients", self.endpoint, "--bind-services", f"tcp://127.0.0.1:{self.services}",
                "--journal", self.folder / "journal.db", "--models", "opt", "--tenant-quotas", self.quotas,
                "--http-port", str(self.http), "--log-format", "json", *self.options, *more]

    def expect_no_start(self, message, what, *more):
        done = subprocess.run(self.words(*more), capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
        expect(done.returncode == CONFIGURATION and message in done.stderr, what)

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.words(), stderr=log)
        wait_until(lambda: self.get("/readyz") is not None, "the scheduler is ready")

    def end(self, how=signal.SIGKILL):
        self.process.send_signal(how)
        self.process.wait(LIMIT_SECONDS)

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=5) as answer:
                return answer.read().decode()
        except OSError:
            return None

#!/usr/bin/env python3
"""Quotas of tenants at a real scheduler: what is refused and how it is told, also after a kill, and a file that changes
while the scheduler runs.

usage: tenant_quotas_test.py FOLDER_OF_PROGRAMS SOURCE_FOLDER
"""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

PROGRAMS, SOURCES = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])
sys.path.insert(0, str(SOURCES / "tests/e2e"))
sys.path.insert(0, str(SOURCES / "libs/pyclient/src"))

from local_stack import LIMIT_SECONDS, expect  # noqa: E402: the paths have to be known first

import optserve  # noqa: E402

CONFIGURATION = 78
CALL_SECONDS = 3  # in which a client that is put off comes again


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_until(condition, what):
    end = time.monotonic() + LIMIT_SECONDS
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"FAILED: not within {LIMIT_SECONDS} s: {what}")
        time.sleep(0.05)
    expect(True, what)


class Scheduler:
    """With a journal and a file of quotas, and no services: what is accepted waits."""

    def __init__(self, folder):
        self.folder = folder
        self.quotas = folder / "quotas"
        self.log = folder / "log"
        self.clients, self.services, self.http = (free_port() for _ in range(3))
        self.process = None

    def write(self, text):
        """As an editor or a mounted ConfigMap does: the file is another one at once."""
        next_one = self.folder / "quotas.new"
        next_one.write_text(text, encoding="utf-8")
        next_one.chmod(0o644)
        next_one.rename(self.quotas)

    def words(self):
        return [PROGRAMS / "optserve-scheduler", "--bind-clients", self.endpoint, "--bind-services",
                f"tcp://127.0.0.1:{self.services}", "--journal", self.folder / "journal.db", "--models", "opt",
                "--tenant-quotas", self.quotas, "--http-port", str(self.http), "--log-format", "json"]

    @property
    def endpoint(self):
        return f"tcp://127.0.0.1:{self.clients}"

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.words(), stderr=log)
        wait_until(lambda: self.get("/readyz") is not None, "the scheduler is ready")

    def end(self, how):
        self.process.send_signal(how)
        self.process.wait(LIMIT_SECONDS)

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=5) as answer:
                return answer.read().decode()
        except OSError:
            return None

    def events(self, name):
        lines = (json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines())
        return [line for line in lines if line.get("event") == name]


def refusal(act, kind):
    try:
        act()
    except kind as error:
        return error
    return sys.exit(f"FAILED: expected {kind.__name__}")


def check_held(scheduler):
    with optserve.Client(scheduler.endpoint, model="opt", tenant="shop", timeout=CALL_SECONDS) as shop:
        for number in range(2):
            shop.submit([2, 5, 6], key=f"job-{number}", max_new_tokens=8, ttl_ms=3_600_000)
        busy = refusal(lambda: shop.submit([2, 5, 6], max_new_tokens=8), optserve.Busy)
        expect("the quota of tenant 'shop' is 2 jobs" in str(busy), "a refusal names the limit")
        expect(busy.retry_after and busy.retry_after > 0, "and says when to come back")
        expect(shop.submit([2, 5, 6], key="job-1", max_new_tokens=8, ttl_ms=3_600_000).duplicate,
               "what was accepted before is known")
        wrong = refusal(lambda: shop.submit([2, 5, 6], key="job-1", priority=9, max_new_tokens=8), optserve.Error)
        expect(not isinstance(wrong, optserve.Busy), "another payload is a conflict")
    with optserve.Client(scheduler.endpoint, model="opt", tenant="another", timeout=CALL_SECONDS) as another:
        another.submit([2, 5, 6], max_new_tokens=8)
        expect("priority is 6" in str(refusal(lambda: another.submit([2], priority=6, max_new_tokens=8),
                                              optserve.BadRequest)), "those without a line have the limits of tenant=*")


def check_changes(scheduler):
    with optserve.Client(scheduler.endpoint, model="opt", tenant="shop", timeout=CALL_SECONDS) as shop:
        scheduler.write("tenant=shop jobs=many\n")
        wait_until(lambda: scheduler.events("tenant_quotas_not_read"), "a file with a fault is in the log")
        expect("line 1" in scheduler.events("tenant_quotas_not_read")[0]["cause"], "with its line")
        refusal(lambda: shop.submit([2, 5, 6], max_new_tokens=8), optserve.Busy)
        expect(True, "and the quotas before it hold")
        scheduler.write("tenant=shop jobs=3 messages-per-minute=20\n")
        wait_until(lambda: scheduler.events("tenant_quotas_read"), "a file that changes is read")
        job = shop.submit([2, 5, 6], max_new_tokens=8)
        expect(job.id, "and holds at once")
        for _ in range(40):
            try:
                shop.get(job.id)
            except optserve.Busy as error:
                expect("messages-per-minute" in str(error), "a flood of questions meets the rate")
                break
        else:
            sys.exit("FAILED: a flood of questions")
    wait_until(lambda: 'optserve_tenant_jobs{tenant="shop"} 3' in (scheduler.get("/metrics") or ""),
               "metrics count the jobs of a tenant")
    expect('tenant="another"' not in scheduler.get("/metrics"), "with names from the file alone")


def main():
    with tempfile.TemporaryDirectory(prefix="optserve-quotas-") as name:
        scheduler = Scheduler(pathlib.Path(name))
        environment = {one: value for one, value in os.environ.items() if not one.startswith("OPTSERVE_")}
        os.environ.clear()
        os.environ.update(environment)
        scheduler.write("tenant=shop job=2\n")
        done = subprocess.run(scheduler.words(), capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
        expect(done.returncode == CONFIGURATION and "line 1" in done.stderr, "no start with a file that has a fault")
        scheduler.write("tenant=* priority=5\ntenant=shop jobs=2\n")
        scheduler.start()
        try:
            check_held(scheduler)
            scheduler.end(signal.SIGKILL)
            scheduler.start()
            check_held(scheduler)
            check_changes(scheduler)
        finally:
            scheduler.end(signal.SIGKILL)


if __name__ == "__main__":
    main()

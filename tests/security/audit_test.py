#!/usr/bin/env python3
"""The audit log of a real scheduler: who did what, through a kill, with hostile names, changed keys and quotas, and
while the log cannot be written.

usage: audit_test.py FOLDER_OF_PROGRAMS SOURCE_FOLDER
"""

import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

PROGRAMS, SOURCES = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])
sys.path.insert(0, str(SOURCES / "tests/e2e"))
sys.path.insert(0, str(SOURCES / "libs/pyclient/src"))

from local_stack import LIMIT_SECONDS, expect  # noqa: E402: the paths have to be known first
from lone_scheduler import LoneScheduler, forget_variables, wait_until  # noqa: E402

import optserve  # noqa: E402

HOSTILE = 'opt\n{"time":"2026-01-01T00:00:00.000Z"}\x1b[2J'


def command(*words, status=0):
    done = subprocess.run([PROGRAMS / "optserve", *words], capture_output=True, text=True, timeout=LIMIT_SECONDS,
                          check=False)
    if done.returncode != status:
        sys.exit(f"FAILED: {words} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


class Scheduler(LoneScheduler):
    """With keys."""

    def __init__(self, folder):
        super().__init__(PROGRAMS, folder, "--secret-key", folder / "scheduler.secret",
                         "--allowed-keys", folder / "allowed_keys")
        self.audit = folder / "journal.db.audit"
        for name in ("scheduler", "ops", "shop", "late"):
            command("keys", "new", name, "--folder", folder)
        self.allow("ops", "operator")
        self.allow("shop", "client=shop")
        self.write_quotas("tenant=* jobs=10\n")

    def allow(self, name, right):
        command("keys", "allow", self.folder / f"{name}.public", right, "--file", self.folder / "allowed_keys")

    def metric(self, name):
        return sum(float(line.split()[-1]) for line in (self.get("/metrics") or "").splitlines()
                   if line.startswith(name + " "))

    def client(self, name):
        return optserve.Client(self.endpoint, model="opt", secret_key=str(self.folder / f"{name}.secret"),
                               server_key=str(self.folder / "scheduler.public"))

    def records(self):
        if not self.audit.is_file():
            return []  # nothing is written yet
        return json.loads(command("journal", "audit", self.audit, "--json"))["records"]

    def wait_for(self, what, **fields):
        """Until a record has these fields; it is returned."""
        found = []

        def is_there():
            found[:] = [one for one in self.records() if all(one[name] == value for name, value in fields.items())]
            return found

        wait_until(is_there, what)
        return found[0]


def refused(act):
    try:
        act()
    except optserve.Error:
        return
    sys.exit("FAILED: expected a refusal")


def check_actions(scheduler):
    with scheduler.client("ops") as ops, scheduler.client("shop") as shop:
        ops.control("pause")
        paused = scheduler.wait_for("an operator's pause", action="pause", outcome="done")
        expect((paused["key"], paused["object"], paused["peer"]) == ("ops", "queue", "127.0.0.1"), "with who and where")
        expect(abs(time.time() - time.mktime(time.strptime(paused["time"][:19] + " UTC", "%Y-%m-%dT%H:%M:%S %Z"))
                   + time.timezone) < 600, "and when, in UTC")
        refused(lambda: shop.control("resume"))
        tried = scheduler.wait_for("a tenant's attempt", action="resume", outcome="refused")
        expect((tried["key"], tried["tenants"]) == ("shop", "shop") and "not allowed" in tried["reason"], "with why")
        job = shop.submit([2, 5, 6], max_new_tokens=8)
        ops.cancel(job)
        cancelled = scheduler.wait_for("a cancel of a tenant's job", action="cancel", outcome="done")
        expect(cancelled["object"] == f"job {job.id} of tenant 'shop'", "names the job and its tenant")
        ops.purge(tenant="shop")
        scheduler.wait_for("a purge", action="purge", outcome="done", reason="1 jobs purged")
        refused(lambda: ops.control("pause", model=HOSTILE))
        scheduler.wait_for("a hostile name", object="model " + HOSTILE, outcome="refused")
    lines = scheduler.audit.read_bytes().splitlines()
    expect(all(json.loads(line)["action"] for line in lines), "each line is one record")
    table = command("journal", "audit", scheduler.audit)
    expect("\x1b" not in table and "\\u001b[2J" in table, "and the table shows it without its effect")
    expect(scheduler.audit.stat().st_mode & 0o777 == 0o600, "the file is its owner's alone")


def check_files_that_change(scheduler):
    scheduler.allow("late", "operator")
    scheduler.wait_for("a key that is allowed", object="allowed keys", reason="added late (operator)")
    scheduler.write_quotas("tenant=shop jobs=10\n")
    scheduler.wait_for("quotas that change", object="tenant quotas", reason="added shop; changed *")
    scheduler.write_quotas("nonsense\n")
    scheduler.wait_for("quotas that are not read", object="tenant quotas", outcome="refused")


def check_log_that_cannot_be_written(scheduler):
    kept = scheduler.audit.rename(scheduler.folder / "kept")
    scheduler.audit.mkdir()
    with scheduler.client("ops") as ops:
        ops.control("resume")
        expect(True, "an action is not held up by a log that cannot be written")
        wait_until(lambda: scheduler.metric("optserve_audit_failures_total") > 0, "which a metric says")
        wait_until(lambda: "audit_not_written" in scheduler.log.read_text(encoding="utf-8"), "and the log")
        scheduler.audit.rmdir()
        scheduler.wait_for("what waited is written", action="resume", outcome="done")
        expect(scheduler.metric("optserve_audit_lost_total") == 0, "and nothing is lost")
    both = json.loads(command("journal", "audit", scheduler.audit, kept, "--limit", "1000", "--json"))
    expect(both["unreadable"] == 1 and both["records"][-1]["action"] == "start", "logs are merged")


def main():
    with tempfile.TemporaryDirectory(prefix="optserve-audit-") as name:
        forget_variables()
        scheduler = Scheduler(pathlib.Path(name))
        scheduler.expect_no_start("audit-log", "a folder that is not there ends it", "--audit-log",
                                  "/no/such/folder/audit")
        scheduler.start()
        try:
            check_actions(scheduler)
            before = scheduler.records()
            scheduler.end(signal.SIGKILL)
            expect(scheduler.records() == before, "a kill takes nothing back")
            with open(scheduler.audit, "ab") as log:
                log.write(b'{"time":"2026-')  # as a loss of power leaves it
            scheduler.start()
            wait_until(lambda: scheduler.records()[0]["action"] == "start", "a start is written")
            expect(scheduler.records()[1:] == before, "after what was there")
            expect("1 lines are no records" in command("journal", "audit", scheduler.audit), "half a line is told")
            check_files_that_change(scheduler)
            check_log_that_cannot_be_written(scheduler)
            scheduler.end(signal.SIGTERM)
            expect([one["outcome"] for one in scheduler.records() if one["action"] == "stop"] == ["done", "begun"],
                   "an end in order is written")
            command("journal", "audit", scheduler.folder / "nothing", status=1)
            command("journal", "audit", scheduler.log, status=1)
            expect(True, "what is no audit log is refused")
        finally:
            scheduler.end(signal.SIGKILL)


if __name__ == "__main__":
    main()

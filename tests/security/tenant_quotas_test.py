#!/usr/bin/env python3
"""Quotas of tenants at a real scheduler: what is refused and how it is told, also after a kill, and a file that changes
while the scheduler runs.

usage: tenant_quotas_test.py FOLDER_OF_PROGRAMS SOURCE_FOLDER
"""

import json
import pathlib
import sys
import tempfile
import time

PROGRAMS, SOURCES = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])
sys.path.insert(0, str(SOURCES / "tests/e2e"))
sys.path.insert(0, str(SOURCES / "libs/pyclient/src"))

from local_stack import LIMIT_SECONDS, expect  # noqa: E402: the paths have to be known first
from lone_scheduler import LoneScheduler, forget_variables, wait_until  # noqa: E402

import optserve  # noqa: E402

HASTY_SECONDS = 3  # in which a client that is put off comes again


class Scheduler(LoneScheduler):
    def events(self, name):
        lines = (json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines())
        return [line for line in lines if line.get("event") == name]


def client(scheduler, tenant, seconds=LIMIT_SECONDS):
    return optserve.Client(scheduler.endpoint, model="opt", tenant=tenant, timeout=seconds)


def refusal(scheduler, tenant, act, kind):
    """The error that `act` gets from a client that gives up soon. A busy machine may leave some calls unanswered."""
    end = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < end:
        with client(scheduler, tenant, HASTY_SECONDS) as hasty:
            try:
                act(hasty)
                break
            except optserve.Unavailable:
                pass
            except kind as error:
                return error
    return sys.exit(f"FAILED: expected {kind.__name__}")


def is_refused(ask):
    try:
        ask()
        return False
    except optserve.Busy as error:
        return "messages-per-minute" in str(error)
    except optserve.Unavailable:
        return False


def check_held(scheduler):
    with client(scheduler, "shop") as shop:
        for number in range(2):
            shop.submit([2, 5, 6], key=f"job-{number}", max_new_tokens=8, ttl_ms=3_600_000)
        busy = refusal(scheduler, "shop", lambda hasty: hasty.submit([2, 5, 6], max_new_tokens=8), optserve.Busy)
        expect("the quota of tenant 'shop' is 2 jobs" in str(busy), "a refusal names the limit")
        expect(busy.retry_after and busy.retry_after > 0, "and says when to come back")
        expect(shop.submit([2, 5, 6], key="job-1", max_new_tokens=8, ttl_ms=3_600_000).duplicate,
               "what was accepted before is known")
        wrong = refusal(scheduler, "shop", lambda hasty: hasty.submit([2], key="job-1", priority=9, max_new_tokens=8),
                        optserve.Error)
        expect(not isinstance(wrong, optserve.Busy), "another payload is a conflict")
    with client(scheduler, "another") as another:
        another.submit([2, 5, 6], max_new_tokens=8)
        bad = refusal(scheduler, "another", lambda hasty: hasty.submit([2], priority=6, max_new_tokens=8),
                      optserve.BadRequest)
        expect("priority is 6" in str(bad), "those without a line have the limits of tenant=*")


def check_changes(scheduler):
    with client(scheduler, "shop") as shop:
        scheduler.write_quotas("tenant=shop jobs=many\n")
        wait_until(lambda: scheduler.events("tenant_quotas_not_read"), "a file with a fault is in the log")
        expect("line 1" in scheduler.events("tenant_quotas_not_read")[0]["cause"], "with its line")
        refusal(scheduler, "shop", lambda hasty: hasty.submit([2, 5, 6], max_new_tokens=8), optserve.Busy)
        expect(True, "and the quotas before it hold")
        scheduler.write_quotas("tenant=shop jobs=3 messages-per-minute=20\n")
        wait_until(lambda: scheduler.events("tenant_quotas_read"), "a file that changes is read")
        job = shop.submit([2, 5, 6], max_new_tokens=8)
        expect(job.id, "and holds at once")
    with client(scheduler, "shop", HASTY_SECONDS) as hasty:
        wait_until(lambda: is_refused(lambda: hasty.get(job.id)), "a flood of questions meets the rate")
    wait_until(lambda: 'optserve_tenant_jobs{tenant="shop"} 3' in (scheduler.get("/metrics") or ""),
               "metrics count the jobs of a tenant")
    expect('tenant="another"' not in scheduler.get("/metrics"), "with names from the file alone")


def main():
    with tempfile.TemporaryDirectory(prefix="optserve-quotas-") as name:
        forget_variables()
        scheduler = Scheduler(PROGRAMS, pathlib.Path(name))
        scheduler.write_quotas("tenant=shop job=2\n")
        scheduler.expect_no_start("line 1", "no start with a file that has a fault")
        scheduler.write_quotas("tenant=* priority=5\ntenant=shop jobs=2\n")
        scheduler.start()
        try:
            check_held(scheduler)
            scheduler.end()
            scheduler.start()
            check_held(scheduler)
            check_changes(scheduler)
        finally:
            scheduler.end()


if __name__ == "__main__":
    main()

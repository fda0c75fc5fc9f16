#!/usr/bin/env python3
"""Prometheus scrapes a whole system while load runs and faults are made: every panel's query gives data, every alert of
the faults fires and clears, and no other alert fires. A minute of the rules is a second here.

usage: live_test.py FOLDER_OF_PROGRAMS SOURCE_FOLDER
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import promql_names
from prometheus import Prometheus, shorter_rules
from system import System, expect, fail, wait_until

DISK_BYTES = 160 << 20
# Numbers of seconds in expressions are not durations that can be scaled automatically: they are listed here.
CONSTANTS = {"OptserveQueueOld": {"> 60": "> 6"},
             "OptserveJournalDiskFilling": {"< 1e9": "< 30e6", "4 * 3600": "4 * 60"}}
# Their windows are days, so that they do not clear within a test; rules_test.py has their cases.
LEFT_OUT = {"OptserveAvailabilityBurnsSlowly", "OptserveFirstTokenBurnsSlowly"}
# Whatever holds jobs back may also make first tokens late, and attempts or requests fail. The only group is missed
# while it starts again, and so is what was killed: the rules wait for a minute, which is a second here.
MAY_FOLLOW = {"OptserveAvailabilityBurnsFast", "OptserveFirstTokenBurnsFast", "OptserveFirstTokenSlow",
              "OptserveHttpErrors", "OptserveJobsFailing", "OptserveLeasesLost", "OptserveNoGroup", "OptserveQueueOld",
              "OptserveRefusingJobs", "OptserveServiceLost", "OptserveTargetDown"}
# Metrics on the dashboards that this test's system does not have.
EXTERNAL = "DCGM_"


class Load:
    """Streams of completions that never end, and a number of jobs that nobody waits for."""

    def __init__(self, system, streams):
        self.system, self.is_over = system, threading.Event()
        self.counts = {}
        self.threads = [threading.Thread(target=self.run, args=(number,), daemon=True) for number in range(streams)]
        for thread in self.threads:
            thread.start()

    def run(self, number):
        story = "Once upon a time there was a small house at the end of the road. " * 2
        while not self.is_over.is_set():
            body = {"model": "demo", "prompt": f"{story}{number}", "max_tokens": 12, "ignore_eos": True, "stream": True}
            status, _ = self.system.post("/v1/completions", body, timeout=90)
            self.counts[status] = self.counts.get(status, 0) + 1
            self.is_over.wait(0.1 if status == 200 else 0.5)

    def submit(self, count):
        for number in range(count):
            self.system.post("/v1/jobs", {"model": "demo", "prompt": f"Job {number}", "max_new_tokens": 8})

    def end(self):
        self.is_over.set()
        for thread in self.threads:
            thread.join(90)


class Watch:
    """Which alerts have fired; one that nobody expects ends the test."""

    def __init__(self, prometheus):
        self.prometheus = prometheus
        self.allowed, self.seen = set(), set()

    def look(self):
        firing = self.prometheus.firing()
        if firing - self.allowed:
            details = [one for one in self.prometheus.ask("alerts")["alerts"] if one["state"] == "firing"]
            fail(f"fires without a fault of its own: {sorted(firing - self.allowed)}\n{json.dumps(details, indent=1)}")
        self.seen |= firing
        return firing

    def fault(self, what, expected, undo=None):
        """Waits until all that is expected fires, undoes the fault, and waits until it has cleared."""
        begun = time.monotonic()
        self.allowed = expected | MAY_FOLLOW
        seen = set()
        wait_until(lambda: not expected - (seen.update(self.look()) or seen), f"{what}: {sorted(expected)} fire", 40)
        fired_s = time.monotonic() - begun
        if undo:
            undo()
        wait_until(lambda: not self.look() & expected, f"{what}: {sorted(expected)} clear")
        print(f"ok: {what}: {', '.join(sorted(expected))} fire within {fired_s:.0f} s, and clear after "
              f"{time.monotonic() - begun:.0f} s", flush=True)


def baseline(system, watch):
    """Twelve seconds of load, a conversion and a backup, without an alert."""
    time.sleep(3)  # counters are seen before they grow
    converted = system.optserve("convert", str(system.folder / "opt"), str(system.folder / "again"), "--remote")
    expect(converted.returncode == 0, f"a conversion as a job {converted.stderr if converted.returncode else ''}")
    for _ in range(12):
        watch.look()
        time.sleep(1)
    expect(not watch.seen, "no alert fires while all is well")


def kill_a_rank(system, watch):
    os.kill(system.rank_pids()[1], signal.SIGKILL)
    bad = system.folder / "bad"
    bad.mkdir(exist_ok=True)
    system.optserve("convert", str(bad), str(system.folder / "nothing"), "--remote")
    watch.fault("a killed rank and a folder that is no checkpoint", {"OptserveGroupLost", "OptserveConversionFailed"})


def stop_the_tokenizer(system, watch):
    process = system.processes["tokenizer"]
    process.send_signal(signal.SIGSTOP)
    watch.fault("a tokenizer that stands still", {"OptserveTargetDown", "OptserveServiceLost", "OptserveNoTokenizer"},
                lambda: process.send_signal(signal.SIGCONT))


def fill_the_queue(system, watch, load):
    expect(system.stop("worker") == 0, "the worker drains and ends with 0")
    load.submit(80)
    stop = threading.Event()

    def go_on():
        while not stop.wait(0.3):
            load.submit(1)

    more = threading.Thread(target=go_on, daemon=True)
    more.start()

    def undo():
        stop.set()
        more.join()
        system.start("worker")

    watch.fault("no worker, and a queue that fills up", {
        "OptserveNoGroup", "OptserveQueueOld", "OptserveRefusingJobs", "OptserveAvailabilityBurnsFast",
        "OptserveTargetDown"}, undo)
    system.wait_ready("worker")


def fill_the_disk(system, watch):
    ballast = system.folder / "journal/ballast"
    room = os.statvfs(ballast.parent)
    with open(ballast, "wb") as file:
        left = room.f_bavail * room.f_frsize - (64 << 10)
        os.posix_fallocate(file.fileno(), 0, left)
    watch.fault("a full disk of the journal", {"OptserveJournalDiskFull", "OptserveJournalDiskFilling",
                                               "OptserveRefusingJobs"}, ballast.unlink)


def kill_the_scheduler(system, watch):
    system.stop("scheduler", signal.SIGKILL)
    watch.fault("a killed scheduler", {"OptserveTargetDown", "OptserveNoScheduler", "OptserveGatewayWithoutScheduler"},
                lambda: system.start("scheduler", *SCHEDULER))


SCHEDULER = ["--open-jobs-max", "60", "--slow-job-seconds", "3"]


def check_dashboards(sources, prometheus, start):
    """Every query gives a number at some time of the test; what it names exists."""
    known = prometheus.known_names()
    end = time.time()
    count = 0
    for path in sorted((sources / "deploy/monitoring/dashboards").glob("*.json")):
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            for target in panel["targets"]:
                expression = target["expr"].replace("$__rate_interval", "10s")
                for variable in ("$model", "$instance"):
                    expression = expression.replace(variable, ".*")
                if EXTERNAL in expression:
                    continue
                faults = promql_names.faults_of(expression, known)
                if faults:
                    fail(f"{path.name}: {panel['title']}: {faults}")
                if not prometheus.values(expression, start, end):
                    fail(f"{path.name}: {panel['title']}: no data for {expression}")
                count += 1
    expect(count > 100, f"all {count} queries of the panels give data, and what they name exists")
    return known


def check_rules(rules, known):
    wrong = {}
    for group in rules["groups"]:
        for rule in group["rules"]:
            faults = promql_names.faults_of(rule["expr"], known)
            if faults:
                wrong[rule.get("alert") or rule["record"]] = faults
    expect(not wrong, f"what the rules name exists {wrong or ''}")
    # The check of names must notice each kind of mistake.
    for expression, word in [("sum(optserve_jobz)", "optserve_jobz"), ('optserve_jobs{stag="waiting"}', "stag"),
                             ('optserve_jobs{stage="sleeping"}', "sleeping"),
                             ("sum by (modle) (optserve_jobs)", "modle"),
                             ('rate(optserve_jobs_ended_total{state=~"dead|gone"}[5m])', "gone")]:
        if not any(word in fault for fault in promql_names.faults_of(expression, known)):
            fail(f"the check of names does not notice {word} in {expression}")
    print("ok: the check of names notices a wrong metric, label and value", flush=True)


def check_annotations(prometheus):
    """What people would read about each alert that the test has seen, from the last evaluation of its rule."""
    for group in prometheus.ask("rules")["groups"]:
        for rule in group["rules"]:
            if rule["health"] != "ok":
                fail(f"the rule {rule['name']}: {rule.get('lastError')}")
    expect(True, "every rule can be evaluated")


def check_slow_jobs(system):
    lines = system.log_lines("scheduler", "job_slow")
    expect(lines and all(len(line["job"]) == 32 for line in lines), "slow jobs are in the log with their ids")
    requests = system.log_lines("gateway", "request")
    slow = {line["job"] for line in lines}
    expect(any(slow & set(one["job"].split(",")) for one in requests if one.get("job")),
           "the request of a slow job is in the gateway's log under the job's id")


def run(programs, sources, folder):
    sys.path.insert(0, str(sources / "deploy/monitoring"))
    import make_rules

    rules = shorter_rules(make_rules.rules(), CONSTANTS, LEFT_OUT)
    with System(programs, sources, folder) as system:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "journal", str(folder / "journal")],
                       check=True)
        (folder / "backups").mkdir()
        SCHEDULER.extend(["--backup-folder", str(folder / "backups"), "--backup-seconds", "5"])
        system.start_all(scheduler=SCHEDULER)
        system.wait_ready()
        start = time.time()
        with Prometheus(folder, system.targets(), rules) as prometheus:
            wait_until(lambda: prometheus.ask("query", query="count(up == 1) == 7")["result"], "all are scraped")
            wait_until(lambda: not prometheus.firing(), "what fires before the first scrape has cleared")
            load = Load(system, 8)  # more than the group runs at a time, so that its speed is measured
            watch = Watch(prometheus)
            baseline(system, watch)
            kill_a_rank(system, watch)
            stop_the_tokenizer(system, watch)
            fill_the_queue(system, watch, load)
            fill_the_disk(system, watch)
            kill_the_scheduler(system, watch)
            wait_until(lambda: not watch.look(), "all alerts have cleared")
            print(f"ok: all alerts have cleared; {len(watch.seen)} had fired", flush=True)
            known = check_dashboards(sources, prometheus, start)
            check_rules(rules, known)
            check_annotations(prometheus)
            load.end()
            print(f"load: answers by status {load.counts}", flush=True)
        check_slow_jobs(system)


def main():
    programs, sources = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])
    if len(sys.argv) == 3:  # once more in a namespace, where a small disk may be mounted
        as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        sys.exit(subprocess.run(["unshare", *as_root, "--mount", sys.executable, "-B", *sys.argv, "inside"],
                                check=False).returncode)
    with tempfile.TemporaryDirectory(prefix="optserve-monitoring-") as name:
        folder = pathlib.Path(name)
        try:
            run(programs, sources, folder)
        finally:
            if os.environ.get("OPTSERVE_TEST_KEEP"):
                shutil.copytree(folder, os.environ["OPTSERVE_TEST_KEEP"], dirs_exist_ok=True)
            subprocess.run(["umount", "--lazy", str(folder / "journal")], check=False, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()

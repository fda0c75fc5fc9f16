#!/usr/bin/env python3
"""What a container engine and Kubernetes rely on: exit statuses, the termination message, process 1, drains, IPv6,
names that move, and a startup probe that shows how far the load is.

usage: container_test.py FOLDER_OF_PROGRAMS SOURCE_FOLDER
"""

import atexit
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from system import HOST, System, expect, fail, free_port, get, wait_until

USAGE, FAILED, CONFIGURATION = 2, 1, 78
SERVICES = {"scheduler": ["--volatile", "--bind-clients", "tcp://127.0.0.1:0", "--bind-services", "tcp://127.0.0.1:0"],
            "tokenizer": ["--model", "demo=MODEL"], "worker": ["--model", "demo=MODEL"],
            "gateway": ["--http", "127.0.0.1:0"], "converter": ["--root", "FOLDER"]}


def bad_starts(taken_port):
    """(service, arguments, variables, status, a word of the message). Arguments are added to those that work."""
    for service in SERVICES:
        variable = f"OPTSERVE_{service.upper()}_HTTP_PORT"
        yield service, ["--no-such-option", "1"], {}, USAGE, "no-such-option"
        yield service, ["--http-port", "99999"], {}, USAGE, "http-port"
        yield service, ["--http-port", "many"], {}, USAGE, "http-port"
        yield service, [], {variable: "99999"}, CONFIGURATION, variable
        yield service, ["--config", "/nowhere.yaml"], {}, CONFIGURATION, "/nowhere.yaml"
        yield service, ["--config", "FOLDER/bad.yaml"], {}, CONFIGURATION, "bad.yaml"
        yield service, ["--http-address", "nonsense"], {}, CONFIGURATION, "nonsense"
        yield service, ["--http-port", str(taken_port)], {}, FAILED, str(taken_port)
    yield "scheduler", ["--journal", "/nowhere/journal.db"], {}, CONFIGURATION, "/nowhere"
    yield "scheduler", ["--journal", "FOLDER/journal.db", "--backup-folder", "/nowhere"], {}, \
        CONFIGURATION, "/nowhere"
    yield "scheduler", ["--tenant-weights", "a=many"], {}, CONFIGURATION, "many"
    yield "scheduler", ["--bind-clients", "nonsense"], {}, CONFIGURATION, "nonsense"
    yield "scheduler", ["--bind-clients", f"tcp://127.0.0.1:{taken_port}"], {}, FAILED, str(taken_port)
    for service in ("tokenizer", "worker", "converter"):
        yield service, ["--scheduler", "nonsense"], {}, CONFIGURATION, "nonsense"
    for service in ("tokenizer", "worker", "gateway"):
        yield service, ["--model", "demo=/nowhere"], {}, CONFIGURATION, "/nowhere"
    yield "gateway", ["--scheduler", "nonsense"], {}, CONFIGURATION, "nonsense"
    yield "gateway", ["--keys", "/nowhere"], {}, CONFIGURATION, "/nowhere"
    yield "gateway", ["--tls-certificate", "/nowhere", "--tls-key", "/nowhere"], {}, CONFIGURATION, "/nowhere"
    yield "gateway", ["--tls-certificate", "FOLDER/bad.yaml"], {}, CONFIGURATION, "tls-key"
    yield "gateway", ["--http", "0.0.0.0:0"], {}, CONFIGURATION, "keys"
    yield "gateway", ["--http", "nonsense"], {}, CONFIGURATION, "nonsense"
    yield "converter", ["--root", "/nowhere"], {}, CONFIGURATION, "/nowhere"


def check_bad_start(system, case):
    service, arguments, variables, status, word = case
    folder = system.folder
    given = [one for one in SERVICES[service] if not (service == "converter" and "--root" in arguments)]
    if "--journal" in arguments:
        given = [one for one in given if one != "--volatile"]
    if "--model" in arguments and "--model" in given:
        given = []
    if arguments[:1] in (["--http"], ["--bind-clients"]):
        at = given.index(arguments[0])
        given = given[:at] + given[at + 2:]
    words = [one.replace("MODEL", str(system.checkpoint)).replace("FOLDER", str(folder)) for one in given + arguments]
    message_file = folder / "termination-log"
    message_file.write_text("what an earlier start has left\n", encoding="utf-8")
    program = [system.programs / f"optserve-{service}"] + (["serve"] if service == "converter" else [])
    log = {f"OPTSERVE_{service.upper()}_TERMINATION_LOG": str(message_file)}
    done = subprocess.run([*program, *words], env=os.environ | variables | log, capture_output=True, text=True,
                          timeout=60, check=False)
    message = message_file.read_text(encoding="utf-8")
    what = f"{service} {' '.join(arguments)} {variables or ''}"
    if done.returncode != status:
        fail(f"{what} ended with {done.returncode}, expected {status}:\n{done.stderr}")
    if word not in message or message.count("\n") != 1:
        fail(f"{what}: the termination message is {message!r}, expected one line with {word}")


def check_exit_statuses(system):
    (system.folder / "bad.yaml").write_text("no-such-key: 1\n", encoding="utf-8")
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        cases = list(bad_starts(taken.getsockname()[1]))
        for case in cases:
            check_bad_start(system, case)
    print(f"ok: {len(cases)} bad starts: 2 for the command line, 78 for the configuration, 1 for what may pass, and "
          "one line in the termination log", flush=True)
    for program, arguments, status in [
            ("optserve", ["--no-such-option"], USAGE), ("optserve", ["generate", "x", "--temperature", "hot"], USAGE),
            ("optserve", ["--config", "/nowhere.yaml", "status"], CONFIGURATION),
            ("optserve-converter", ["convert", "/nowhere", str(system.folder / "out")], FAILED),
            ("optserve-converter", ["convert"], USAGE), ("optserve-gateway", ["new-key"], USAGE)]:
        done = subprocess.run([system.programs / program, *arguments], capture_output=True, text=True, timeout=60,
                              check=False)
        if done.returncode != status:
            fail(f"{program} {arguments} ended with {done.returncode}, expected {status}: {done.stderr}")
    print("ok: commands tell wrong usage and wrong configuration from failures", flush=True)


def namespace(*options):
    """A command that runs the following one in namespaces of its own, with root's rights in them."""
    return ["unshare", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), *options]


def children_of(pid):
    return [int(one) for one in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def state_of(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def check_first_process(system):
    """The scheduler as process 1 of a container: orphans are reaped, signals arrive, its end is told truly."""
    port = free_port()
    command = [str(system.programs / "optserve-scheduler"), *SERVICES["scheduler"], "--http-port", str(port)]

    def start():
        outer = subprocess.Popen([*namespace("--pid", "--fork", "--kill-child", "--mount-proc"), *command],
                                 stderr=subprocess.DEVNULL)
        atexit.register(outer.kill)
        wait_until(lambda: get(port, "/readyz")[0] == 200, "process 1 is ready")
        return outer, children_of(outer.pid)[0]

    outer, first = start()
    enter = ["nsenter", "--target", str(first), "--pid", "--mount"] + (
        ["--user", "--preserve-credentials"] if os.geteuid() != 0 else [])
    subprocess.run([*enter, "sh", "-c", "(sleep 0.3 &) ; (sleep 0.3 &)"], check=True)
    orphans = wait_until(lambda: [one for one in children_of(first)
                                  if "sleep" in pathlib.Path(f"/proc/{one}/comm").read_text()],
                         "the orphans belong to process 1")
    wait_until(lambda: all(state_of(one) == "" for one in orphans), "the orphans are reaped", 5)
    os.kill(first, signal.SIGTERM)
    expect(outer.wait(20) == 0, "process 1 of a container reaps orphans, and SIGTERM ends it with 0")
    outer, first = start()
    os.kill(children_of(first)[0], signal.SIGABRT)
    expect(outer.wait(20) == 128 + signal.SIGABRT, "process 1 ends as the program does, with 134 after an abort")


def stream(system, tokens, results):
    body = {"model": "demo", "prompt": "Once upon a time", "max_tokens": tokens, "ignore_eos": True, "stream": True}
    results.append(system.post("/v1/completions", body))


def is_at_work(system):
    lines = get(system.ports["worker"] + 1, "/metrics")[1].splitlines()
    return any(line.startswith("optserve_worker_running_sequences{") and not line.endswith(" 0") for line in lines)


def check_drains(system):
    """Idle, each process ends at once; with work, when that is done. Always with 0."""
    times = []
    results = []
    for name in ("worker", "gateway", "scheduler"):
        thread = threading.Thread(target=stream, args=(system, 200, results))
        thread.start()
        wait_until(lambda: is_at_work(system), "a job runs")
        begun = time.monotonic()
        status = system.stop(name)
        times.append(f"{name} busy {time.monotonic() - begun:.2f} s")
        if status != 0:
            fail(f"{name} ended with {status} while it had work")
        if name != "gateway":
            system.start(name)
        thread.join()
        if name == "gateway":
            system.start(name)
        system.wait_ready()
    expect(len(results) == 3 and all(status == 200 and "[DONE]" in text and '"error"' not in text
                                     for status, text in results), "streams are complete through drains")
    for name in ("converter", "gateway", "worker", "tokenizer", "scheduler"):
        begun = time.monotonic()
        status = system.stop(name)
        seconds = time.monotonic() - begun
        times.append(f"{name} idle {seconds:.2f} s")
        if status != 0 or seconds > 15:
            fail(f"{name} ended with {status} after {seconds:.1f} s although it had nothing to do")
    print(f"ok: drains end with 0: {', '.join(times)}", flush=True)


def check_startup(system):
    """A load that takes a moment shows how far it is; before it is over, the process has not started."""
    port = free_port()
    worker = subprocess.Popen(
        [system.programs / "optserve-worker", "--random-weights", "--model", "opt-125m", "--threads", "1",
         "--http-port", str(port), "--rank-http-port", "0", "--scheduler", "tcp://127.0.0.1:1", "--kv-memory-mb", "64"],
        stderr=subprocess.DEVNULL)
    seen = []
    try:
        def has_started():
            status, text = get(port, "/startupz")
            if status == 503 and " of " in text and text not in seen:
                seen.append(text)
                if get(port, "/livez")[0] != 200:
                    fail("a worker that loads is not alive")
                if get(port, "/readyz")[0] != 503:
                    fail("a worker that loads is ready")
            return status == 200
        wait_until(has_started, "the worker has loaded")
        bytes_loaded = [int(text.split("loaded ")[1].split(" ")[0]) for text in seen]
        expect(len(seen) > 1 and bytes_loaded == sorted(bytes_loaded), f"/startupz shows the load: {seen[-1].strip()}")
        status, text = get(port, "/readyz")
        expect(status == 503 and "not registered" in text, "a loaded worker without a scheduler has started, not more")
    finally:
        worker.terminate()
        worker.wait(20)


def check_readiness(system):
    """Ready is a group of which all ranks can generate."""
    os.kill(system.rank_pids()[1], signal.SIGKILL)
    wait_until(lambda: not system.is_ready("worker"), "a group that has lost a rank is not ready")
    system.wait_ready("worker")
    status, _ = system.post("/v1/completions", {"model": "demo", "prompt": "x", "max_tokens": 2})
    expect(status == 200, "a worker is ready only with its whole group")


def check_ipv6(programs, sources, folder):
    try:
        free_port("::1")
    except OSError:
        print("skipped: this machine has no IPv6", flush=True)
        return
    with System(programs, sources, folder, host="::1") as system:
        system.start_all()
        system.wait_ready()
        status, _ = system.post("/v1/completions", {"model": "demo", "prompt": "Once", "max_tokens": 3})
        expect(status == 200, f"a system that listens and connects over IPv6 alone answers ({status})")
        done = system.optserve("status")
        expect(done.returncode == 0, f"and so does its command line {done.stderr}")


def check_moving_name(programs, sources, folder):
    """Runs in a mount namespace, where /etc/hosts is a file of the test."""
    hosts = folder / "hosts"

    def name_is_at(address):
        hosts.write_text(f"127.0.0.1 localhost\n{address} moving-scheduler\n", encoding="utf-8")

    name_is_at("127.0.0.2")
    subprocess.run(["mount", "--bind", str(hosts), "/etc/hosts"], check=True)
    with System(programs, sources, folder) as system:
        system.scheduler_name, system.scheduler_bind = "moving-scheduler", "127.0.0.2"
        system.start_all()
        system.wait_ready()
        system.stop("scheduler", signal.SIGKILL)
        wait_until(lambda: not system.is_ready("gateway") and not system.is_ready("tokenizer"), "the loss is seen")
        name_is_at("127.0.0.3")
        system.scheduler_bind = "127.0.0.3"
        system.start("scheduler")
        begun = time.monotonic()
        system.wait_ready()
        seconds = time.monotonic() - begun
        status, _ = system.post("/v1/completions", {"model": "demo", "prompt": "Once", "max_tokens": 3})
        expect(status == 200, f"a scheduler that moves to another address is found again, here within {seconds:.1f} s")


def main():
    programs, sources = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])
    with tempfile.TemporaryDirectory(prefix="optserve-container-") as name:
        folder = pathlib.Path(name)
        if sys.argv[3:] == ["moving"]:
            check_moving_name(programs, sources, folder)
            return
        with System(programs, sources, folder) as system:
            check_exit_statuses(system)
            check_first_process(system)
            check_startup(system)
            system.start_all()
            system.wait_ready()
            check_readiness(system)
            check_drains(system)
        (folder / "six").mkdir()
        check_ipv6(programs, sources, folder / "six")
    done = subprocess.run([*namespace("--mount"), sys.executable, "-B", *sys.argv, "moving"], check=False)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()

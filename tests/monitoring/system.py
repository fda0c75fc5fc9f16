"""A whole system of real processes, whose arguments a test chooses, and what is asked of it over HTTP."""

import http.client
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from ports import HOST, free_port

LIMIT_SECONDS = 60


def fail(what):
    sys.exit(f"FAILED: {what}")


def expect(condition, what):
    if not condition:
        fail(what)
    print(f"ok: {what}", flush=True)


def wait_until(condition, what, seconds=LIMIT_SECONDS):
    """The first true value of `condition`."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            fail(f"not within {seconds} s: {what}")
        time.sleep(0.05)


def ask(host, port, timeout, *request):
    """(status, text); (0, reason) if nothing answers."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request(*request)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error)
    finally:
        connection.close()


def get(port, path, host=HOST, timeout=5):
    return ask(host, port, timeout, "GET", path)


def demo_checkpoint(programs, sources, folder):
    """The demo model, converted for up to four ranks."""
    shutil.copytree(sources / "deploy/demo-model", folder / "opt", dirs_exist_ok=True)
    target = folder / "demo"
    done = subprocess.run([programs / "optserve", "convert", folder / "opt", target, "--progress=false"],
                          capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
    if done.returncode != 0:
        fail(f"conversion of the demo model: {done.stderr}")
    return target


class System:
    """Scheduler, tokenizer, worker, gateway and converter, each with its HTTP port. Addresses are those of one host."""

    def __init__(self, programs, sources, folder, host=HOST, compat=False):
        self.programs, self.folder, self.host = programs, folder, host
        self.compat = compat
        self.scheduler_bind = self.scheduler_name = host  # where it listens, and what the others call it
        self.checkpoint = demo_checkpoint(programs, sources, folder)
        self.processes = {}
        self.clients, self.services, self.api = (free_port(host) for _ in range(3))
        self.ports = {name: free_port(host) for name in ("scheduler", "tokenizer", "gateway", "converter")}
        self.ports["worker"] = free_port(host, in_row=3)  # the ranks' ports follow that of the supervisor
        (folder / "journal").mkdir(exist_ok=True)

    def url(self, port, host=None):
        host = host or self.host
        return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"

    def arguments(self, name):
        model = f"demo={self.checkpoint}"
        service = ["--scheduler", self.url(self.services, self.scheduler_name)]
        return {
            "scheduler": ["--bind-clients", self.url(self.clients, self.scheduler_bind),
                          "--bind-services", self.url(self.services, self.scheduler_bind),
                          "--journal", str(self.folder / "journal/journal.db")],
            "tokenizer": [*service, "--model", model],
            "worker": [*service, "--model", model, "--world", "2", "--threads", "1", "--max-sequences", "4"],
            "gateway": ["--scheduler", self.url(self.clients, self.scheduler_name),
                        "--http", self.url(self.api).removeprefix("tcp://"), "--model", model],
            "converter": [*service, "--root", str(self.folder)],
        }[name] + ["--http-address", self.host, "--http-port", str(self.ports[name]), "--log-format", "json",
                   *(["--metrics-compat", "vllm"] if self.compat else []),
                   # A host name may lead anywhere, so it needs keys.
                   *(["--insecure"] if name != "scheduler" and self.scheduler_name != self.host else [])]

    def start(self, name, *more):
        program = [str(self.programs / f"optserve-{name}")] + (["serve"] if name == "converter" else [])
        with open(self.log(name), "ab") as log:
            self.processes[name] = subprocess.Popen([*program, *self.arguments(name), *more], stdout=log, stderr=log)
        return self.processes[name]

    def log(self, name):
        return self.folder / f"{name}.log"

    def print_logs(self, lines=25):
        """The ends of all logs, for the reader of a failed test."""
        for log in sorted(self.folder.glob("*.log")):
            end = log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
            print(f"-- {log.name}:", *end, sep="\n", flush=True)

    def log_lines(self, name, event):
        lines = pathlib.Path(self.log(name)).read_text(encoding="utf-8").splitlines()
        return [line for line in map(json.loads, lines) if line["event"] == event]

    def start_all(self, **more):
        for name in ("scheduler", "tokenizer", "worker", "gateway", "converter"):
            self.start(name, *more.get(name, []))

    def is_ready(self, name):
        return get(self.ports[name], "/readyz", self.host)[0] == 200

    def wait_ready(self, *names):
        for name in names or self.processes:
            wait_until(lambda: self.is_ready(name), f"{name} is ready")

    def stop(self, name, number=signal.SIGTERM):
        """Ends a process and returns its exit status."""
        process = self.processes.pop(name)
        process.send_signal(number)
        return process.wait(LIMIT_SECONDS)

    def rank_pids(self):
        pid = self.processes["worker"].pid
        return [int(one) for one in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def targets(self):
        """What Prometheus scrapes: (name, port)."""
        return [*self.ports.items(), ("rank-0", self.ports["worker"] + 1), ("rank-1", self.ports["worker"] + 2)]

    def post(self, path, body, timeout=LIMIT_SECONDS, **headers):
        return ask(self.host, self.api, timeout, "POST", path, json.dumps(body),
                   {"Content-Type": "application/json", **headers})

    def optserve(self, *command, timeout=LIMIT_SECONDS):
        endpoint = self.url(self.clients, self.scheduler_bind)
        return subprocess.run([self.programs / "optserve", *command, "--scheduler", endpoint],
                              capture_output=True, text=True, timeout=timeout, check=False)

    def __enter__(self):
        return self

    def __exit__(self, failure, *_):
        if failure:
            self.print_logs()
        for process in self.processes.values():
            if process.poll() is None:
                os.kill(process.pid, signal.SIGCONT)
                process.kill()
                process.wait()

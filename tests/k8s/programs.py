"""What the programs themselves say: their options, variables, routes and metrics."""

import json
import pathlib
import re
import subprocess
import time
import urllib.error
import urllib.request

SERVICES = {"optserve-scheduler": "SCHEDULER", "optserve-tokenizer": "TOKENIZER", "optserve-worker": "WORKER",
            "optserve-gateway": "GATEWAY", "optserve-converter": "CONVERTER"}


class Programs:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self._help = {}

    def exists(self, name):
        return (self.folder / name).is_file()

    def flags(self, words):
        """The options of a program or of its command, with both dashes; a switch that is on is also its opposite."""
        words = tuple(words)
        if words not in self._help:
            ran = subprocess.run([self.folder / words[0], *words[1:], "--help-all"], capture_output=True, text=True,
                                 check=True)
            found = set(re.findall(r"^  (?:-\w, )?(--[a-z0-9-]+)", ran.stdout, re.MULTILINE))
            self._help[words] = found | {"--" + flag[5:] for flag in found if flag.startswith("--no-")}
        return self._help[words]

    def have_keys(self):
        """Whether connections to schedulers can have keys."""
        return "--secret-key" in self.flags(["optserve-scheduler"])

    def variables(self, program):
        """The variables that a service reads for its options."""
        words = [program, "serve"] if program == "optserve-converter" else [program]
        prefix = f"OPTSERVE_{SERVICES[program]}_"
        return {prefix + flag[2:].replace("-", "_").upper() for flag in self.flags(words)}

    def ask_scheduler(self, model):
        """Of a scheduler that knows a model: the answers of its routes (path: status) and its metrics (name: label
        names)."""
        arguments = ["--volatile", f"--models={model}", "--bind-clients=tcp://127.0.0.1:*",
                     "--bind-services=tcp://127.0.0.1:*", "--http-port=0", "--log-format=json"]
        process = subprocess.Popen([self.folder / "optserve-scheduler", *arguments], stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True)
        try:
            for line in process.stdout:
                if line.startswith("{") and "http_port" in line:
                    port = json.loads(line)["http_port"]
                    break
            paths = ("/livez", "/readyz", "/startupz", "/metrics", "/nothing")
            statuses = {path: _status(port, path) for path in paths}
            time.sleep(1.5)  # the gauges are set by ticks
            return statuses, _metrics(_body(port, "/metrics"))
        finally:
            process.terminate()
            process.wait()


def _body(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return answer.read().decode()


def _status(port, path):
    try:
        _body(port, path)
        return 200
    except urllib.error.HTTPError as error:
        return error.code


def _metrics(text):
    found = {}
    for line in text.splitlines():
        if match := re.match(r"(\w+)(?:\{(.*)\})? ", line):
            found.setdefault(match[1], {}).setdefault("labels", set()).update(re.findall(r'(\w+)="', match[2] or ""))
    return found

#!/usr/bin/env python3
"""A whole stack of `optserve up` with keys: the command line, the Python client and HTTP use it; who has no key, or not
the right, does not; keys are exchanged and revoked while 32 streams run; and no secret is anywhere but in its file.

usage: keys_stack_test.py FOLDER_OF_PROGRAMS SOURCE_FOLDER
"""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from local_stack import LIMIT_SECONDS, Stack, expect

PROGRAMS, SOURCES = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])
sys.path.insert(0, str(SOURCES / "libs/pyclient/src"))

import optserve  # noqa: E402: the path has to be known first

OPTSERVE = str(PROGRAMS / "optserve")
STREAMS = 32
outputs = []  # of every command, to be searched for secrets


def command(*words, status=0, **variables):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPTSERVE_")}
    done = subprocess.run([OPTSERVE, *words], env={**environment, **variables}, capture_output=True, text=True,
                          timeout=LIMIT_SECONDS)
    outputs.append(done.stdout + done.stderr)
    if done.returncode != status:
        sys.exit(f"optserve {words}\nended with {done.returncode}, expected {status}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


class Authority:
    """The folder of keys of the stack, to which the test adds its own."""

    def __init__(self, stack):
        self.folder = pathlib.Path(stack.run_folder, "keys")
        self.allowed = str(self.folder / "allowed_keys")

    def new(self, name, *rights):
        command("keys", "new", name, "--folder", str(self.folder))
        if rights:
            self.allow(name, *rights)
        return str(self.folder / f"{name}.secret")

    def allow(self, name, *rights):
        command("keys", "allow", str(self.folder / f"{name}.public"), *rights, "--file", self.allowed)

    def revoke(self, name):
        command("keys", "revoke", name, "--file", self.allowed)

    @property
    def server(self):
        return str(self.folder / "scheduler.public")


def refusal_of(kind, act):
    try:
        act()
    except kind as error:
        outputs.append(str(error))
        return str(error)
    return "(no error)"


def check_everybody_works(stack, authority):
    text = command("generate", "Once", "--dir", stack.run_folder, "--max-new-tokens", "8", "--temperature", "0")
    with optserve.Client(stack.endpoint, model="demo") as client:
        result = client.generate("Once", max_new_tokens=8, temperature=0)
        expect(result.text.strip() == text.strip(), "the command line and the Python client get the same text")
    request = urllib.request.Request(stack.api_url + "/v1/completions", headers={"Content-Type": "application/json"},
                                     data=json.dumps({"prompt": "Once", "max_tokens": 8, "temperature": 0}).encode())
    with urllib.request.urlopen(request, timeout=LIMIT_SECONDS) as answer:
        expect(json.load(answer)["choices"][0]["text"] == result.text, "so does HTTP")
    found = command("status", "--scheduler", stack.endpoint, OPTSERVE_SERVER_KEY=authority.server,
                    OPTSERVE_SECRET_KEY=str(authority.folder / "client.secret"))
    expect("worker" in found, "variables name the keys")
    shown = command("keys", "show", authority.allowed)
    expect("gateway" in shown and "client=* operator" in shown, "the list is shown")


def check_nobody_else_does(stack, authority):
    where = ["status", "--scheduler", stack.endpoint, "--timeout-ms", "2000"]
    expect("keys" in command(*where, status=3), "without keys there is no answer, and a hint")
    stranger = authority.new("stranger")
    begun = time.monotonic()
    found = command("status", "--scheduler", stack.endpoint, "--timeout-ms", "30000", "--secret-key", stranger,
                    "--server-key", authority.server, status=3)
    expect("does not allow the key opt-public-" in found, "a stranger is told")
    expect(time.monotonic() - begun < 10, "at once")
    service = ["--scheduler", stack.state["service_endpoint"], "--timeout-ms", "2000", "--secret-key",
               str(authority.folder / "client.secret"), "--server-key", authority.server]
    command("status", *service, status=3)
    expect(True, "the key of a client does not open the port of services")
    with socket.create_connection(stack.endpoint[len("tcp://"):].split(":")) as raw:
        raw.sendall(bytes.fromhex("ff00000000000000017f03004e554c4c") + bytes(48))  # the greeting of the NULL mechanism
        raw.settimeout(5)
        heard = b""
        while more := raw.recv(1000):
            heard += more
        expect(len(heard) <= 64, "plain ZMTP is told nothing but the greeting")
    os.chmod(stranger, 0o644)
    found = command("status", "--scheduler", stack.endpoint, "--secret-key", stranger, "--server-key",
                    authority.server, status=1)
    expect(f"chmod 600 {stranger}" in found, "a secret that others may read is refused, with the command that mends it")
    secret = [line for line in pathlib.Path(stranger).read_text(encoding="utf-8").splitlines() if line[0] != "#"][0]
    found = command("status", "--secret-key", secret, "--server-key", authority.server, status=1)
    expect("command line" in found and secret[11:] not in found, "a secret on the command line is refused, not shown")
    pathlib.Path(stranger).unlink()


def check_rights(stack, authority):
    shop = authority.new("shop", "client=shop")
    with optserve.Client(stack.endpoint, model="demo", secret_key=shop, server_key=authority.server) as client, \
            optserve.Client(stack.endpoint, model="demo") as owner:
        mine = client.generate("Once", max_new_tokens=2)
        expect(mine.tenant == "shop", "the key gives the tenant")
        expect(client.get(mine).job == mine.job, "a tenant sees its job")
        theirs = owner.generate("Once", max_new_tokens=2, tenant="other")
        for act in (client.get, client.cancel, client.attach):
            expect("not known" in refusal_of(optserve.NotFound, lambda: act(theirs)), "and no other")
        expect("not allowed" in refusal_of(optserve.BadRequest, lambda: client.submit("Once", tenant="other")),
               "it submits no job of another tenant")
        expect("not allowed" in refusal_of(optserve.Error, lambda: client.control("pause")), "it does not operate")
        expect({job.tenant for job in owner.jobs()} >= {"shop", "other"}, "an operator lists all jobs")
        expect({job.tenant for job in client.jobs()} == {"shop"}, "a tenant its own")


def check_rotation_and_revocation(stack, authority):
    """32 streams of good keys go on while another key is allowed, and one is revoked with its stream."""
    options = {"max_new_tokens": 200, "ignore_eos": True, "temperature": 0}
    next_key = authority.new("shop-next")
    bad_key = authority.new("bad", "client=bad")
    with optserve.Client(stack.endpoint, model="demo") as good, \
            optserve.Client(stack.endpoint, model="demo", secret_key=bad_key, server_key=authority.server) as bad:
        alone = good.generate("Chapter 0", **options).text
        streams = [good.stream("Chapter 0", **options) for _ in range(STREAMS)]
        lost = bad.stream("Chapter 1", max_new_tokens=1000, ignore_eos=True)
        next(iter(lost))
        told = []
        began = time.monotonic()
        waiting = threading.Thread(target=lambda: told.append(
            (refusal_of(optserve.Unavailable, lambda: lost.result(30)), time.monotonic())))
        waiting.start()
        authority.allow("shop-next", "client=shop")
        revoked = time.monotonic()
        authority.revoke("bad")
        waiting.join()
        expect("does not allow the key" in told[0][0], "who is revoked is told")
        expect(told[0][1] - revoked < 3, f"soon: after {told[0][1] - revoked:.2f} s")
        with optserve.Client(stack.endpoint, model="demo", secret_key=next_key, server_key=authority.server) as client:
            expect(client.generate("Once", max_new_tokens=2).tenant == "shop", "the next key of a tenant is valid")
        texts = {stream.result().text for stream in streams}
        expect(texts == {alone} and all(stream.restarts == 0 for stream in streams),
               f"{STREAMS} streams are what they would have been ({time.monotonic() - began:.1f} s)")
    log = pathlib.Path(stack.run_folder, "scheduler.log").read_text(encoding="utf-8")
    expect("service_lost" not in log, "no service was lost")


def descendants(pid):
    found = [pid]
    for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += descendants(int(child))
    return found


def check_that_secrets_stay(stack, authority):
    secrets = []
    for path in authority.folder.glob("*.secret"):
        expect(path.stat().st_mode & 0o77 == 0, f"{path.name} is its owner's alone")
        secrets += re.findall(r"opt-secret-([0-9a-f]{64})", path.read_text(encoding="utf-8"))
    expect(len(secrets) >= 8, "there are secrets to look for")
    places = {"output": "\n".join(outputs)}
    for path in pathlib.Path(stack.run_folder).rglob("*"):
        if path.is_file() and path.suffix != ".secret":
            places[str(path)] = path.read_bytes().decode("latin-1")
    for process in stack.state["processes"]:
        with urllib.request.urlopen(f"http://127.0.0.1:{process['http_port']}/metrics", timeout=10) as answer:
            places[process["name"] + " metrics"] = answer.read().decode()
        for pid in descendants(process["pid"]):
            for file in ("cmdline", "environ"):
                found = pathlib.Path(f"/proc/{pid}/{file}").read_bytes()
                places[f"{process['name']} {pid} {file}"] = found.decode("latin-1")
    for name, text in places.items():
        for secret in secrets:
            if secret in text or secret[:32] in text:
                sys.exit(f"FAILED: a secret key stands in {name}")
    expect(len(places) > 20, f"no secret in {len(places)} logs, command lines, environments, outputs and metrics")


def main():
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="optserve-keys-") as folder:
        with Stack(PROGRAMS, SOURCES, pathlib.Path(folder)) as stack:
            authority = Authority(stack)
            check_everybody_works(stack, authority)
            check_nobody_else_does(stack, authority)
            check_rights(stack, authority)
            check_rotation_and_revocation(stack, authority)
            check_that_secrets_stay(stack, authority)
    print(f"all in {time.monotonic() - begun:.1f} s")


if __name__ == "__main__":
    main()

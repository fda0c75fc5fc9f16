#!/usr/bin/env python3
"""A gateway under load by `wrk`, and among peers that mean no good: slow ones, half requests, garbage, readers that do
not read. Others are served meanwhile as before, and the gateway holds no more memory than it has to.

usage: hostile_peers_test.py FOLDER_OF_PROGRAMS SOURCE_FOLDER [SEED]
"""

import http.client
import json
import os
import pathlib
import random
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from local_stack import Stack, expect

SLOW_PEERS, GARBAGE, HALVES, READERS = 200, 300, 200, 20
REQUEST_SECONDS = 30  # in which a request has to arrive
LATE_SECONDS = 2.0    # of a request meanwhile, on a busy machine of two cores
GROWTH_MAX_MIB = 96

ODDITIES = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64)),      # TLS
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",                                     # HTTP/2
    b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 5_000 + b"\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n",
    b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n", b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", b"\r\n" * 1_000, b"\x00" * 10_000,
    b"GET / HTTP/1.1\nHost: x\n\n", b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
    b"BREW /v1/completions HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://elsewhere/ HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n"]


class Gateway:
    def __init__(self, stack):
        self.stack = stack
        host, port = urllib.parse.urlsplit(stack.api_url).netloc.split(":")
        self.address = (host, int(port))
        self.pid = stack.pid("gateway")

    def connect(self, receive_bytes=None):
        peer = socket.socket()
        if receive_bytes:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        peer.settimeout(20)
        peer.connect(self.address)
        return peer

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection(*self.address, timeout=60)
        connection.request(method, path, None if body is None else json.dumps(body),
                           {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, json.loads(text) if text.startswith(b"{") else text

    def memory_mib(self):
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))


class Customer(threading.Thread):
    """Somebody who asks decently all the while."""

    BODY = {"model": "demo", "prompt": "Once", "max_tokens": 1, "temperature": 0}

    def __init__(self, gateway):
        super().__init__(daemon=True)
        self.gateway, self.times, self.failures, self.is_over = gateway, [], [], False

    def run(self):
        while not self.is_over:
            begin = time.monotonic()
            try:
                status, answer = self.gateway.ask("POST", "/v1/completions", self.BODY)
                if status != 200:
                    self.failures.append(answer)
            except OSError as error:
                self.failures.append(error)
            self.times.append(time.monotonic() - begin)
            time.sleep(0.05)

    def check(self, what):
        taken, self.times = sorted(self.times), []
        late = taken[int(len(taken) * 0.99)] if taken else 0
        expect(taken and not self.failures and late < LATE_SECONDS,
               f"{what}: {len(taken)} other requests, the slowest of hundred {late * 1000:.0f} ms {self.failures[:1]}")


class SlowPeers(threading.Thread):
    """Each sends a byte of a request now and then, and never all of it."""

    HEADS = [b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + b" " * 1000,
             b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-Slow: " + b"a" * 1000]

    def __init__(self, gateway):
        super().__init__(daemon=True)
        self.peers = [(gateway.connect(), self.HEADS[i % 2]) for i in range(SLOW_PEERS)]
        self.begun = time.monotonic()
        self.ended = []

    def run(self):
        at = 0
        while self.peers and time.monotonic() < self.begun + REQUEST_SECONDS + 15:
            for peer, text in list(self.peers):
                try:
                    peer.send(text[at:at + 1])
                    peer.setblocking(False)
                    answer = peer.recv(4096)
                except BlockingIOError:
                    continue
                except OSError:
                    answer = b""
                self.ended.append((time.monotonic() - self.begun, answer))
                peer.close()
                self.peers.remove((peer, text))
            at += 1
            time.sleep(0.5)


def check_garbage(gateway, pick):
    answered = 0
    for number in range(GARBAGE):
        peer = gateway.connect()
        junk = ODDITIES[number] if number < len(ODDITIES) else pick.randbytes(pick.choice([1, 40, 3000, 60_000]))
        try:
            peer.sendall(junk)
            peer.shutdown(socket.SHUT_WR)
            answer = peer.recv(4096)
        except ConnectionError:
            answer = b""
        peer.close()
        if answer and not re.match(rb"HTTP/1\.1 (4\d\d|5\d\d|100) ", answer):
            expect(False, f"garbage is refused: {junk[:80]!r} got {answer[:80]!r}")
        answered += bool(answer)
    expect(answered > 0, f"{GARBAGE} peers that send garbage: {answered} are told so, the others end")


def check_halves(gateway, pick):
    """Requests whose peers end in the middle, politely or by a reset; some after the whole request."""
    body = json.dumps({"model": "demo", "prompt": "Once", "max_tokens": 400, "ignore_eos": True, "stream": True})
    whole = (f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n" + body).encode()
    for number in range(HALVES):
        peer = gateway.connect()
        peer.sendall(whole if number % 10 == 0 else whole[:pick.randrange(len(whole))])
        if number % 3 == 0:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif number % 3 == 1:
            peer.shutdown(socket.SHUT_WR)
        peer.close()
    end = time.monotonic() + 30
    while True:
        running = [job for job in gateway.ask("GET", "/v1/jobs?state=running&limit=1000")[1]["jobs"]
                   if job["progress_total"] == 400]
        if not running:
            break
        if time.monotonic() > end:
            expect(False, f"jobs of peers that are gone end: {len(running)} still run")
        time.sleep(0.1)
    expect(True, f"{HALVES} peers end in the middle, and so do their jobs")


def check_slow_readers(gateway, customer):
    """Streams that nobody reads, and files of which nobody takes more than the beginning."""
    before = gateway.memory_mib()
    content = b'{"custom_id":"a"}\n' * 500_000  # 9 MB
    boundary = "B"
    form = (f'--{boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--{boundary}\r\n'
            'Content-Disposition: form-data; name="file"; filename="x"\r\n\r\n').encode() + content + b"\r\n--B--\r\n"
    connection = http.client.HTTPConnection(*gateway.address, timeout=60)
    connection.request("POST", "/v1/files", form, {"Content-Type": f"multipart/form-data; boundary={boundary}"})
    file = json.loads(connection.getresponse().read())
    connection.close()
    peers = []
    body = json.dumps({"model": "demo", "prompt": "Once", "max_tokens": 200, "n": 4, "ignore_eos": True,
                       "stream": True})
    for number in range(READERS):
        peer = gateway.connect(receive_bytes=4096)
        if number % 2:
            peer.sendall(f"GET /v1/files/{file['id']}/content HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        else:
            peer.sendall((f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
                          + body).encode())
        peers.append(peer)
    customer.times.clear()
    time.sleep(5)
    grown = gateway.memory_mib() - before
    customer.check(f"{READERS} readers that do not read")
    expect(grown < GROWTH_MAX_MIB, f"the gateway has grown by {grown:.1f} MiB, less than {GROWTH_MAX_MIB}")
    for peer in peers:
        peer.close()


def check_load(gateway, folder):
    if not shutil.which("wrk"):
        sys.exit("FAILED: there is no wrk: deploy/install-deps")
    script = folder / "post.lua"
    script.write_text('wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n'
                      f"wrk.body = [[{json.dumps(Customer.BODY)}]]\n", encoding="utf-8")
    url = f"http://{gateway.address[0]}:{gateway.address[1]}"
    for what, arguments in [("short completions", ["-s", str(script), url + "/v1/completions"]),
                            ("lists of models", [url + "/v1/models"])]:
        done = subprocess.run(["wrk", "-t1", "-c32", "-d2s", "--timeout", "20s", *arguments], capture_output=True,
                              text=True, timeout=60)
        rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
        expect(rate and float(rate[1]) > 1 and "Socket errors" not in done.stdout and "Non-2xx" not in done.stdout,
               f"wrk, 32 connections: {rate[1] if rate else 0} {what} a second"
               + ("" if "errors" not in done.stdout and "Non-2xx" not in done.stdout else done.stdout))


def main():
    programs, sources = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else random.randrange(1 << 31)
    print(f"seed {seed}")
    pick = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="optserve-hostile-") as folder, \
            Stack(programs, sources, pathlib.Path(folder)) as stack:
        gateway = Gateway(stack)
        check_load(gateway, pathlib.Path(folder))
        customer = Customer(gateway)
        customer.start()
        time.sleep(1)
        idle = gateway.descriptors()
        slow = SlowPeers(gateway)
        slow.start()
        customer.times.clear()
        check_garbage(gateway, pick)
        customer.check(f"{SLOW_PEERS} slow peers and {GARBAGE} with garbage")
        check_halves(gateway, pick)
        customer.check(f"{HALVES} half requests")
        check_slow_readers(gateway, customer)
        slow.join()
        times = sorted(taken for taken, _ in slow.ended)
        told = sum(answer.startswith(b"HTTP/1.1 408") for _, answer in slow.ended)
        expect(len(times) == SLOW_PEERS and times[-1] < REQUEST_SECONDS + 10 and told > SLOW_PEERS // 2,
               f"slow peers are ended after {times[0]:.0f} to {times[-1]:.0f} s, {told} of {len(times)} with 408")
        customer.is_over = True
        customer.join()
        end = time.monotonic() + 10
        while gateway.descriptors() > idle + 4 and time.monotonic() < end:
            time.sleep(0.1)
        expect(gateway.descriptors() <= idle + 4, f"{gateway.descriptors()} descriptors are open, {idle} were before")
        expect(gateway.stack.pid("gateway") == gateway.pid, "it is the same process")


main()

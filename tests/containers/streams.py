"""Streams that go on while Pods are replaced: over HTTP through whichever gateway there is, each from the byte at which
it was cut, and by the C++ client in a Pod of its own. Whoever has finished begins again until told to stop."""

import asyncio
import pathlib
import random
import sys
import threading

import httpx2 as httpx

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "http"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from http_faults_test import JobStream

TOKENS = 200


class Gateway:
    """A client of the gateway at its present address, as a Service would lead to it."""

    def __init__(self, cluster, name):
        self.cluster, self.name = cluster, name
        # A Pod that is gone answers nothing at all; a living gateway sends something every 15 s.
        self.client = httpx.AsyncClient(timeout=20, limits=httpx.Limits(max_connections=None))

    def _url(self, path):
        address = self.cluster.known_addresses.get(self.name)
        if address is None:
            raise httpx.ConnectError("there is no gateway at the moment")
        return f"http://{address}:8000{path}"

    async def post(self, path, **options):
        return await self.client.post(self._url(path), **options)

    async def get(self, path, **options):
        return await self.client.get(self._url(path), **options)

    def stream(self, method, path, **options):
        return self.client.stream(method, self._url(path), **options)


class HttpStreams:
    """Jobs over HTTP in a thread of their own. JobStream compares each text with the stored result, byte by byte."""

    def __init__(self, cluster, gateway, count):
        self.cluster, self.gateway, self.count = cluster, gateway, count
        self.texts = {}  # of each job's number, which is its seed
        self.connections = 0
        self._is_over = False
        self._failure = None
        self._first = random.randrange(1_000_000) * 1_000
        self._thread = threading.Thread(target=self._run)

    def start(self):
        self._thread.start()

    def stop(self):
        self._is_over = True
        self._thread.join()
        if self._failure:
            raise self._failure

    def _run(self):
        try:
            asyncio.run(self._all())
        except BaseException as failure:  # told by stop()
            self._failure = failure

    async def _all(self):
        client = Gateway(self.cluster, self.gateway)
        await asyncio.gather(*[self._one(client, self._first + number) for number in range(self.count)])
        await client.client.aclose()

    async def _one(self, client, number):
        while not self._is_over:
            job = JobStream(client, number, TOKENS)
            self.texts[number] = await job.run()
            self.connections += job.connections
            number += self.count


# One after the other until the file `stop` is there; a text that is cut short or an error is a line of `failed`. Status
# 3 without a text: nobody listened when it began, and it has submitted nothing.
CLIENT_SCRIPT = """
number=$1
while ! test -e /shared/stop; do
  text=/shared/text-$number-$(date +%s%N)
  optserve generate --scheduler tcp://scheduler-0.scheduler:5555 --insecure --model demo \\
    --prompt "Once upon a time" \\
    --max-new-tokens {tokens} --ignore-eos --temperature 0 --timeout-ms 120000 > $text 2>/shared/error-$number
  status=$?
  test $status = 0 && continue
  if test $status = 3 && ! test -s $text; then rm $text; else cat /shared/error-$number >> /shared/failed; fi
done
"""


class ClientStreams:
    """The C++ client, through `optserve generate`, in one restricted container."""

    def __init__(self, cluster, count):
        self.folder = cluster.engine.folder / "client"
        self.folder.mkdir()
        self.folder.chmod(0o777)
        (self.folder / "loop").write_text(CLIENT_SCRIPT.format(tokens=TOKENS))
        everyone = f"for number in $(seq {count}); do sh /shared/loop $number & done; wait"
        self.process = cluster.engine.start(
            "run", "--rm", "--name=client", f"--network={cluster.network}", "--read-only", "--cap-drop=ALL",
            "--security-opt=no-new-privileges", "-v", f"{self.folder}:/shared", cluster.image, "sh", "-c", everyone)

    def stop(self):
        (self.folder / "stop").touch()
        self.process.wait(timeout=180)
        failed = self.folder / "failed"
        if failed.exists():
            raise RuntimeError(f"a stream of the C++ client ended: {failed.read_text()[-2000:]}")
        return [path.read_text() for path in self.folder.glob("text-*")]

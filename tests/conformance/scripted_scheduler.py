"""A scheduler that follows a script, behind a real ZeroMQ socket on loopback.

A script is a list of steps:
  {"expect": NAME, "with": {…}, "answer": [messages]}  waits for this message, which must have these fields, and answers
  {"send": [messages]}                                 to the last one who asked
  {"restart": TERM}                                    the connection ends; the next process has this term
  {"mute": SECONDS}                                    reads and answers nothing, not even pings
In what is sent "$request" stands for the number of the last request; in "with", "$keep:x" is any value the first time
and the same one every later time. Pings are answered and credits are checked in between.
"""

import threading
import time

import zmq

import wire_by_document as wire

STEP_SECONDS = 15
WINDOW_MAX = wire.PROTOCOL["limits"]["stream_window_bytes_max"]


class Unexpected(Exception):
    """The client said something else than the script has."""


class ScriptedScheduler:
    def __init__(self, context, steps):
        self._context, self._steps = context, steps
        self._endpoint, self._term, self._kept = "tcp://127.0.0.1:*", 1, {}
        self._peer, self._request, self._pings, self._is_over = None, 0, 0, False
        self.failure = None
        self._open()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def endpoint(self):
        return self._endpoint

    def start(self):
        self._thread.start()

    def stop(self):
        """Returns what went wrong, or None."""
        self._is_over = True
        self._thread.join()
        return self.failure

    def _open(self):
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        end = time.monotonic() + STEP_SECONDS
        while True:
            try:
                self._socket.bind(self._endpoint)
                break
            except zmq.ZMQError:  # the socket of the process before it is not closed yet
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)
        self._endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def _run(self):
        try:
            for number, step in enumerate(self._steps):
                try:
                    self._play(step)
                except Unexpected as wrong:
                    raise Unexpected(f"step {number}: {wrong}") from None
            while not self._is_over:  # nothing more is expected
                message = self._receive(0.05)
                if message:
                    raise Unexpected(f"after the last step came {message}")
        except Exception as wrong:  # told by stop()
            self.failure = f"{type(wrong).__name__}: {wrong}"
            while not self._is_over:
                time.sleep(0.01)
        finally:
            self._socket.close(0)

    def _play(self, step):
        if "expect" in step:
            self._expect(step)
        elif "send" in step:
            self._send(step["send"])
        elif "restart" in step:
            # A ping that left the client after it read what was sent before: the first one may have been on its way.
            pings = self._pings + 2
            while self._pings < pings and not self._is_over:
                message = self._receive(0.05)
                if message:
                    raise Unexpected(f"before a restart came {message}")
            self._socket.close(0)
            self._term = step["restart"]
            self._open()
        elif "mute" in step:
            end = time.monotonic() + step["mute"]
            while time.monotonic() < end:
                if self._socket.poll(50):
                    self._socket.recv_multipart()
        else:
            raise ValueError(f"no such step: {step}")

    def _expect(self, step):
        end = time.monotonic() + STEP_SECONDS
        while True:
            message = self._receive(0.05)
            if message:
                break
            if self._is_over or time.monotonic() > end:
                raise Unexpected(f"{step['expect']} did not come")
        name, body = message
        if name != step["expect"]:
            raise Unexpected(f"expected {step['expect']}, got {message}")
        if not self._matches(step.get("with", {}), body):
            raise Unexpected(f"expected {step['with']} in {body}")
        self._request = body.get("request", 0)
        self._send(step.get("answer", []))

    def _receive(self, seconds):
        """The next message but for pings and credits."""
        if not self._socket.poll(round(seconds * 1000)):
            return None
        self._peer, *frames = self._socket.recv_multipart()
        if len(frames) != 1:
            raise Unexpected(f"a message of {len(frames)} frames")
        name, body = wire.decode(frames[0])
        if name == "Ping":
            self._pings += 1
            self._send([{"Pong": {"number": body["number"], "term": self._term}}])
            return None
        if name == "Credit":
            if not 0 < body["window"] <= WINDOW_MAX:
                raise Unexpected(f"a window of {body['window']}")
            return None
        return name, body

    def _send(self, messages):
        for message in messages:
            self._socket.send_multipart([self._peer, wire.encode(self._filled(message))])

    def _filled(self, value):
        if isinstance(value, dict):
            return {name: self._filled(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self._filled(item) for item in value]
        return self._request if value == "$request" else value

    def _matches(self, expected, found):
        if isinstance(expected, dict):
            return isinstance(found, dict) and all(
                name in found and self._matches(value, found[name]) for name, value in expected.items())
        if isinstance(expected, list):
            return len(expected) == len(found) and all(map(self._matches, expected, found))
        if isinstance(expected, str) and expected.startswith("$keep:"):
            return self._kept.setdefault(expected, found) == found
        if isinstance(expected, float) or isinstance(found, float):
            return abs(expected - found) <= 1e-6 * max(1.0, abs(expected))
        return type(expected) is type(found) and expected == found

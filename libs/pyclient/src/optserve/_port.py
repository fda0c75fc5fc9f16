"""The connection to one scheduler: a DEALER socket that an asyncio loop watches, set up as libs/transport/zmq_port.cc
does it."""

from __future__ import annotations

import asyncio
import itertools
import sys
from typing import Any, Callable, Optional, Tuple

import zmq

from ._keys import Keys
from ._messages import LIMITS

_OPTIONS = (
    (zmq.LINGER, 0),
    (zmq.MAXMSGSIZE, LIMITS["frame_bytes"]),
    (zmq.SNDHWM, 10_000),
    (zmq.RCVHWM, 10_000),
    (zmq.HANDSHAKE_IVL, 2_000),
    (zmq.HEARTBEAT_IVL, 1_000),
    (zmq.HEARTBEAT_TIMEOUT, 3_000),
    (zmq.HEARTBEAT_TTL, 4_000),
    (zmq.TCP_KEEPALIVE, 1),
    (zmq.TCP_KEEPALIVE_IDLE, 30),
    (zmq.TCP_KEEPALIVE_INTVL, 10),
    (zmq.TCP_KEEPALIVE_CNT, 3),
    (zmq.TCP_MAXRT, 15_000),
    (zmq.IMMEDIATE, 1),  # nothing is queued for a peer that is not there
    (zmq.RECONNECT_IVL, 200),
    (zmq.RECONNECT_IVL_MAX, 2_000),
)
_EVENTS = (zmq.EVENT_CONNECTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED
           | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
           | zmq.EVENT_HANDSHAKE_FAILED_AUTH)
_REFUSED_PAUSE, _NEXT_KEY_PAUSE, _FAILED_PAUSE_MAX = 1.0, 0.1, 2.0
_numbers = itertools.count()
# How many messages are read before other work gets its turn.
_READ_AT_ONCE = 200


class Port:
    """Calls on_frame(frame) for each message, then on_read(). An asyncio loop must be running.

    A plain socket is used and not one of zmq.asyncio: whether a message was handed over has to be known at once.
    """

    def __init__(self, context: zmq.Context, endpoint: str, on_frame: Callable[[bytes], None],
                 on_read: Callable[[], None], keys: Optional[Keys] = None) -> None:
        self._context = context
        self._places = endpoint.split('|')  # of a queue with standby schedulers: one of them listens
        self._place = -1  # the current one; reconnect() begins with the first
        self._on_frame = on_frame
        self._on_read = on_read
        self._loop = asyncio.get_running_loop()
        self._socket: Optional[zmq.Socket] = None
        self._is_reading_soon = False
        self._keys = keys
        self._server_key = 0  # which of the possible ones is expected
        self._was_heard = True  # since the socket was opened
        self._events: Optional[Any] = None
        self._is_handshake_open = False
        self._failures = 0  # handshakes in a row
        self._retry_at: Optional[float] = None
        self.reconnect()

    def reconnect(self) -> None:
        """A new connection; what was on its way is lost. Of several addresses it tries the next one. If nothing came on
        the last one, another of the scheduler's possible keys is tried once all addresses were."""
        self._place = (self._place + 1) % len(self._places)
        if not self._was_heard and self._place == 0:
            self._server_key += 1
        self._open()

    def look_at_handshakes(self, now: float) -> Optional[Tuple[str, bool]]:
        """Why the scheduler does not let us in, and whether it has said so, if that is so. libzmq gives up where a key
        is refused, so this tries again."""
        if self._keys is None or self._events is None:
            return None
        if self._retry_at is not None and now >= self._retry_at:
            self._open()
        news = self._take_news()
        if news == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._failures = 0
        elif news == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._retry_at = now + _REFUSED_PAUSE
            return f"it does not allow the key {self._keys.public_text}; `optserve keys allow` there lets it in", True
        elif news:
            self._server_key += 1
            self._failures += 1
            self._retry_at = now + min(self._failures * _NEXT_KEY_PAUSE, _FAILED_PAUSE_MAX)
            if self._failures >= 2 * len(self._keys.servers):
                return "it does not have the secret key that belongs to server_key, or has no keys at all", False
        return None

    def _take_news(self) -> int:
        news = 0
        while True:
            try:
                event = int.from_bytes(self._events.recv_multipart(zmq.NOBLOCK)[0][:2], sys.byteorder)  # type: ignore
            except zmq.Again:
                return news
            if event == zmq.EVENT_CONNECTED:
                self._is_handshake_open = True
            elif event in (zmq.EVENT_HANDSHAKE_SUCCEEDED, zmq.EVENT_HANDSHAKE_FAILED_AUTH):
                self._is_handshake_open = False
                news = event
            elif self._is_handshake_open:  # the connection ended before its handshake did
                self._is_handshake_open = False
                news = event

    def _watch(self, socket: zmq.Socket) -> None:
        address = f"inproc://optserve-handshakes-{next(_numbers)}"
        socket.monitor(address, _EVENTS)
        self._events = self._context.socket(zmq.PAIR)
        self._events.setsockopt(zmq.RCVHWM, 0)  # a full queue would block libzmq's own thread
        self._events.setsockopt(zmq.LINGER, 0)
        self._events.connect(address)

    def _open(self) -> None:
        self.close()
        socket = self._context.socket(zmq.DEALER)
        try:
            for option, value in _OPTIONS:
                socket.setsockopt(option, value)
            if self._places[self._place].startswith("tcp://["):
                socket.setsockopt(zmq.IPV6, 1)
            if self._keys is not None:
                self._keys.set_on(socket, self._server_key)
                self._watch(socket)
            socket.connect(self._places[self._place])
        except zmq.ZMQError:
            socket.close(0)  # an open socket would delay the end of the context forever
            raise
        self._socket = socket
        self._was_heard, self._retry_at, self._is_handshake_open = False, None, False
        self._loop.add_reader(int(socket.getsockopt(zmq.FD)), self._read)
        self._look_soon()

    def close(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(int(self._socket.getsockopt(zmq.FD)))
            if self._events is not None:
                self._socket.disable_monitor()
                self._events.close(0)
                self._events = None
            self._socket.close(0)
            self._socket = None

    def send(self, frame: bytes) -> bool:
        """False: the message was not handed over."""
        assert self._socket is not None
        try:
            self._socket.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def after_sends(self) -> None:
        """The descriptor of a socket tells each change once, and sending may take note of one: so look."""
        if self._socket is not None and int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            self._look_soon()

    def _look_soon(self) -> None:
        if not self._is_reading_soon:
            self._is_reading_soon = True
            self._loop.call_soon(self._read)

    def _read(self) -> None:
        self._is_reading_soon = False
        socket = self._socket
        if socket is None:
            return
        for _ in range(_READ_AT_ONCE):
            try:
                parts = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            self._was_heard = True
            if len(parts) == 1:  # a message has one frame
                self._on_frame(parts[0])
            if self._socket is not socket:
                return
        else:
            self._look_soon()
        self._on_read()

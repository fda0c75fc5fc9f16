"""The connection to one scheduler: a DEALER socket that an asyncio loop watches, set up as libs/transport/zmq_port.cc
does it."""

from __future__ import annotations

import asyncio
from typing import Callable, Optional

import zmq

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
# How many messages are read before others get their turn.
_READ_AT_ONCE = 200


class Port:
    """Calls on_frame(frame) for each message, then on_read(). An asyncio loop must be running.

    A plain socket is used and not one of zmq.asyncio: whether a message was handed over has to be known at once.
    """

    def __init__(self, context: zmq.Context, endpoint: str, on_frame: Callable[[bytes], None],
                 on_read: Callable[[], None]) -> None:
        self._context = context
        self._endpoint = endpoint
        self._on_frame = on_frame
        self._on_read = on_read
        self._loop = asyncio.get_running_loop()
        self._socket: Optional[zmq.Socket] = None
        self._is_reading_soon = False
        self.reconnect()

    def reconnect(self) -> None:
        """A new connection; what was on its way is lost."""
        self.close()
        socket = self._context.socket(zmq.DEALER)
        try:
            for option, value in _OPTIONS:
                socket.setsockopt(option, value)
            if self._endpoint.startswith("tcp://["):
                socket.setsockopt(zmq.IPV6, 1)
            # Keys of the connection (CURVE) are set here, before it connects.
            for place in self._endpoint.split('|'):  # of a queue with standby schedulers: one of them listens
                socket.connect(place)
        except zmq.ZMQError:
            socket.close(0)  # an open socket would hold up the end of the context for ever
            raise
        self._socket = socket
        self._loop.add_reader(int(socket.getsockopt(zmq.FD)), self._read)
        self._look_soon()

    def close(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(int(self._socket.getsockopt(zmq.FD)))
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
            if len(parts) == 1:  # what has several frames is no message
                self._on_frame(parts[0])
            if self._socket is not socket:
                return
        else:
            self._look_soon()
        self._on_read()

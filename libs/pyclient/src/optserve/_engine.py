"""The client's machinery on a running asyncio loop: sockets, ticks and the sessions between them. AsyncClient is its
face; the blocking Client runs one on a thread of its own. Nothing here blocks."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any, Callable, List, Optional, Sequence, Union

import zmq

from ._choice import split_endpoints
from ._errors import Cancelled, Error
from ._keys import Keys
from ._messages import JobSpec, SubmitOutcome
from ._port import Port
from ._schedulers import Follow, SchedulerSet
from ._streams import Listener, SessionOptions
from ._wire import decode

_log = logging.getLogger("optserve")


class Engine:
    def __init__(self, endpoints: Union[str, Sequence[str]], options: SessionOptions,
                 keys: Optional[Keys] = None) -> None:
        self._endpoints = split_endpoints(endpoints)
        self._keys = keys
        self.schedulers = SchedulerSet(self._endpoints, options)
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._context: Optional[zmq.Context] = None
        self._ports: List[Port] = []
        self._timer: Optional[asyncio.TimerHandle] = None
        self._is_closed = False
        self._flush_soon = False
        self.garbage = 0  # frames that could not be read

    def start(self) -> None:
        """Connects in the background. Must be called on the running loop that is to be used."""
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self._loop is not None:
            raise RuntimeError("an AsyncClient belongs to the event loop that used it first")
        if self._is_closed:
            raise RuntimeError("the client was closed")
        self._loop = loop
        self._context = zmq.Context()
        try:
            for i, endpoint in enumerate(self._endpoints):
                self._ports.append(Port(self._context, endpoint, partial(self._on_frame, i), self._after_turn,
                                        self._keys))
        except zmq.ZMQError as error:
            self.close()
            raise ValueError(f"connect to {endpoint!r}: {error}") from None
        self._tick()

    def now(self) -> float:
        assert self._loop is not None
        return self._loop.time()

    def close(self) -> None:
        """Ends everything that is open as cancelled."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._loop is not None:
            self.schedulers.close(Cancelled("the client was closed"), self.now())
        for port in self._ports:
            port.close()
        if self._context is not None:
            self._context.term()

    def submit(self, jobs: List[JobSpec], listeners: Optional[List[Listener]], timeout: float,
               done: Callable[[Union[List[SubmitOutcome], Error], List[Follow]], None]) -> None:
        self._begin()
        now = self.now()
        self.schedulers.submit(jobs, listeners, now + timeout, now, done)
        self._after_turn()

    def attach(self, job: str, text_offset: int, listener: Listener, timeout: float) -> "asyncio.Future[Any]":
        """Resolves to the stream and the job's state once a scheduler knows the job."""
        self._begin()
        now, future, settle = self._promise()
        self.schedulers.attach(job, text_offset, listener, now + timeout, now, settle)
        self._after_turn()
        return future

    def ask_job(self, job: str, about_job: Any, timeout: float) -> "asyncio.Future[Any]":
        self._begin()
        now, future, settle = self._promise()
        self.schedulers.ask_job(job, about_job, now + timeout, now, lambda answer, *_: settle(answer))
        self._after_turn()
        return future

    def ask_all(self, message_for: Callable[[str], Any], timeout: float) -> "asyncio.Future[Any]":
        self._begin()
        now, future, settle = self._promise()
        self.schedulers.ask_all(message_for, now + timeout, now, settle)
        self._after_turn()
        return future

    def unfollow(self, follow: Follow) -> None:
        self.schedulers.unfollow(follow)

    # --- inside

    def _begin(self) -> None:
        self.start()
        if self._is_closed:
            raise RuntimeError("the client was closed")

    def _promise(self) -> Any:
        assert self._loop is not None
        future: "asyncio.Future[Any]" = self._loop.create_future()

        def settle(answer: Any) -> None:
            if future.done():
                return
            if isinstance(answer, Error):
                future.set_exception(answer)
            else:
                future.set_result(answer)

        return self.now(), future, settle

    def _on_frame(self, scheduler: int, frame: bytes) -> None:
        try:
            message = decode(frame)
        except Error as why:
            self.garbage += 1
            if self.garbage == 1:
                _log.warning("a message of %s cannot be read: %s", self._endpoints[scheduler], why)
            return
        self.schedulers.sessions[scheduler].on_message(message, self.now())

    def _tick(self) -> None:
        assert self._loop is not None
        now = self.now()
        for port, session in zip(self._ports, self.schedulers.sessions):
            trouble = port.look_at_handshakes(now)
            if trouble is not None:
                session.on_not_let_in(*trouble, now)
            session.on_tick(now)
        self._flush()
        self._timer = self._loop.call_later(self.schedulers.tick_interval(), self._tick)

    def _after_turn(self) -> None:
        """Sends what has to be sent once the loop's present turn is over, together."""
        if not self._flush_soon and not self._is_closed:
            self._flush_soon = True
            assert self._loop is not None
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_soon = False
        if self._is_closed:
            return
        now = self.now()
        for port, session in zip(self._ports, self.schedulers.sessions):
            while True:
                out = session.take_out()
                if not out:
                    break
                for frame, request in out:
                    if not port.send(frame):
                        session.on_undeliverable(request, now)
            if session.take_reconnect():
                port.reconnect()
            port.after_sends()

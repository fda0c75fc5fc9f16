"""The streams of one scheduler's jobs: how much of the text each follower has, which events are requested again, and
how many bytes the followers have taken. It does no I/O and reads no clock; times are seconds.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional, Set, Tuple

from ._choice import text_digest
from ._errors import Error, make_error
from ._messages import LIMITS, STREAM_COST, Attach, ErrorCode, JobEvent, JobResult, Refused

# A gap causes one Attach, not one for each event that follows it.
ATTACH_PAUSE = 0.2
EARLY_JOBS_MAX = 4096


@dataclass
class SessionOptions:
    """What session and streams share. Times are seconds."""

    endpoint: str = ""
    retry_first: float = 0.25  # wait between attempts: doubles up to retry_max, with full jitter
    retry_max: float = 8.0
    answer_within: float = 2.0  # a request without an answer is repeated after this time
    lost_after: float = 5.0  # silence after which the connection counts as lost
    attach_again: float = 10.0  # a stream without events for this long is attached again
    down_after: float = 1.0  # unreachable for this long, requests that may go to another scheduler do so
    window_bytes: int = LIMITS["stream_window_bytes_max"]
    random: random.Random = field(default_factory=random.Random)

    def jitter(self, up_to: float) -> float:
        return self.random.random() * up_to


@dataclass
class Listener:
    """Receives a job's output. No function may block or raise.

    on_text(piece, event): the text goes on. on_progress(event): state, position, expected wait, tokens or progress
    have changed. on_restarted(): the text that came so far is not the job's, it begins anew. on_finished(result): once,
    last. on_lost(error): once, instead of on_finished, if the job cannot be followed.
    """

    on_text: Optional[Callable[[str, JobEvent], None]] = None
    on_progress: Optional[Callable[[JobEvent], None]] = None
    on_restarted: Optional[Callable[[], None]] = None
    on_finished: Optional[Callable[[JobResult], None]] = None
    on_lost: Optional[Callable[[Error], None]] = None


def event_cost(event: JobEvent) -> int:
    return STREAM_COST["event"] + STREAM_COST["byte_of_event_text"] * len(event.text.encode())


def result_cost(result: JobResult) -> int:
    cost = STREAM_COST
    return (
        cost["result"]
        + cost["byte_of_result_text"] * len(result.text.encode())
        + cost["byte_of_result_message"] * len(result.message.encode())
        + cost["id_of_ids"] * len(result.ids)
        + cost["entry_of_prompt_logprobs"] * len(result.prompt_logprobs)
        + cost["entry_of_logprobs"] * len(result.logprobs)
        + cost["entry_of_best"] * sum(map(len, result.best))
        + cost["entry_of_prompt_best"] * sum(map(len, result.prompt_best))
    )


class _Follow:
    __slots__ = ("number", "listener", "have", "text", "progress")

    def __init__(self, number: int, listener: Listener, have: int) -> None:
        self.number = number
        self.listener = listener
        self.have = have  # bytes of text delivered
        self.text: Optional[bytearray] = bytearray() if have == 0 else None  # None: it began in the middle
        self.progress: Optional[Tuple[Any, ...]] = None


class _FollowedJob:
    __slots__ = ("follows", "next_attach", "last_attach", "attach_request", "is_heard")

    def __init__(self) -> None:
        self.follows: List[_Follow] = []
        self.next_attach = 0.0
        self.last_attach = float("-inf")
        self.attach_request = 0
        self.is_heard = False  # the scheduler streams it, or did so before


class JobStreams:
    def __init__(self, options: SessionOptions, next_request: Callable[[], int],
                 send: Callable[[Any], None]) -> None:
        self._options = options
        self._next_request = next_request
        self._send = send
        self._numbers = itertools.count(1)
        self._jobs: Dict[str, _FollowedJob] = {}
        self._attach_requests: Dict[int, str] = {}
        self._early: Set[str] = set()  # jobs whose events came before the answer that tells their ids
        self._open_submits = 0
        self.consumed = 0  # stream cost of all that the listeners have taken

    def __len__(self) -> int:
        return len(self._jobs)

    def follow(self, job: str, text_offset: int, listener: Listener, now: float) -> int:
        """Streams a job that the scheduler knows."""
        followed = self._jobs.setdefault(job, _FollowedJob())
        follow = _Follow(next(self._numbers), listener, text_offset)
        followed.follows.append(follow)
        followed.next_attach = now  # at the next tick, together with others
        return follow.number

    def follow_new(self, job: str, listener: Listener, now: float) -> int:
        """The same for a job that was just submitted, which the scheduler streams without being asked."""
        number = self.follow(job, 0, listener, now)
        followed = self._jobs[job]
        followed.is_heard = True
        if job not in self._early:
            followed.next_attach = now + self._options.attach_again
        return number

    def unfollow(self, job: str, number: int) -> None:
        followed = self._jobs.get(job)
        if followed is None:
            return
        followed.follows = [follow for follow in followed.follows if follow.number != number]
        if not followed.follows:
            self._attach_requests.pop(followed.attach_request, None)
            del self._jobs[job]

    def begin_submit(self) -> None:
        """Until end_submit(), jobs whose events come before the answer that tells their ids are remembered."""
        self._open_submits += 1

    def end_submit(self) -> None:
        self._open_submits -= 1
        if self._open_submits == 0:
            self._early.clear()

    # --- what the scheduler says

    def on_event(self, event: JobEvent, now: float) -> None:
        followed = self._jobs.get(event.job)
        if followed is None:
            self._note_unknown(event.job)
        else:
            self._deliver_to_all(followed, event, now)
        self.consumed += event_cost(event)

    def on_finished(self, result: JobResult) -> None:
        followed = self._jobs.get(result.job)
        if followed is None:
            self._note_unknown(result.job)
        elif result.is_final:
            del self._jobs[result.job]
            self._attach_requests.pop(followed.attach_request, None)
            for follow in followed.follows:
                self._deliver_rest(follow, result)
                if follow.listener.on_finished:
                    follow.listener.on_finished(result)
        self.consumed += result_cost(result)

    def on_refused(self, refused: Refused, now: float) -> bool:
        """False if this does not answer an Attach."""
        job = self._attach_requests.get(refused.request)
        if job is None:
            return False
        followed = self._jobs.get(job)
        if refused.retry_after_ms > 0 and followed is not None:  # too many messages, and not too many followers
            wait = refused.retry_after_ms / 1000
            followed.next_attach = now + wait + self._options.jitter(wait / 4)
            return True
        # If this client followed the job before, its own lost connection may still count as a follower.
        is_full = refused.code == ErrorCode.BUSY and followed is not None and not followed.is_heard
        if refused.code != ErrorCode.NOT_FOUND and not is_full:
            return True  # tried again after attach_again
        del self._attach_requests[refused.request]
        if followed is not None:
            del self._jobs[job]
            _lose(followed, make_error(refused.code, refused.message))
        return True

    # --- what is requested

    def attach_due(self, now: float) -> None:
        """Requests the events of streams that have been silent for too long or have a gap."""
        for job, followed in self._jobs.items():
            if now >= followed.next_attach:
                self._attach(job, followed, now)

    def attach_all(self, spread: float, now: float) -> None:
        """Requests the events of all streams, each at a random time within `spread`."""
        for followed in self._jobs.values():
            followed.next_attach = now + self._options.jitter(spread)

    def close(self, why: Error) -> None:
        """Ends every stream with this error."""
        self._attach_requests.clear()
        jobs, self._jobs = self._jobs, {}
        for followed in jobs.values():
            _lose(followed, why)

    def _attach(self, job: str, followed: _FollowedJob, now: float) -> None:
        self._attach_requests.pop(followed.attach_request, None)
        followed.attach_request = self._next_request()
        self._attach_requests[followed.attach_request] = job
        last = min(followed.follows, key=lambda follow: follow.have)
        digest = 0 if last.text is None else text_digest(bytes(last.text))
        self._send(Attach(followed.attach_request, job, last.have, digest))
        followed.last_attach = now
        followed.next_attach = now + self._options.attach_again + self._options.jitter(self._options.attach_again / 4)

    def _note_unknown(self, job: str) -> None:
        if self._open_submits > 0 and len(self._early) < EARLY_JOBS_MAX:
            self._early.add(job)

    # --- what followers get

    def _deliver_to_all(self, followed: _FollowedJob, event: JobEvent, now: float) -> None:
        followed.is_heard = True
        data = event.text.encode()
        gap = False
        for follow in followed.follows:
            gap |= not _deliver(follow, event, data)
        if not gap:
            followed.next_attach = now + self._options.attach_again
        elif now - followed.last_attach >= ATTACH_PAUSE:
            self._attach(event.job, followed, now)
        else:
            followed.next_attach = min(followed.next_attach, followed.last_attach + ATTACH_PAUSE)

    @staticmethod
    def _deliver_rest(follow: _Follow, result: JobResult) -> None:
        data = result.text.encode()
        # A job that ended early, soon after a restart of the scheduler, may have less text than was delivered before.
        is_whole = len(data) >= follow.have or result.succeeded
        if is_whole and follow.text is not None and data[: follow.have] != follow.text:
            _restart(follow)
        if len(data) <= follow.have or not follow.listener.on_text:
            return
        rest = JobEvent(result.job, follow.have, data[follow.have:].decode(errors="replace"), len(result.ids),
                        result.progress_done, result.progress_total, result.state)
        follow.listener.on_text(rest.text, rest)


def _lose(followed: _FollowedJob, why: Error) -> None:
    for follow in followed.follows:
        if follow.listener.on_lost:
            follow.listener.on_lost(why)


def _restart(follow: _Follow) -> None:
    if follow.have == 0:
        return
    follow.have = 0
    follow.text = bytearray()
    if follow.listener.on_restarted:
        follow.listener.on_restarted()


def _deliver(follow: _Follow, event: JobEvent, data: bytes) -> bool:
    """False if there is a gap between the text that the follower has and the event."""
    if event.restarted:
        _restart(follow)
    if event.text_offset > follow.have:
        return False
    end = event.text_offset + len(data)
    if end <= follow.have and data:
        return True  # delivered before
    piece = event
    if event.text_offset < follow.have:
        data = data[follow.have - event.text_offset:]
        piece = JobEvent(event.job, follow.have, data.decode(errors="replace"), event.tokens, event.progress_done,
                         event.progress_total, event.state, event.position, event.eta_ms, event.restarted)
    follow.have += len(data)
    if follow.text is not None:
        follow.text += data
    listener = follow.listener
    if listener.on_progress:
        progress = (event.state, event.position, event.tokens, event.eta_ms, event.progress_done, event.progress_total)
        if progress != follow.progress:
            follow.progress = progress
            listener.on_progress(piece)
    if data and listener.on_text:
        listener.on_text(piece.text, piece)
    return True

"""A client's side of the conversation with one scheduler, as a state machine without sockets: requests with retries,
streams that resume, credit and liveness. Times are seconds and come from the caller.

A connection counts as lost after 5 s of silence, or when a message cannot be sent. While it is lost, only pings are
sent. When the scheduler answers again, or with another term, every open request is repeated and every stream is
attached again.
"""

from __future__ import annotations

import enum
import logging
import secrets
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Dict, List, Optional, Tuple, Union

from ._errors import BadRequest, DataCorrupt, Error, Unavailable, make_error
from ._messages import (LIMITS, Backup, Credit, ErrorCode, JobEvents, JobFinished, JobSpec, Ping, Pong, Refused, Submit,
                        SubmitOutcome, SubmitReply)
from ._retry_budget import RetryBudget
from ._streams import JobStreams, Listener, SessionOptions
from ._validate import check_job
from ._wire import encode, encode_struct, encode_submit

_log = logging.getLogger("optserve")

PING_INTERVAL = 1.0
TICK = 0.1
# The interval of pings while there is no connection: short at first, since most connections succeed at once.
PROBE_FIRST, PROBE_MAX = 0.01, 0.5
SUBMIT_BYTES_MAX = LIMITS["client_frame_bytes"] - 4096  # leaves room for the envelope
RETRY_AFTER_MAX = 3600.0

PUT_OFF = (ErrorCode.BUSY, ErrorCode.STORAGE_FULL)  # asking again later may help
MOVABLE = (*PUT_OFF, ErrorCode.UNAVAILABLE)  # asking another scheduler may help


class Fate(enum.Enum):
    ANSWERED = 1
    RETURNED = 2  # the scheduler certainly has none of the refused jobs


Answer = Union[Any, Error]  # a message, or why there is none
Done = Callable[[Answer, Fate, float], None]
MayGiveUp = Optional[Callable[[], bool]]


@dataclass
class _Call:
    make_frame: Callable[[int], bytes]
    deadline: float
    done: Done
    may_give_up: MayGiveUp
    next_send: float
    wait: float
    is_submit: bool = False
    is_repeatable: bool = True
    handed_over: int = 0  # the scheduler has received it at most this often
    after_loss: bool = False  # will be repeated because the connection was lost, not because the answer is late
    decided: List[SubmitOutcome] = field(default_factory=list)  # outcomes that are final


@dataclass
class Submission:
    """What became of submit(): one outcome for each job, or the error of the whole call."""

    outcomes: Union[List[SubmitOutcome], Error]
    follows: List[Tuple[str, int]]  # the streams of the accepted jobs
    returned: List[int]  # indices of refused jobs that this scheduler does not have and will never get


@dataclass
class _Batch:
    jobs: List[JobSpec]
    listeners: Optional[List[Listener]]
    deadline: float
    done: Callable[[Submission, float], None]
    may_give_up: MayGiveUp
    outcomes: List[SubmitOutcome]
    follows: List[Tuple[str, int]] = field(default_factory=list)
    returned: List[int] = field(default_factory=list)
    open_messages: int = 1  # one for submit() itself
    failed_messages: int = 0
    messages: int = 0
    last_failure: Optional[Error] = None

    def release(self, now: float) -> None:
        self.open_messages -= 1
        if self.open_messages > 0:
            return
        all_failed = self.messages > 0 and self.failed_messages == self.messages
        outcomes = self.last_failure if all_failed and self.last_failure else self.outcomes
        self.done(Submission(outcomes, self.follows, self.returned), now)


def refused_outcome(why: Error) -> SubmitOutcome:
    return SubmitOutcome(None, why.code, why.message, retry_after_ms=round((why.retry_after or 0) * 1000))


class Session:
    def __init__(self, options: SessionOptions) -> None:
        self._options = options
        self._budget = RetryBudget()
        self._last_request = 0
        self._out: List[Tuple[bytes, int]] = []
        self._streams = JobStreams(options, self._next_request, self._send_message)
        self._calls: Dict[int, _Call] = {}
        self._credited = 0
        self._ping_number = 0
        self._term = 0  # of the scheduler; 0: not known yet
        self._last_unasked_refusal = ""
        self._trouble = ""  # why there is no connection, if that is known
        self._lost = True
        self._started = False
        self._lost_since = self._last_heard = self._next_ping = self._next_reconnect = self._last_tick = 0.0
        self._wants_reconnect = False

    # --- for the owner of the socket

    def take_out(self) -> List[Tuple[bytes, int]]:
        """Frames to send, each with the number that on_undeliverable() wants if it cannot be handed over."""
        out, self._out = self._out, []
        return out

    def take_reconnect(self) -> bool:
        wants, self._wants_reconnect = self._wants_reconnect, False
        return wants

    def tick_interval(self) -> float:
        return min(TICK, self._ping_interval(self._last_tick))

    # --- requests

    @property
    def is_reachable(self) -> bool:
        return not self._lost

    def is_down(self, now: float) -> bool:
        """Unreachable for longer than a new connection takes."""
        return self._lost and self._started and now - self._lost_since >= self._options.down_after

    def unreachable_for(self, now: float) -> float:
        return now - self._lost_since if self._lost and self._started else 0.0

    def call(self, message: Any, deadline: float, now: float, done: Callable[[Answer, float], None],
             may_give_up: MayGiveUp = None) -> int:
        """Sends a message that has a request number, which is set here. `done` is called once: with the answer, with
        the scheduler's refusal, or with Unavailable at the deadline. Returns the number.

        As long as the scheduler is busy or its disk is full the message is repeated, and the last answer counts.
        `may_give_up` is asked while the scheduler cannot be reached: True ends the request at once.
        """
        encode(message)  # raises BadRequest for wrong values before anything is noted
        return self._start_call(_Call(lambda request: encode(replace(message, request=request)), deadline,
                                      lambda answer, _, then: done(answer, then), may_give_up, now,
                                      self._options.retry_first, is_repeatable=not isinstance(message, Backup)), now)

    def forget(self, request: int) -> None:
        """Drops the request; its `done` will not be called."""
        self._calls.pop(request, None)

    def submit(self, jobs: List[JobSpec], listeners: Optional[List[Listener]], deadline: float, now: float,
               done: Callable[[Submission, float], None], may_give_up: MayGiveUp = None) -> None:
        """Invalid jobs are refused here. The others are sent in as many messages as their size needs. `listeners`: one
        for each job, or None for no streams.
        """
        batch = _Batch(jobs, listeners, deadline, done, may_give_up, [SubmitOutcome() for _ in jobs])
        indices: List[int] = []
        blobs: List[bytes] = []
        size = 0
        for i, job in enumerate(jobs):
            if not job.key:
                job.key = secrets.token_hex(16)
            try:
                check_job(job)
                blob = encode_struct(job)
            except Error as why:
                batch.outcomes[i] = refused_outcome(why)
                continue
            except (TypeError, ValueError, AttributeError) as wrong:  # a value of a type that no check foresees
                batch.outcomes[i] = refused_outcome(BadRequest(f"the job cannot be encoded: {wrong}"))
                continue
            if len(indices) == LIMITS["jobs_per_submit"] or size + len(blob) > SUBMIT_BYTES_MAX:
                self._send_batch(batch, indices, blobs, now)
                indices, blobs, size = [], [], 0
            indices.append(i)
            blobs.append(blob)
            size += len(blob)
        if indices:
            self._send_batch(batch, indices, blobs, now)
        batch.release(now)

    def follow(self, job: str, text_offset: int, listener: Listener, now: float) -> int:
        return self._streams.follow(job, text_offset, listener, now)

    def unfollow(self, job: str, number: int) -> None:
        self._streams.unfollow(job, number)

    def close(self, why: Error, now: float) -> None:
        """Ends every open request and stream with this error."""
        while self._calls:
            self._answer(next(iter(self._calls)), why, Fate.ANSWERED, now)
        self._streams.close(why)

    # --- messages

    def on_message(self, message: Any, now: float) -> None:
        self._heard(now)
        if isinstance(message, JobEvents):
            for event in message.events:
                self._streams.on_event(event, now)
        elif isinstance(message, JobFinished):
            self._streams.on_finished(message.result)
        elif isinstance(message, Refused):
            self._on_refused(message, now)
        elif isinstance(message, Pong):
            is_new = self._term not in (0, message.term)
            self._term = message.term
            if is_new:
                self._resync(now)
        elif isinstance(message, SubmitReply):
            self._on_submit_answer(message, now)
        elif getattr(message, "request", 0) != 0:
            self._answer(message.request, message, Fate.ANSWERED, now)
        if self._streams.consumed - self._credited >= self._options.window_bytes / 2:
            self._send_credit()

    def on_undeliverable(self, request: int, now: float) -> None:
        if not self._lost:
            self._lost = True
            self._lost_since = now
        call = self._calls.get(request)
        if call is not None:
            call.handed_over -= 1

    def on_not_let_in(self, why: str, is_refusal: bool, now: float) -> None:
        """A refusal ends what is open: waiting is of no use. Other trouble may pass."""
        if not is_refusal:
            self._trouble = why
            return
        if not self._lost:
            self._lost_since = now
        self._lost = True
        self.close(Unavailable(f"the scheduler at {self._options.endpoint} does not let us in: {why}"), now)

    def on_tick(self, now: float) -> None:
        self._last_tick = now
        options = self._options
        if not self._started:
            self._started = True
            self._lost_since = self._last_heard = now
            self._next_reconnect = now + options.lost_after
        if not self._lost and now - self._last_heard >= options.lost_after:
            self._lost = True
            self._lost_since = now
            _log.warning("the scheduler at %s is silent", options.endpoint)
        if self._lost and now - self._last_heard >= options.lost_after and now >= self._next_reconnect:
            self._wants_reconnect = True
            self._next_reconnect = now + options.lost_after + options.jitter(options.lost_after)
        if now >= self._next_ping:
            self._ping_number += 1
            self._send_message(Ping(self._ping_number))
            self._send_credit()
            self._next_ping = now + self._ping_interval(now)
        self._turn_calls(now)
        if not self._lost:
            self._streams.attach_due(now)

    # --- inside

    def _next_request(self) -> int:
        self._last_request += 1
        return self._last_request

    def _send_message(self, message: Any) -> None:
        self._out.append((encode(message), 0))

    def _start_call(self, call: _Call, now: float) -> int:
        number = self._next_request()
        self._calls[number] = call
        self._send_due(number, call, now)
        return number

    def _send_due(self, number: int, call: _Call, now: float) -> None:
        if self._lost or now < call.next_send:
            return
        if call.handed_over == 0:
            self._budget.add_request(now)
        elif not call.is_repeatable:
            return
        elif not call.after_loss and not self._budget.take(now):
            call.next_send = now + self._options.jitter(call.wait)
            return
        call.after_loss = False
        call.handed_over += 1
        call.next_send = now + self._options.answer_within + self._options.jitter(call.wait)
        call.wait = min(call.wait * 2, self._options.retry_max)
        self._out.append((call.make_frame(number), number))

    def _answer(self, number: int, answer: Answer, fate: Fate, now: float) -> None:
        call = self._calls.pop(number, None)
        if call is not None:  # otherwise it is a second answer to a repeated request
            call.done(answer, fate, now)

    def _can_return(self, call: _Call) -> bool:
        """What was handed over twice may be refused once and accepted once."""
        return bool(call.is_submit and call.handed_over <= 1 and call.may_give_up and call.may_give_up())

    def _gives_up(self, call: _Call, now: float) -> bool:
        """A Submit that may have arrived stays, since it may have been accepted."""
        if call.may_give_up is None or not self.is_down(now) or (call.handed_over > 0 and call.is_submit):
            return False
        return call.may_give_up()

    def _put_off(self, call: _Call, retry_after_ms: int, now: float) -> bool:
        """The same message once more, if there is time."""
        wait = call.wait / 2 + self._options.jitter(call.wait / 2)
        if retry_after_ms > 0:
            told = min(retry_after_ms / 1000, RETRY_AFTER_MAX)
            wait = told + self._options.jitter(max(told / 2, self._options.retry_first))
        if now + wait >= call.deadline:
            return False
        call.next_send = now + wait
        return True

    def _on_submit_answer(self, reply: SubmitReply, now: float) -> None:
        """The jobs that were accepted or refused for good keep their first outcome: to the scheduler they are
        duplicates when the message is repeated for those that it put off.
        """
        call = self._calls.get(reply.request)
        if call is None:
            return
        outcomes = reply.outcomes
        if len(call.decided) == len(outcomes):
            outcomes = [new if old.error in PUT_OFF else old for old, new in zip(call.decided, outcomes)]
        refused = [outcome for outcome in outcomes if outcome.error is not None]
        put_off = [outcome for outcome in refused if outcome.error in PUT_OFF]
        is_movable = any(outcome.error in MOVABLE for outcome in refused)
        fate = Fate.RETURNED if is_movable and self._can_return(call) else Fate.ANSWERED
        if fate is Fate.ANSWERED and put_off:
            if self._put_off(call, max(outcome.retry_after_ms for outcome in put_off), now):
                call.decided = outcomes
                return
        self._answer(reply.request, SubmitReply(reply.request, outcomes), fate, now)

    def _on_refused(self, refused: Refused, now: float) -> None:
        if self._streams.on_refused(refused, now):
            return
        call = self._calls.get(refused.request)
        if call is None:
            if refused.message != self._last_unasked_refusal:  # one that is not known is refused as often as it is sent
                self._last_unasked_refusal = refused.message
                _log.warning("the scheduler at %s refused: %s", self._options.endpoint, refused.message)
            return
        fate = Fate.RETURNED if refused.code in MOVABLE and self._can_return(call) else Fate.ANSWERED
        if fate is Fate.ANSWERED and refused.code in PUT_OFF and self._put_off(call, refused.retry_after_ms, now):
            return
        if call.decided:
            self._expire(refused.request, now)
        else:
            why = make_error(refused.code, refused.message, refused.retry_after_ms)
            self._answer(refused.request, why, fate, now)

    def _expire(self, number: int, now: float) -> None:
        """Ends a call without a last answer; what was decided before counts."""
        decided = self._calls[number].decided
        answer = SubmitReply(number, decided) if decided else Unavailable(
            f"no answer from the scheduler at {self._options.endpoint}" + (self._trouble and f": {self._trouble}"))
        self._answer(number, answer, Fate.ANSWERED, now)

    def _turn_calls(self, now: float) -> None:
        expired, given_up = [], []
        for number, call in self._calls.items():
            if now >= call.deadline:
                expired.append(number)
            elif self._gives_up(call, now):
                given_up.append(number)
            else:
                self._send_due(number, call, now)
        for number in expired:
            if number in self._calls:
                self._expire(number, now)
        for number in given_up:
            why = Unavailable(f"the scheduler at {self._options.endpoint} cannot be reached")
            self._answer(number, why, Fate.RETURNED, now)

    def _send_batch(self, batch: _Batch, indices: List[int], blobs: List[bytes], now: float) -> None:
        batch.messages += 1
        batch.open_messages += 1
        is_streamed = batch.listeners is not None
        if is_streamed:
            self._streams.begin_submit()
        self._start_call(_Call(lambda request: encode_submit(request, is_streamed, blobs), batch.deadline,
                               lambda answer, fate, then: self._on_submit_reply(batch, indices, answer, fate, then),
                               batch.may_give_up, now, self._options.retry_first, is_submit=True), now)

    def _on_submit_reply(self, batch: _Batch, indices: List[int], answer: Answer, fate: Fate, now: float) -> None:
        if isinstance(answer, SubmitReply) and len(answer.outcomes) == len(indices):
            for i, outcome in zip(indices, answer.outcomes):
                batch.outcomes[i] = outcome
                if fate is Fate.RETURNED and outcome.error in MOVABLE:
                    batch.returned.append(i)
                if outcome.job is not None and batch.listeners is not None:
                    self._follow_accepted(batch, i, outcome, now)
        else:
            why = answer if isinstance(answer, Error) else DataCorrupt("submit: the answer does not match the request")
            batch.last_failure = why
            batch.failed_messages += 1
            for i in indices:
                batch.outcomes[i] = refused_outcome(why)
            if fate is Fate.RETURNED:
                batch.returned.extend(indices)
        if batch.listeners is not None:
            self._streams.end_submit()
        batch.release(now)

    def _follow_accepted(self, batch: _Batch, i: int, outcome: SubmitOutcome, now: float) -> None:
        assert batch.listeners is not None and outcome.job is not None
        listener = batch.listeners[i]
        if outcome.unfollowed:
            if listener.on_lost:
                listener.on_lost(make_error(ErrorCode.BUSY, f"job {outcome.job} has its maximum of followers"))
        elif outcome.duplicate:
            batch.follows.append((outcome.job, self._streams.follow(outcome.job, 0, listener, now)))
        else:
            batch.follows.append((outcome.job, self._streams.follow_new(outcome.job, listener, now)))

    def _heard(self, now: float) -> None:
        self._last_heard = now
        self._trouble = ""
        if self._lost:
            self._lost = False
            self._resync(now)

    def _resync(self, now: float) -> None:
        """What was sent before may be lost, and the scheduler may not know where to send what we wait for."""
        # After a loss all clients come back at the same time, so they spread out; a first connection need not.
        spread = 0.0 if self._term == 0 else self._options.retry_first
        self._send_credit()
        for call in self._calls.values():
            call.next_send = now + self._options.jitter(spread)
            call.wait = self._options.retry_first
            call.after_loss = True
        self._streams.attach_all(spread, now)
        self._turn_calls(now)

    def _send_credit(self) -> None:
        self._credited = self._streams.consumed
        self._send_message(Credit(self._credited, self._options.window_bytes))

    def _ping_interval(self, now: float) -> float:
        if not self._lost:
            return PING_INTERVAL
        return min(max((now - self._lost_since) / 8, PROBE_FIRST), PROBE_MAX)

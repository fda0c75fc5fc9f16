"""A client's sessions with all schedulers: which of them gets a job, and which are asked about one. A state machine
like Session; scheduler i is the i-th address.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Sequence, Set, Tuple, Union

from ._choice import endpoint_hashes, scheduler_order
from ._errors import DataCorrupt, Error, NotFound, Unavailable
from ._messages import GetJob, JobResult, JobSpec, JobStatus, SubmitOutcome
from ._session import Session, Submission, refused_outcome
from ._streams import Listener, SessionOptions

JOB_HOMES_MAX = 65536

Follow = Tuple[int, str, int]  # scheduler, job, number in its session


class JobHomes:
    """Remembers which scheduler accepted a job, for the last `jobs_max` jobs."""

    def __init__(self, jobs_max: int = JOB_HOMES_MAX) -> None:
        self._jobs_max = jobs_max
        self._homes: "OrderedDict[str, int]" = OrderedDict()

    def remember(self, job: str, scheduler: int) -> None:
        if self._jobs_max == 0:
            return
        self._homes[job] = scheduler
        if len(self._homes) > self._jobs_max:
            self._homes.popitem(last=False)

    def find(self, job: str) -> Optional[int]:
        return self._homes.get(job)


@dataclass
class _Batch:
    """One submit()."""

    jobs: List[JobSpec]
    listeners: Optional[List[Listener]]
    deadline: float
    done: Callable[[Union[List[SubmitOutcome], Error], List[Follow]], None]
    outcomes: List[SubmitOutcome]
    tried: List[Set[int]]  # by job: the schedulers that got it
    follows: List[Follow] = field(default_factory=list)
    open_parts: int = 1  # one for submit() itself
    has_outcome: bool = False
    failure: Optional[Error] = None

    def release(self) -> None:
        self.open_parts -= 1
        if self.open_parts > 0:
            return
        if self.failure is not None and not self.has_outcome:
            self.done(self.failure, [])
        else:
            self.done(self.outcomes, self.follows)


@dataclass
class _Search:
    """One question about a job whose scheduler may not be known."""

    job: str
    open: int = 0
    requests: List[Tuple[int, int]] = field(default_factory=list)  # scheduler, number
    refusals: List[Tuple[int, Error]] = field(default_factory=list)  # by scheduler


class SchedulerSet:
    def __init__(self, endpoints: Sequence[str], options: SessionOptions) -> None:
        self.endpoints = list(endpoints)
        self.sessions = [Session(replace(options, endpoint=endpoint)) for endpoint in endpoints]
        self._hashes = endpoint_hashes(endpoints)
        self._homes = JobHomes(JOB_HOMES_MAX if len(endpoints) > 1 else 0)

    # Each of the following calls its `done` exactly once, at the deadline at the latest.

    def submit(self, jobs: List[JobSpec], listeners: Optional[List[Listener]], deadline: float, now: float,
               done: Callable[[Union[List[SubmitOutcome], Error], List[Follow]], None]) -> None:
        """`done` gets one outcome for each job, or the error if no scheduler answered; and the streams."""
        batch = _Batch(jobs, listeners, deadline, done, [SubmitOutcome() for _ in jobs], [set() for _ in jobs])
        for job in jobs:
            if not job.key:
                job.key = secrets.token_hex(16)
        self._dispatch(batch, range(len(jobs)), now)
        batch.release()

    def ask_job(self, job: str, about_job: Any, deadline: float, now: float,
                done: Callable[[Any, int, float], None]) -> None:
        """`about_job` is a message about this job that is answered with JobStatus. `done` gets the result or an error,
        and the scheduler."""
        search = _Search(job)
        home = self._homes.find(job)
        asked = [home] if home is not None else range(len(self.sessions))
        search.open = len(asked)
        for i in asked:
            request = self.sessions[i].call(about_job, deadline, now, partial(self._on_found, search, i, done),
                                            lambda: bool(search.refusals))
            search.requests.append((i, request))

    def attach(self, job: str, text_offset: int, listener: Listener, deadline: float, now: float,
               done: Callable[[Union[Tuple[Follow, JobResult], Error]], None]) -> None:
        """Follows a job on the scheduler that knows it. `done` gets the stream, and what is known of the job."""

        # Attach itself is not answered while the job runs, so GetJob finds out whether the job is known, and to which
        # scheduler.
        def on_known(known: Any, scheduler: int, then: float) -> None:
            if isinstance(known, Error):
                done(known)
            else:
                number = self.sessions[scheduler].follow(job, text_offset, listener, then)
                done(((scheduler, job, number), known))

        self.ask_job(job, GetJob(0, job), deadline, now, on_known)

    def ask_all(self, message_for: Callable[[str], Any], deadline: float, now: float,
                done: Callable[[Dict[str, Any]], None]) -> None:
        """`message_for(endpoint)` is the message for a scheduler; None: it is not asked. `done` gets the answers, or
        errors, by endpoint."""
        messages = {i: message for i, message in enumerate(map(message_for, self.endpoints)) if message is not None}
        answers: Dict[str, Any] = {self.endpoints[i]: None for i in messages}
        state = {"open": len(messages), "answered": 0}

        def on_answer(endpoint: str, answer: Any, _: float) -> None:
            state["answered"] += not isinstance(answer, Unavailable)
            state["open"] -= 1
            answers[endpoint] = answer
            if state["open"] == 0:
                done(answers)

        for i, message in messages.items():
            self.sessions[i].call(message, deadline, now, partial(on_answer, self.endpoints[i]),
                                  lambda: state["answered"] > 0)
        if not messages:
            done(answers)

    def unreachable_for(self, job: str, now: float) -> float:
        """Of the scheduler that knows the job; of the one that was reachable last, if that is not known."""
        home = self._homes.find(job)
        sessions = self.sessions if home is None else [self.sessions[home]]
        return min(session.unreachable_for(now) for session in sessions)

    def unfollow(self, follow: Follow) -> None:
        scheduler, job, number = follow
        self.sessions[scheduler].unfollow(job, number)

    def close(self, why: Error, now: float) -> None:
        for session in self.sessions:
            session.close(why, now)

    def tick_interval(self) -> float:
        return min(session.tick_interval() for session in self.sessions)

    # --- inside

    def _choose(self, batch: _Batch, index: int, now: float) -> int:
        """The first in the job's order that was not tried and can be reached, or may soon be."""
        if len(self.sessions) == 1:
            return 0
        last_resort = None
        job = batch.jobs[index]
        # Values that are not text will be refused; until then they may go to any scheduler.
        for scheduler in scheduler_order(str(job.tenant), str(job.key), self.endpoints, self._hashes):
            if scheduler in batch.tried[index]:
                continue
            if not self.sessions[scheduler].is_down(now):
                return scheduler
            if last_resort is None:
                last_resort = scheduler
        assert last_resort is not None, "a job was returned although every scheduler had been tried"
        return last_resort

    def _dispatch(self, batch: _Batch, indices: Sequence[int], now: float) -> None:
        parts: Dict[Tuple[int, Tuple[int, ...]], List[int]] = {}
        for i in indices:
            scheduler = self._choose(batch, i, now)
            batch.tried[i].add(scheduler)
            parts.setdefault((scheduler, tuple(sorted(batch.tried[i]))), []).append(i)
        for (scheduler, tried), members in parts.items():
            self._send_part(batch, scheduler, tried, members, now)

    def _send_part(self, batch: _Batch, scheduler: int, tried: Tuple[int, ...], indices: List[int],
                   now: float) -> None:
        batch.open_parts += 1
        listeners = None if batch.listeners is None else [batch.listeners[i] for i in indices]
        self.sessions[scheduler].submit(
            [batch.jobs[i] for i in indices], listeners, batch.deadline, now,
            lambda part, then: self._on_part(batch, scheduler, indices, part, then),
            lambda: any(i not in tried and session.is_reachable for i, session in enumerate(self.sessions)))

    def _on_part(self, batch: _Batch, scheduler: int, indices: List[int], part: Submission, now: float) -> None:
        returned = set(part.returned)
        for i, index in enumerate(indices):
            if i in returned:
                continue
            if isinstance(part.outcomes, Error):
                batch.failure = part.outcomes
                batch.outcomes[index] = refused_outcome(part.outcomes)
                continue
            outcome = batch.outcomes[index] = part.outcomes[i]
            batch.has_outcome = True
            if outcome.job is not None:
                self._homes.remember(outcome.job, scheduler)
        batch.follows.extend((scheduler, job, number) for job, number in part.follows)
        if returned:
            self._dispatch(batch, [indices[i] for i in sorted(returned)], now)
        batch.release()

    def _on_found(self, search: _Search, scheduler: int, done: Callable[[Any, int, float], None], answer: Any,
                  now: float) -> None:
        search.open -= 1
        if not isinstance(answer, (JobStatus, Error)):
            answer = DataCorrupt(f"the scheduler answered with {type(answer).__name__}")
        if isinstance(answer, Error):
            search.refusals.append((scheduler, answer))
            if search.open == 0:
                done(self._nowhere(search), scheduler, now)
            return
        for other, request in search.requests:
            if other != scheduler:
                self.sessions[other].forget(request)
        self._homes.remember(search.job, scheduler)
        done(answer.result, scheduler, now)

    def _nowhere(self, search: _Search) -> Error:
        for _, why in search.refusals:
            if not isinstance(why, (NotFound, Unavailable)):
                return why
        ignorant = [self.endpoints[i] for i, why in search.refusals if isinstance(why, NotFound)]
        silent = [self.endpoints[i] for i, why in search.refusals if isinstance(why, Unavailable)]
        if not silent or not ignorant:
            return search.refusals[0][1]
        return Unavailable(f"job {search.job} is not known to {', '.join(ignorant)}; "
                           f"no answer from {', '.join(silent)}")

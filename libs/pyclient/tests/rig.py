"""For tests: a session or a set of them without a network, and a listener that records what it gets."""

import itertools
import random

from optserve import _messages as m
from optserve import _wire
from optserve._schedulers import SchedulerSet
from optserve._session import Session
from optserve._streams import Listener, SessionOptions

_ids = itertools.count(1)


def new_id():
    return f"{next(_ids):032x}"


def good_job(**fields):
    return m.JobSpec(**{"model": "m", "prompt": "p", **fields})


def event(job, offset, text, **fields):
    return m.JobEvents([m.JobEvent(job, offset, text, **fields)])


def finished(job, text, state=m.JobState.SUCCEEDED):
    return m.JobFinished(m.JobResult(job=job, state=state, text=text))


class Seen:
    """What a stream delivered."""

    def __init__(self, case):
        self.case = case
        self.text, self.restarts, self.ends, self.losses, self.progress = "", 0, [], [], []

    def listener(self):
        return Listener(self.on_text, self.progress.append, self.on_restarted, self.ends.append, self.losses.append)

    def on_text(self, piece, told):
        self.case.assertEqual(told.text_offset, len(self.text.encode()))
        self.case.assertEqual(told.text, piece)
        self.case.assertTrue(piece)
        self.case.assertFalse(self.ends or self.losses, "text after the end")
        self.text += piece

    def on_restarted(self):
        self.restarts += 1
        self.text = ""


class Rig:
    """A session, a clock, and what the session sent. `answer(message)` plays the scheduler."""

    def __init__(self, seed=1, **options):
        self.session = Session(SessionOptions(endpoint="tcp://scheduler:1", random=random.Random(seed), **options))
        self.now = 100.0
        self.sent, self.reconnects, self.down, self.term, self.answer = [], 0, False, 1, None
        self.outcomes = None

    def pass_time(self, seconds, step=0.05):
        for _ in range(round(seconds / step)):
            self.now += step
            self.session.on_tick(self.now)
            self.collect()

    def collect(self):
        self.reconnects += self.session.take_reconnect()
        while True:
            out = self.session.take_out()
            if not out:
                return
            for frame, request in out:
                message = _wire.decode(frame)
                self.sent.append(message)
                if self.down:
                    self.session.on_undeliverable(request, self.now)
                    continue
                if isinstance(message, m.Ping) and self.term:
                    self.receive(m.Pong(message.number, self.term))
                if self.answer:
                    self.answer(message)

    def receive(self, message):
        self.session.on_message(_wire.decode(_wire.encode(message)), self.now)
        self.collect()

    def all(self, kind):
        return [message for message in self.sent if isinstance(message, kind)]

    def submit(self, jobs, listener=None, timeout=10.0):
        self.session.submit(jobs, listener and [listener] * len(jobs), self.now + timeout, self.now, self.on_submitted)
        self.collect()

    def on_submitted(self, submission, _):
        assert self.outcomes is None, "answered twice"
        self.outcomes = submission.outcomes

    def accept(self, *outcomes):
        """Answers each Submit with these."""

        def answer(message):
            if isinstance(message, m.Submit):
                self.receive(m.SubmitReply(message.request, list(outcomes)))

        self.answer = answer

    def accept_one(self, job, seen):
        """Submits one streamed job and has it accepted."""
        self.accept(m.SubmitOutcome(job))
        self.pass_time(0.2)
        self.submit([good_job()], seen.listener())
        self.pass_time(0.1)
        assert self.outcomes[0].job == job
        self.answer = None
        self.sent.clear()


class SetRig:
    """Several sessions. `answers[i](message)` plays scheduler i; those in `down` cannot be reached."""

    def __init__(self, count, seed=1):
        self.endpoints = [f"tcp://s{i}:5555" for i in range(count)]
        self.set = SchedulerSet(self.endpoints, SessionOptions(random=random.Random(seed)))
        self.now, self.down = 100.0, set()
        self.sent = [[] for _ in range(count)]
        self.answers = [None] * count

    def pass_time(self, seconds, step=0.05):
        for _ in range(round(seconds / step)):
            self.now += step
            for session in self.set.sessions:
                session.on_tick(self.now)
            self.collect()

    def collect(self):
        again = True
        while again:
            again = False
            for i, session in enumerate(self.set.sessions):
                session.take_reconnect()
                for frame, request in session.take_out():
                    again = True
                    message = _wire.decode(frame)
                    if i in self.down:
                        session.on_undeliverable(request, self.now)
                        continue
                    self.sent[i].append(message)
                    if isinstance(message, m.Ping):
                        self.receive(i, m.Pong(message.number, 7))
                    elif self.answers[i]:
                        self.answers[i](message)

    def receive(self, i, message):
        self.set.sessions[i].on_message(message, self.now)

    def accepting(self, i):
        """Scheduler i accepts every job, the same key as the same job."""
        jobs = {}

        def answer(message):
            if isinstance(message, m.Submit):
                outcomes = [m.SubmitOutcome(jobs.setdefault(job.key, new_id())) for job in message.jobs]
                self.receive(i, m.SubmitReply(message.request, outcomes))

        self.answers[i] = answer
        return jobs

    def submit(self, jobs, timeout=10.0):
        done = []
        self.set.submit(jobs, None, self.now + timeout, self.now, lambda outcomes, _: done.append(outcomes))
        self.collect()
        return done

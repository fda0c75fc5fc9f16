"""What callers get: pieces of streams, accepted jobs, the answers of several schedulers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, Generic, List, Optional, Sequence, TypeVar, Union

from ._errors import Cancelled, Error, Internal, make_error
from ._messages import JobEvent, JobResult, JobState, SubmitOutcome
from ._streams import Listener

T = TypeVar("T")


class Piece(str):
    """A piece of output: text, with what is known of the job at this point.

    offset: bytes of output before it. restarted: what came before is not the job's text, which begins anew with this
    piece. tokens: output tokens so far.
    """

    offset: int
    restarted: bool
    tokens: int

    def __new__(cls, text: str, offset: int = 0, restarted: bool = False, tokens: int = 0) -> "Piece":
        made = super().__new__(cls, text)
        made.offset = offset
        made.restarted = restarted
        made.tokens = tokens
        return made


@dataclass(frozen=True)
class Job:
    """A job that is accepted and, unless the scheduler has no journal, on disk."""

    id: str
    key: str
    duplicate: bool = False  # the key was known: this is the earlier job
    position: int = 0  # jobs that would start before it
    eta: Optional[float] = None  # expected wait until it starts, in seconds; None: not known


class Answers(Dict[str, T], Generic[T]):
    """The answers of the schedulers that answered, by address; `errors` has the others."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: Dict[str, Error] = {}

    @classmethod
    def of(cls, answers: Dict[str, Any], kind: Any) -> "Answers[Any]":
        made: "Answers[Any]" = cls()
        for endpoint, answer in answers.items():
            if isinstance(answer, kind):
                made[endpoint] = answer
            elif isinstance(answer, Error):
                made.errors[endpoint] = answer
            else:
                made.errors[endpoint] = Internal(f"{endpoint} answered with {type(answer).__name__}")
        if made.errors and not made:
            raise next(iter(made.errors.values()))
        return made

    def all(self) -> List[T]:
        """The answers; raises the first error if one is missing."""
        for why in self.errors.values():
            raise why
        return list(self.values())


def accepted(outcome: SubmitOutcome, key: str) -> Union[Job, Error]:
    if outcome.job is None:
        return make_error(outcome.error or 14, outcome.message, outcome.retry_after_ms)
    eta = None if outcome.eta_ms < 0 else outcome.eta_ms / 1000
    return Job(outcome.job, key, outcome.duplicate, outcome.position, eta)


class Feed:
    """Collects what a stream delivers, for a reader. `on_piece` and `on_end` are called on the client's loop."""

    def __init__(self, on_piece: Optional[Callable[[Piece], None]], on_end: Callable[[Any], None]) -> None:
        self._on_piece = on_piece
        self._on_end = on_end
        self._restarted = False
        self.has_ended = False
        self.progress: Optional[JobEvent] = None
        self.restarts = 0

    def listener(self) -> Listener:
        if self._on_piece is None:
            return Listener(on_finished=self.end, on_lost=self.end)
        return Listener(self._on_text, self._on_progress, self._on_restarted, self.end, self.end)

    def end(self, how: Union[JobResult, Error]) -> None:
        if self.has_ended:
            return
        self.has_ended = True
        if self._restarted and self._on_piece is not None:
            self._on_piece(Piece("", 0, True))
        self._on_end(how)

    def _on_progress(self, event: JobEvent) -> None:
        self.progress = event

    def _on_restarted(self) -> None:
        self._restarted = True
        self.restarts += 1

    def _on_text(self, text: str, event: JobEvent) -> None:
        restarted, self._restarted = self._restarted, False
        assert self._on_piece is not None
        self._on_piece(Piece(text, event.text_offset, restarted, event.tokens))


class StreamBase:
    """What the streams of both clients are: the text that was read, and two futures that the client settles."""

    _accepted: Any  # a future of asyncio or of concurrent.futures, as the client needs it
    _end: Any

    def __init__(self, on_piece: Optional[Callable[[Piece], None]]) -> None:
        self._feed = Feed(on_piece, self._on_end)
        self._follow: Any = None
        self._was_cancelled = False
        self._text: List[str] = []

    @property
    def text(self) -> str:
        """The text that was read so far."""
        return "".join(self._text)

    @property
    def progress(self) -> Optional[JobEvent]:
        """State, place in the queue, tokens, or bytes of a conversion, as last told."""
        return self._feed.progress

    @property
    def restarts(self) -> int:
        """How often the text began anew."""
        return self._feed.restarts

    def close(self) -> None:
        """Stops following; the job goes on."""
        raise NotImplementedError

    # --- on the client's loop

    def _take(self, piece: Piece) -> Piece:
        """The piece, which becomes part of the text."""
        if piece.restarted:
            self._text.clear()
        self._text.append(piece)
        return piece

    def _close(self, engine: Any) -> None:
        if self._follow is not None:
            engine.unfollow(self._follow)
            self._follow = None
        self._feed.end(Cancelled("the stream was closed"))

    def _on_end(self, how: Union[JobResult, Error]) -> None:
        if isinstance(how, Error):
            self._end.set_exception(how)
        else:
            self._end.set_result(how)

    def _on_outcome(self, job: Union[Job, Error], follows: Sequence[Any]) -> None:
        if isinstance(job, Error):
            self._accepted.set_exception(job)
            self._feed.end(job)
            return
        self._follow = follows[0] if follows else None
        self._accepted.set_result(job)
        if self._feed.has_ended:  # closed before the job was accepted
            self.close()


def raise_of(result: JobResult, allow_cancelled: bool = False) -> JobResult:
    """The result of a job that succeeded; raises for another."""
    if not (allow_cancelled and result.state == JobState.CANCELLED):
        result.raise_if_failed()
    return result

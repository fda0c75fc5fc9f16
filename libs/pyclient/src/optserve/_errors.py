"""One exception class for each error code of the protocol."""

from __future__ import annotations

from typing import Any, Dict, Optional, Type

from ._messages import ERRORS, ErrorCode, JobState


class Error(Exception):
    """A request, or a job, was refused or failed.

    code: number of the protocol's error code. message: a sentence for people. retry_after: seconds after which the
    scheduler wants to be asked again, if it said so. result: the JobResult, of a job that was accepted and failed.
    """

    code: ErrorCode = ErrorCode.INTERNAL

    def __init__(self, message: str, retry_after: Optional[float] = None, result: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        self.result = result

    @property
    def name(self) -> str:
        return ERRORS[self.code][0]

    @property
    def may_succeed_later(self) -> bool:
        """Whether the same request can succeed at another time."""
        return ERRORS[self.code][1]


class BadRequest(Error):
    """Malformed or out of range."""

    code = ErrorCode.BAD_REQUEST


class UnsupportedVersion(Error):
    """The scheduler does not know this message, field or version of the protocol."""

    code = ErrorCode.UNSUPPORTED_VERSION


class UnknownModel(Error):
    """No such model is served."""

    code = ErrorCode.UNKNOWN_MODEL


class PromptTooLong(Error):
    """Prompt plus the wanted tokens exceed the model's context."""

    code = ErrorCode.PROMPT_TOO_LONG


class IdempotencyConflict(Error):
    """The key belongs to another job."""

    code = ErrorCode.IDEMPOTENCY_CONFLICT


class NotFound(Error):
    """No such job."""

    code = ErrorCode.NOT_FOUND


class Busy(Error):
    """A bound is reached; `retry_after` tells when to try again."""

    code = ErrorCode.BUSY


class Unavailable(Error):
    """No answer, or the scheduler cannot do this at the moment."""

    code = ErrorCode.UNAVAILABLE


class DataCorrupt(Error):
    """A file or message does not hold what it promises."""

    code = ErrorCode.DATA_CORRUPT


class UnsupportedFormat(Error):
    """A file of a kind or version that is not read."""

    code = ErrorCode.UNSUPPORTED_FORMAT


class DeadlineExceeded(Error):
    """The job's time ran out."""

    code = ErrorCode.DEADLINE_EXCEEDED


class Cancelled(Error):
    """The job was cancelled, or the client was closed."""

    code = ErrorCode.CANCELLED


class AttemptsExhausted(Error):
    """Every attempt of the job lost its worker."""

    code = ErrorCode.ATTEMPTS_EXHAUSTED


class Internal(Error):
    """A fault of optserve."""

    code = ErrorCode.INTERNAL


class StorageFull(Error):
    """The disk of the scheduler's journal is full."""

    code = ErrorCode.STORAGE_FULL


CLASSES: Dict[int, Type[Error]] = {int(c.code): c for c in Error.__subclasses__()}

_BY_STATE = {JobState.CANCELLED: Cancelled, JobState.EXPIRED: DeadlineExceeded, JobState.DEAD: AttemptsExhausted}


def make_error(code: int, message: str, retry_after_ms: int = 0) -> Error:
    return CLASSES.get(int(code), Internal)(message, retry_after_ms / 1000 if retry_after_ms else None)


def error_of_result(result: Any) -> Error:
    """Why a job did not succeed."""
    if result.error is not None:
        kind = CLASSES.get(int(result.error), Internal)
    else:
        kind = _BY_STATE.get(result.state, Internal)
    message = result.message or f"the job ended as {JobState(result.state).name.lower()}"
    return kind(f"job {result.job}: {message}", None, result)

"""What a job may ask for, as far as docs/protocol.json states it: checked before anything is sent. The scheduler checks
the same and more."""

from __future__ import annotations

import re
from typing import Any

from ._errors import BadRequest, PromptTooLong
from ._messages import JOB_BOUNDS, LIMITS, JobKind, JobSpec

_NAME = re.compile(r"[A-Za-z0-9._-]*")
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_DEFAULTS = JobSpec()


def _refuse(name: str, found: Any, least: float, most: float) -> None:
    kind = PromptTooLong if name in ("prompt: bytes", "prompt_ids: entries") else BadRequest
    raise kind(f"{name} is {found}, expected {least:g} to {most:g}")


def _check_field(job: JobSpec, name: str) -> None:
    kind, least, most, is_excluded = JOB_BOUNDS[name]
    value = getattr(job, name)
    try:
        if kind == "number":
            if not least <= value <= most or (is_excluded and value == least):
                raise BadRequest(f"{name} is {value}, expected {'above ' if is_excluded else ''}{least:g} to {most:g}")
            return
        size = len(value) if kind == "entries" else len(value.encode())
    except (TypeError, AttributeError):
        raise BadRequest(f"{name}: a {type(value).__name__} cannot stand here") from None
    except UnicodeEncodeError as error:
        raise BadRequest(f"{name}: text cannot be encoded as UTF-8: {error.reason}") from None
    if not least <= size <= most:
        _refuse(f"{name}: {'entries' if kind == 'entries' else 'bytes'}", size, least, most)
    if kind == "name" and not _NAME.fullmatch(value):
        raise BadRequest(f"{name} is {value!r}, expected only letters, digits, '.', '_' and '-'")


def is_traceparent(text: str) -> bool:
    found = _TRACEPARENT.fullmatch(text)
    return found is not None and set(found[1]) != {"0"} and set(found[2]) != {"0"}


def check_job(job: JobSpec) -> None:
    """Raises BadRequest or PromptTooLong for the first field out of its range."""
    fields = job.__dict__
    if job.traceparent and not is_traceparent(job.traceparent):
        raise BadRequest("traceparent: expected the form of W3C Trace Context, version 00")
    is_conversion = job.kind == JobKind.CONVERT
    for name in JOB_BOUNDS:
        given, usual = fields[name], getattr(_DEFAULTS, name)
        if given is not usual and given != usual:
            _check_field(job, name)
    _check_field(job, "key")
    if is_conversion:
        if job.convert is None:
            raise BadRequest("convert: a conversion job must name a source and a destination")
        return
    if job.convert is not None:
        raise BadRequest("convert: expected in conversion jobs only")
    _check_field(job, "model")
    if bool(job.prompt) == bool(job.prompt_ids):
        raise BadRequest(f"prompt: expected text or ids, found {'both' if job.prompt else 'neither'}")
    if job.max_new_tokens == 0 and not job.prompt_logprobs:
        raise BadRequest("max_new_tokens is 0, expected 1 to 2048; 0 only with prompt_logprobs")
    if job.prompt_best > 0 and not job.prompt_logprobs:
        raise BadRequest(f"prompt_best is {job.prompt_best}, expected 0 without prompt_logprobs")
    for name in ("stop", "bad_words"):
        for text in getattr(job, name):
            if not isinstance(text, str) or not 1 <= len(text.encode()) <= LIMITS["stop_string_bytes"]:
                raise BadRequest(f"{name}: expected texts of 1 to {LIMITS['stop_string_bytes']} bytes, found {text!r}")

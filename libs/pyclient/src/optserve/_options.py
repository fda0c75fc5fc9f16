"""Keyword arguments become jobs. Their names are those of the protocol's JobSpec."""

from __future__ import annotations

import difflib
from dataclasses import fields, replace
from typing import Any, Dict, List, Mapping, Sequence, Union

from ._messages import ConvertSpec, JobKind, JobSpec, OnDisconnect, SamplingProfile, TokenBias

Prompt = Union[str, Sequence[int]]
# A job as callers may give it: a prompt, its options by name with `prompt` or `prompt_ids` among them, or a JobSpec.
JobLike = Union[str, Mapping[str, Any], JobSpec]

_OPTIONS = {each.name for each in fields(JobSpec)} - {"kind", "convert", "prompt"}
_CONVERT_OPTIONS = {each.name for each in fields(ConvertSpec)}


def _check_names(given: Mapping[str, Any], known: "set[str]", what: str) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), 1, 0.5)
            raise TypeError(f"{what} has no option {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))


def _member(kind: Any, value: Any) -> Any:
    """A member of an enumeration by its name, in any case and with or without underscores."""
    if not isinstance(value, str):
        return value
    for member in kind:
        if member.name.replace("_", "") == value.upper().replace("_", ""):
            return member
    raise TypeError(f"expected one of {', '.join(member.name.lower() for member in kind)}, found {value!r}")


def _with_usual_types(options: Dict[str, Any]) -> Dict[str, Any]:
    if isinstance(options.get("stop"), str):
        options["stop"] = [options["stop"]]
    if isinstance(options.get("logit_bias"), Mapping):
        options["logit_bias"] = [TokenBias(id, bias) for id, bias in options["logit_bias"].items()]
    for name, kind in (("on_disconnect", OnDisconnect), ("profile", SamplingProfile)):
        if name in options:
            options[name] = _member(kind, options[name])
    for name in ("stop", "prompt_ids", "allowed_ids", "stop_ids", "top_p_reset_ids", "bad_words", "logit_bias"):
        if name in options:
            options[name] = list(options[name])
    if "bad_word_ids" in options:
        options["bad_word_ids"] = [list(word) for word in options["bad_word_ids"]]
    return options


def make_job(prompt: Prompt, options: Mapping[str, Any]) -> JobSpec:
    """Raises TypeError for an option that does not exist, and names the nearest one."""
    _check_names(options, _OPTIONS, "a job")
    options = _with_usual_types(dict(options))
    if isinstance(prompt, str):
        return JobSpec(prompt=prompt, **options)
    if isinstance(prompt, (bytes, bytearray)):
        raise TypeError("prompt: expected text or a list of ids, found bytes")
    if options.get("prompt_ids"):
        raise TypeError("prompt and prompt_ids were both given")
    return JobSpec(**{**options, "prompt_ids": list(prompt)})


def job_of(job: JobLike, defaults: Mapping[str, Any]) -> JobSpec:
    """`defaults` are options for what the job itself does not say."""
    if isinstance(job, JobSpec):
        _check_names(defaults, _OPTIONS, "a job")
        usual = JobSpec()
        job = replace(job)  # the caller's object is not changed
        for name, value in _with_usual_types(dict(defaults)).items():
            if getattr(job, name) == getattr(usual, name):
                setattr(job, name, value)
        return job
    if isinstance(job, Mapping):
        options = {**defaults, **job}
        return make_job(options.pop("prompt", ""), options)
    return make_job(job, defaults)


def conversion_job(source: str, destination: str, options: Mapping[str, Any]) -> JobSpec:
    """Options are those of a ConvertSpec and of a job."""
    _check_names(options, _OPTIONS | _CONVERT_OPTIONS, "a conversion")
    how = {name: value for name, value in options.items() if name in _CONVERT_OPTIONS}
    job = {name: value for name, value in options.items() if name not in _CONVERT_OPTIONS}
    how.setdefault("dtype", "keep")
    return JobSpec(kind=JobKind.CONVERT, convert=ConvertSpec(source, destination, **how), **_with_usual_types(job))


def job_id(job: Any) -> str:
    """The id of a job that was given as one, or as what submit() returned."""
    return job if isinstance(job, str) else getattr(job, "job", None) or getattr(job, "id")


__all__: List[str] = ["JobLike", "Prompt", "conversion_job", "job_id", "job_of", "make_job"]

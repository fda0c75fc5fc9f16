"""The messages of the wire protocol, its limits and its numbers.

Made by make_messages.py from docs/protocol.json, which is made from the C++ code. Ids of jobs are 32 hexadecimal digits
here and 16 bytes on the wire.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, ClassVar, Dict, List, Optional, Tuple

from ._result_methods import ResultMethods

PROTOCOL_VERSION = 1

LIMITS: Dict[str, int] = {
    "client_frame_bytes": 1048576,
    "frame_bytes": 4194304,
    "depth": 8,
    "map_entries": 64,
    "array_entries": 4096,
    "text_bytes": 65536,
    "text_bytes_of_large_frames": 1048576,
    "jobs_per_submit": 256,
    "jobs_per_list": 1000,
    "stop_string_bytes": 64,
    "stream_window_bytes_min": 4096,
    "stream_window_bytes_max": 196608,
}
STREAM_COST: Dict[str, int] = {
    "event": 64,
    "byte_of_event_text": 1,
    "result": 256,
    "byte_of_result_text": 1,
    "byte_of_result_message": 1,
    "id_of_ids": 3,
    "entry_of_prompt_logprobs": 5,
    "entry_of_logprobs": 5,
    "entry_of_best": 9,
    "entry_of_prompt_best": 9,
}
ERRORS: Dict[int, Tuple[str, bool]] = {  # code: name, whether the same request may succeed later
    1: ("bad_request", False),
    2: ("unsupported_version", False),
    3: ("unknown_model", False),
    4: ("prompt_too_long", False),
    5: ("idempotency_conflict", False),
    6: ("not_found", False),
    7: ("busy", True),
    8: ("unavailable", True),
    9: ("data_corrupt", False),
    10: ("unsupported_format", False),
    11: ("deadline_exceeded", False),
    12: ("cancelled", False),
    13: ("attempts_exhausted", False),
    14: ("internal", False),
    15: ("storage_full", True),
}


class JobKind(enum.IntEnum):
    GENERATE = 1
    CONVERT = 2


class SamplingProfile(enum.IntEnum):
    DEFAULT = 0
    FASTER_TRANSFORMER = 1
    METASEQ = 2


class OnDisconnect(enum.IntEnum):
    CONTINUE = 1
    CANCEL = 2


class ErrorCode(enum.IntEnum):
    BAD_REQUEST = 1
    UNSUPPORTED_VERSION = 2
    UNKNOWN_MODEL = 3
    PROMPT_TOO_LONG = 4
    IDEMPOTENCY_CONFLICT = 5
    NOT_FOUND = 6
    BUSY = 7
    UNAVAILABLE = 8
    DATA_CORRUPT = 9
    UNSUPPORTED_FORMAT = 10
    DEADLINE_EXCEEDED = 11
    CANCELLED = 12
    ATTEMPTS_EXHAUSTED = 13
    INTERNAL = 14
    STORAGE_FULL = 15


class JobState(enum.IntEnum):
    QUEUED = 1
    RUNNING = 2
    SUCCEEDED = 3
    FAILED = 4
    CANCELLED = 5
    EXPIRED = 6
    DEAD = 7


class FinishReason(enum.IntEnum):
    NONE_ = 0
    END_OF_TEXT = 1
    LENGTH = 2
    STOP = 3
    CANCELLED = 4
    ERROR = 5


class QueueMode(enum.IntEnum):
    OPEN = 1
    PAUSED = 2
    DRAINING = 3


class ControlAction(enum.IntEnum):
    PAUSE = 1
    DRAIN = 2
    RESUME = 3


class ControlScope(enum.IntEnum):
    QUEUE = 1
    MODEL = 2
    SERVICE = 3


@dataclass
class Submit:
    # request: chosen by the asker, never 0 in a question, and returned in the answer
    request: int = 0
    # stream: send the jobs' events and results to this connection
    stream: bool = True
    # jobs: 1 to 256
    jobs: List[JobSpec] = field(default_factory=list)

    KIND: ClassVar[int] = 1
    IS_ARRAY: ClassVar[bool] = False
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("request", "uint64"),
        ("stream", "bool"),
        ("jobs", "JobSpec[]"),
    )


@dataclass
class JobSpec:
    # key: idempotency key, unique for each tenant; the same key with the same job is the same job
    key: str = ""
    # tenant: whose share of the queue it uses; empty: the default tenant
    tenant: str = ""
    # kind: what is to be done; `convert` says how, of a conversion
    kind: JobKind = JobKind.GENERATE
    # model: which model; empty only of a conversion
    model: str = ""
    # prompt: text; either this or `prompt_ids`
    prompt: str = ""
    # prompt_ids: the prompt as ids, with the model's leading id
    prompt_ids: List[int] = field(default_factory=list)
    # temperature: Logits are divided by it; 0: always the best token
    temperature: float = 1.0
    # top_k: Draw from the k best tokens; 0: all
    top_k: int = 0
    # top_p: Draw from the fewest best tokens whose probabilities add up to this
    top_p: float = 1.0
    # min_p: Leave out tokens less likely than this share of the best token's probability
    min_p: float = 0.0
    # typical_p: Draw from the tokens of the most typical surprise whose probabilities add up to this
    typical_p: float = 1.0
    # top_p_decay: top_p is multiplied by it after each token, until a reset id restores it
    top_p_decay: float = 1.0
    # top_p_min: top_p does not decay below
    top_p_min: float = 0.0
    # top_p_decay_after: top_p starts to decay this many tokens after the last reset
    top_p_decay_after: int = 0
    # repetition_penalty: Logits of ids in prompt or output are divided by it where positive and multiplied where negati
    repetition_penalty: float = 1.0
    # presence_penalty: Subtracted once from the logit of each generated id
    presence_penalty: float = 0.0
    # frequency_penalty: Subtracted for each occurrence of a generated id
    frequency_penalty: float = 0.0
    # prompt_presence_penalty: Subtracted once from the logit of each id of the prompt
    prompt_presence_penalty: float = 0.0
    # prompt_frequency_penalty: Subtracted for each occurrence of an id in the prompt
    prompt_frequency_penalty: float = 0.0
    # min_new_tokens: Neither the end of the text nor a stop id is drawn before this many new tokens
    min_new_tokens: int = 0
    # ignore_eos: The end-of-text id does not end the output
    ignore_eos: bool = False
    # seed: The token at a position depends on seed and position alone
    seed: int = 0
    # logprobs: Report the log-probability of each drawn token and of this many best ones; -1: none
    logprobs: int = -1
    # beam_width: Number of continuations that a beam search follows; 1: no beam search
    beam_width: int = 1
    # beam_length_penalty: A hypothesis counts by its log-probability over its length to this power
    beam_length_penalty: float = 1.0
    # beam_early_stopping: End when no running beam is better at its length (0), when beam_width hypotheses have ended (
    beam_early_stopping: int = 0
    # beam_diversity: Each further continuation of the same beam is ranked lower by this much
    beam_diversity: float = 0.0
    # profile: Order and formulas where systems differ: 0 default (as vLLM), 1 FasterTransformer, 2 Metaseq
    profile: SamplingProfile = SamplingProfile.DEFAULT
    # max_new_tokens: longest output; 0 only with `prompt_logprobs`, which then only scores the prompt
    max_new_tokens: int = 16
    # stop: texts that end the output, of 1 to 64 bytes each
    stop: List[str] = field(default_factory=list)
    # prompt_logprobs: report the log-probability of each id of the prompt but the first
    prompt_logprobs: bool = False
    # priority: higher ones first
    priority: int = 0
    # max_attempts: how often it is tried if its worker is lost
    max_attempts: int = 3
    # ttl_ms: time from acceptance, or from the end of its delay, after which it expires
    ttl_ms: int = 600000
    # result_ttl_ms: how long result and key are kept after its end
    result_ttl_ms: int = 3600000
    # convert: the conversion; only with `kind` 2
    convert: Optional[ConvertSpec] = None
    # group: jobs that are watched and cancelled together; per tenant
    group: str = ""
    # delay_ms: time from acceptance before which it is not started
    delay_ms: int = 0
    # queue_ms: longest wait for its first start; 0: `ttl_ms` alone
    queue_ms: int = 0
    # run_ms: longest duration of one attempt; 0: `ttl_ms` alone
    run_ms: int = 0
    # on_disconnect: what happens when nobody follows it any more
    on_disconnect: OnDisconnect = OnDisconnect.CONTINUE
    # allowed_ids: only these ids are drawn; empty: all
    allowed_ids: List[int] = field(default_factory=list)
    # logit_bias: added to the logits of single ids
    logit_bias: List[TokenBias] = field(default_factory=list)
    # bad_word_ids: sequences of ids that are not completed
    bad_word_ids: List[List[int]] = field(default_factory=list)
    # stop_ids: ids that end the output
    stop_ids: List[int] = field(default_factory=list)
    # top_p_reset_ids: `top_p` starts again after one of them
    top_p_reset_ids: List[int] = field(default_factory=list)
    # bad_words: texts that must not occur in the output, of 1 to 64 bytes each
    bad_words: List[str] = field(default_factory=list)
    # include_stop: whether what ended the output is part of its text
    include_stop: bool = False
    # prompt_best: with `prompt_logprobs`: how many of the best ids at each place of the prompt
    prompt_best: int = 0
    # traceparent: the trace that the job belongs to, in the form of W3C Trace Context 00; empty: none
    traceparent: str = ""

    KIND: ClassVar[int] = 0
    IS_ARRAY: ClassVar[bool] = False
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("key", "text"),
        ("tenant", "text"),
        ("kind", "JobKind"),
        ("model", "text"),
        ("prompt", "text"),
        ("prompt_ids", "int32[]"),
        ("temperature", "float32"),
        ("top_k", "int32"),
        ("top_p", "float32"),
        ("min_p", "float32"),
        ("typical_p", "float32"),
        ("top_p_decay", "float32"),
        ("top_p_min", "float32"),
        ("top_p_decay_after", "int32"),
        ("repetition_penalty", "float32"),
        ("presence_penalty", "float32"),
        ("frequency_penalty", "float32"),
        ("prompt_presence_penalty", "float32"),
        ("prompt_frequency_penalty", "float32"),
        ("min_new_tokens", "int32"),
        ("ignore_eos", "bool"),
        ("seed", "uint64"),
        ("logprobs", "int32"),
        ("beam_width", "int32"),
        ("beam_length_penalty", "float32"),
        ("beam_early_stopping", "int32"),
        ("beam_diversity", "float32"),
        ("profile", "SamplingProfile"),
        ("max_new_tokens", "int32"),
        ("stop", "text[]"),
        ("prompt_logprobs", "bool"),
        ("priority", "int32"),
        ("max_attempts", "int32"),
        ("ttl_ms", "int64"),
        ("result_ttl_ms", "int64"),
        ("convert", "ConvertSpec?"),
        ("group", "text"),
        ("delay_ms", "int64"),
        ("queue_ms", "int64"),
        ("run_ms", "int64"),
        ("on_disconnect", "OnDisconnect"),
        ("allowed_ids", "int32[]"),
        ("logit_bias", "TokenBias[]"),
        ("bad_word_ids", "int32[][]"),
        ("stop_ids", "int32[]"),
        ("top_p_reset_ids", "int32[]"),
        ("bad_words", "text[]"),
        ("include_stop", "bool"),
        ("prompt_best", "int32"),
        ("traceparent", "text"),
    )


@dataclass
class ConvertSpec:
    # source: folder, file or glob in the converter's file system, 1 to 4,096 bytes without NUL
    source: str = ""
    # destination: folder to create there, 1 to 4,096 bytes without NUL
    destination: str = ""
    # dtype: fp32, fp16, bf16 or keep
    dtype: str = ""
    # shards: how many files; 0: the converter chooses; at most 64
    shards: int = 0
    # quantize: none (or empty), int8, int8-mse, fp8 or int4
    quantize: str = ""
    # verify: compare the result with the source; the job fails if they differ
    verify: bool = False

    KIND: ClassVar[int] = 0
    IS_ARRAY: ClassVar[bool] = False
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("source", "text"),
        ("destination", "text"),
        ("dtype", "text"),
        ("shards", "int32"),
        ("!quantize", "text"),
        ("!verify", "bool"),
    )


@dataclass
class TokenBias:
    # id: which id
    id: int = 0
    # bias: -100 to 100; at -100 the id is not drawn
    bias: float = 0.0

    KIND: ClassVar[int] = 0
    IS_ARRAY: ClassVar[bool] = True
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("id", "int32"),
        ("bias", "float32"),
    )


@dataclass
class SubmitReply:
    # request: chosen by the asker, never 0 in a question, and returned in the answer
    request: int = 0
    # outcomes: one for each job, in the order of the jobs
    outcomes: List[SubmitOutcome] = field(default_factory=list)

    KIND: ClassVar[int] = 2
    IS_ARRAY: ClassVar[bool] = False
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("request", "uint64"),
        ("outcomes", "SubmitOutcome[]"),
    )


@dataclass
class SubmitOutcome:
    # job: the id of a job that is accepted and durable; nil of a refused one
    job: Optional[str] = None
    # error: why it was refused; nil of an accepted one
    error: Optional[ErrorCode] = None
    # message: for people
    message: str = ""
    # position: jobs that would start before it
    position: int = 0
    # duplicate: the key was known, and `job` is the earlier job
    duplicate: bool = False
    # eta_ms: expected wait until a queued job starts; -1: not known
    eta_ms: int = -1
    # retry_after_ms: of `busy`, `storage_full` and `deadline_exceeded`: when to ask again; 0: not known
    retry_after_ms: int = 0
    # unfollowed: `stream` was asked for, and the job has its maximum of followers
    unfollowed: bool = False

    KIND: ClassVar[int] = 0
    IS_ARRAY: ClassVar[bool] = True
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("job", "id?"),
        ("error", "ErrorCode?"),
        ("message", "text"),
        ("position", "uint32"),
        ("duplicate", "bool"),
        ("eta_ms", "int64"),
        ("retry_after_ms", "int64"),
        ("unfollowed", "bool"),
    )


@dataclass
class Attach:
    # request: chosen by the asker, never 0 in a question, and returned in the answer
    request: int = 0
    # job: which job
    job: str = "00000000000000000000000000000000"
    # text_offset: how much of the text this client has
    text_offset: int = 0
    # text_digest: which text that is; 0: not told
    text_digest: int = 0

    KIND: ClassVar[int] = 3
    IS_ARRAY: ClassVar[bool] = False
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("request", "uint64"),
        ("job", "id"),
        ("text_offset", "uint64"),
        ("text_digest", "uint64"),
    )


@dataclass
class JobEvents:
    # events: of one job in order
    events: List[JobEvent] = field(default_factory=list)

    KIND: ClassVar[int] = 4
    IS_ARRAY: ClassVar[bool] = False
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("events", "JobEvent[]"),
    )


@dataclass
class JobEvent:
    # job: which job
    job: str = "00000000000000000000000000000000"
    # text_offset: bytes of output before this piece
    text_offset: int = 0
    # text: whole characters; may be empty
    text: str = ""
    # tokens: output tokens so far
    tokens: int = 0
    # progress_done: tokens, or bytes of a conversion
    progress_done: int = 0
    # progress_total: of how many
    progress_total: int = 0
    # state: of the job
    state: JobState = JobState.QUEUED
    # position: of a queued job: how many would start before it
    position: int = 0
    # eta_ms: expected wait until a queued job starts; -1: not known
    eta_ms: int = -1
    # restarted: what this client has is not the job's text, which begins anew with this piece
    restarted: bool = False

    KIND: ClassVar[int] = 0
    IS_ARRAY: ClassVar[bool] = True
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("job", "id"),
        ("text_offset", "uint64"),
        ("text", "text"),
        ("tokens", "uint32"),
        ("progress_done", "int64"),
        ("progress_total", "int64"),
        ("state", "JobState"),
        ("position", "uint32"),
        ("eta_ms", "int64"),
        ("restarted", "bool"),
    )


@dataclass
class JobFinished:
    # result: is final
    result: JobResult = field(default_factory=lambda: JobResult())

    KIND: ClassVar[int] = 5
    IS_ARRAY: ClassVar[bool] = False
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("result", "JobResult"),
    )


@dataclass
class JobResult(ResultMethods):
    # job: the job's id
    job: str = "00000000000000000000000000000000"
    # key: as submitted
    key: str = ""
    # state: the result is final when this is `succeeded` or a later value
    state: JobState = JobState.QUEUED
    # finish_reason: why the output ended
    finish_reason: FinishReason = FinishReason.NONE_
    # error: why it did not succeed; nil of a job that succeeded or goes on
    error: Optional[ErrorCode] = None
    # message: the same for people; of a conversion what was written
    message: str = ""
    # text: the output alone, without prompt and stop string
    text: str = ""
    # ids: of the output, with a final end-of-text id
    ids: List[int] = field(default_factory=list)
    # prompt_logprobs: of the prompt's ids from the second one on, if asked for
    prompt_logprobs: List[float] = field(default_factory=list)
    # prompt_tokens: ids of the prompt
    prompt_tokens: int = 0
    # attempts: how often it was started
    attempts: int = 0
    # progress_done: tokens, or bytes of a conversion
    progress_done: int = 0
    # progress_total: of how many
    progress_total: int = 0
    # timings: time spent in each stage
    timings: Timings = field(default_factory=lambda: Timings())
    # tenant: as submitted
    tenant: str = ""
    # group: as submitted
    group: str = ""
    # losses: why each lost attempt was lost, oldest first
    losses: List[str] = field(default_factory=list)
    # position: of a queued job: how many would start before it
    position: int = 0
    # eta_ms: expected wait until a queued job starts; -1: not known
    eta_ms: int = -1
    # logprobs: if asked for: of each id of the output
    logprobs: List[float] = field(default_factory=list)
    # best: if asked for: the best ids at each place of the output
    best: List[List[TokenLogprob]] = field(default_factory=list)
    # hypotheses: of a beam search, best first; `text` and `ids` are those of the first
    hypotheses: List[Hypothesis] = field(default_factory=list)
    # prompt_ids: with `prompt_logprobs`: all ids of the prompt
    prompt_ids: List[int] = field(default_factory=list)
    # prompt_best: with `prompt_best`: the best ids at the place of each of `prompt_logprobs`
    prompt_best: List[List[TokenLogprob]] = field(default_factory=list)
    # kind: what it is
    kind: JobKind = JobKind.GENERATE
    # traceparent: the trace that the job belongs to, in the form of W3C Trace Context 00; empty: none
    traceparent: str = ""
    # prompt: the beginning of a text prompt, as much as the scheduler keeps; only in `JobStatus`
    prompt: str = ""
    # tries: oldest first; those before the scheduler's last start are missing
    tries: List[JobAttempt] = field(default_factory=list)

    KIND: ClassVar[int] = 0
    IS_ARRAY: ClassVar[bool] = False
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("job", "id"),
        ("key", "text"),
        ("state", "JobState"),
        ("finish_reason", "FinishReason"),
        ("error", "ErrorCode?"),
        ("message", "text"),
        ("text", "text"),
        ("ids", "int32[]"),
        ("prompt_logprobs", "float32[]"),
        ("prompt_tokens", "int32"),
        ("attempts", "int32"),
        ("progress_done", "int64"),
        ("progress_total", "int64"),
        ("timings", "Timings"),
        ("tenant", "text"),
        ("group", "text"),
        ("losses", "text[]"),
        ("position", "uint32"),
        ("eta_ms", "int64"),
        ("logprobs", "float32[]"),
        ("best", "TokenLogprob[][]"),
        ("hypotheses", "Hypothesis[]"),
        ("prompt_ids", "int32[]"),
        ("prompt_best", "TokenLogprob[][]"),
        ("kind", "JobKind"),
        ("traceparent", "text"),
        ("prompt", "text"),
        ("tries", "JobAttempt[]"),
    )


@dataclass
class Timings:
    # encode_ms: text to ids
    encode_ms: int = 0
    # queue_ms: waiting
    queue_ms: int = 0
    # first_token_ms: from acceptance to its first token
    first_token_ms: int = 0
    # run_ms: from its last start to its end
    run_ms: int = 0
    # total_ms: from acceptance to its end
    total_ms: int = 0

    KIND: ClassVar[int] = 0
    IS_ARRAY: ClassVar[bool] = False
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("encode_ms", "int64"),
        ("queue_ms", "int64"),
        ("first_token_ms", "int64"),
        ("run_ms", "int64"),
        ("total_ms", "int64"),
    )


@dataclass
class TokenLogprob:
    # id: which id
    id: int = 0
    # logprob: of it, under the model's own distribution
    logprob: float = 0.0

    KIND: ClassVar[int] = 0
    IS_ARRAY: ClassVar[bool] = True
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("id", "int32"),
        ("logprob", "float32"),
    )


@dataclass
class Hypothesis:
    # ids: all output ids, with the one that ended it
    ids: List[int] = field(default_factory=list)
    # logprob: sum of their log-probabilities
    logprob: float = 0.0
    # score: by which hypotheses are ordered
    score: float = 0.0
    # finish_reason: why it ended
    finish_reason: FinishReason = FinishReason.NONE_
    # text: of the ids
    text: str = ""

    KIND: ClassVar[int] = 0
    IS_ARRAY: ClassVar[bool] = False
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("ids", "int32[]"),
        ("logprob", "float32"),
        ("score", "float32"),
        ("finish_reason", "FinishReason"),
        ("text", "text"),
    )


@dataclass
class JobAttempt:
    # number: from 1; one that does not count has the number of the next
    number: int = 0
    # began_ms: from the job's acceptance to its dispatch
    began_ms: int = 0
    # ended_ms: from the job's acceptance to its loss or the job's end; -1: it goes on
    ended_ms: int = -1
    # service: which worker or converter had it
    service: str = ""
    # loss: why it was lost; empty: it was not
    loss: str = ""

    KIND: ClassVar[int] = 0
    IS_ARRAY: ClassVar[bool] = True
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("number", "int32"),
        ("began_ms", "int64"),
        ("ended_ms", "int64"),
        ("service", "text"),
        ("loss", "text"),
    )


@dataclass
class Cancel:
    # request: chosen by the asker, never 0 in a question, and returned in the answer
    request: int = 0
    # job: which job
    job: str = "00000000000000000000000000000000"

    KIND: ClassVar[int] = 6
    IS_ARRAY: ClassVar[bool] = False
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("request", "uint64"),
        ("job", "id"),
    )


@dataclass
class GetJob:
    # request: chosen by the asker, never 0 in a question, and returned in the answer
    request: int = 0
    # job: which job
    job: str = "00000000000000000000000000000000"

    KIND: ClassVar[int] = 7
    IS_ARRAY: ClassVar[bool] = False
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("request", "uint64"),
        ("job", "id"),
    )


@dataclass
class JobStatus:
    # request: chosen by the asker, never 0 in a question, and returned in the answer
    request: int = 0
    # result: final or not
    result: JobResult = field(default_factory=lambda: JobResult())

    KIND: ClassVar[int] = 8
    IS_ARRAY: ClassVar[bool] = False
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("request", "uint64"),
        ("result", "JobResult"),
    )


@dataclass
class GetStatus:
    # request: chosen by the asker, never 0 in a question, and returned in the answer
    request: int = 0

    KIND: ClassVar[int] = 9
    IS_ARRAY: ClassVar[bool] = False
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("request", "uint64"),
    )


@dataclass
class SystemStatus:
    # request: chosen by the asker, never 0 in a question, and returned in the answer
    request: int = 0
    # term: grows with each start of the scheduler; random with `--volatile`
    term: int = 0
    # durable: false: the scheduler has no journal
    durable: bool = True
    # draining: the scheduler is stopping
    draining: bool = False
    # queued: jobs
    queued: int = 0
    # running: jobs
    running: int = 0
    # finished: jobs that succeeded since the start
    finished: int = 0
    # failed: jobs that failed or are dead, since the start
    failed: int = 0
    # services: those that are registered
    services: List[ServiceStatus] = field(default_factory=list)
    # mode: of the whole queue
    mode: QueueMode = QueueMode.OPEN
    # read_only: the disk of the journal is full
    read_only: bool = False
    # models: with their queues
    models: List[ModelStatus] = field(default_factory=list)
    # cancelled: jobs, since the start
    cancelled: int = 0
    # expired: jobs, since the start
    expired: int = 0

    KIND: ClassVar[int] = 10
    IS_ARRAY: ClassVar[bool] = False
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("request", "uint64"),
        ("term", "uint64"),
        ("durable", "bool"),
        ("draining", "bool"),
        ("queued", "int64"),
        ("running", "int64"),
        ("finished", "int64"),
        ("failed", "int64"),
        ("services", "ServiceStatus[]"),
        ("mode", "QueueMode"),
        ("read_only", "bool"),
        ("models", "ModelStatus[]"),
        ("cancelled", "int64"),
        ("expired", "int64"),
    )


@dataclass
class ServiceStatus:
    # kind: tokenizer, worker or converter
    kind: str = ""
    # instance: id of this start of the process, as hexadecimal text
    instance: str = ""
    # name: for people: host and process id
    name: str = ""
    # models: what it serves
    models: List[str] = field(default_factory=list)
    # running: jobs that it has
    running: int = 0
    # capacity: jobs that it may have
    capacity: int = 0
    # silent_ms: since its last message
    silent_ms: int = 0
    # draining: it wants no new work
    draining: bool = False
    # paused: an operator gives it no new work
    paused: bool = False
    # slots: of `capacity`, jobs that it computes at a time; the others wait with it. 0: `capacity`
    slots: int = 0

    KIND: ClassVar[int] = 0
    IS_ARRAY: ClassVar[bool] = False
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("kind", "text"),
        ("instance", "text"),
        ("name", "text"),
        ("models", "text[]"),
        ("running", "int32"),
        ("capacity", "int32"),
        ("silent_ms", "int64"),
        ("draining", "bool"),
        ("paused", "bool"),
        ("slots", "int32"),
    )


@dataclass
class ModelStatus:
    # name: of the model
    name: str = ""
    # mode: of its queue
    mode: QueueMode = QueueMode.OPEN
    # queued: jobs
    queued: int = 0
    # running: jobs
    running: int = 0
    # tokens_per_second: measured while there was work; 0: not yet
    tokens_per_second: float = 0.0
    # eta_ms: expected wait until a queued job starts; -1: not known
    eta_ms: int = -1

    KIND: ClassVar[int] = 0
    IS_ARRAY: ClassVar[bool] = False
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("name", "text"),
        ("mode", "QueueMode"),
        ("queued", "int64"),
        ("running", "int64"),
        ("tokens_per_second", "float64"),
        ("eta_ms", "int64"),
    )


@dataclass
class Refused:
    # request: chosen by the asker, never 0 in a question, and returned in the answer
    request: int = 0
    # code: see the error codes
    code: ErrorCode = ErrorCode.BAD_REQUEST
    # message: for people
    message: str = ""
    # retry_after_ms: of `busy`, `storage_full` and `deadline_exceeded`: when to ask again; 0: not known
    retry_after_ms: int = 0

    KIND: ClassVar[int] = 11
    IS_ARRAY: ClassVar[bool] = False
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("request", "uint64"),
        ("code", "ErrorCode"),
        ("message", "text"),
        ("retry_after_ms", "int64"),
    )


@dataclass
class Ping:
    # number: returned in `Pong`
    number: int = 0

    KIND: ClassVar[int] = 12
    IS_ARRAY: ClassVar[bool] = False
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("number", "uint64"),
    )


@dataclass
class Pong:
    # number: that of the `Ping`
    number: int = 0
    # term: grows with each start of the scheduler; random with `--volatile`
    term: int = 0
    # waiting: for services: jobs that this one could run
    waiting: int = 0

    KIND: ClassVar[int] = 13
    IS_ARRAY: ClassVar[bool] = False
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("number", "uint64"),
        ("term", "uint64"),
        ("waiting", "int64"),
    )


@dataclass
class Credit:
    # consumed: stream cost of all that this client has taken, on any connection
    consumed: int = 0
    # window: how much more may be under way, 4,096 to 196,608
    window: int = 0

    KIND: ClassVar[int] = 29
    IS_ARRAY: ClassVar[bool] = False
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("consumed", "uint64"),
        ("window", "uint64"),
    )


@dataclass
class Control:
    # request: chosen by the asker, never 0 in a question, and returned in the answer
    request: int = 0
    # action: what to do
    action: ControlAction = ControlAction.PAUSE
    # scope: with what
    scope: ControlScope = ControlScope.QUEUE
    # name: of the model; instance or name of the service; empty for the whole queue
    name: str = ""

    KIND: ClassVar[int] = 30
    IS_ARRAY: ClassVar[bool] = False
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("request", "uint64"),
        ("action", "ControlAction"),
        ("scope", "ControlScope"),
        ("name", "text"),
    )


@dataclass
class ListJobs:
    # request: chosen by the asker, never 0 in a question, and returned in the answer
    request: int = 0
    # filter: all conditions that are set must hold
    filter: JobFilter = field(default_factory=lambda: JobFilter())
    # after: `order` of the last job of the list before; 0: the list begins
    after: int = 0
    # limit: 1 to 1,000
    limit: int = 100
    # newest_first: the list goes from the newest job to older ones
    newest_first: bool = False

    KIND: ClassVar[int] = 31
    IS_ARRAY: ClassVar[bool] = False
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("request", "uint64"),
        ("filter", "JobFilter"),
        ("after", "uint64"),
        ("limit", "uint32"),
        ("newest_first", "bool"),
    )


@dataclass
class JobFilter:
    # job: nil: any
    job: Optional[str] = None
    # state: nil: any
    state: Optional[JobState] = None
    # tenant: nil: any
    tenant: Optional[str] = None
    # model: empty: any
    model: str = ""
    # group: empty: any
    group: str = ""

    KIND: ClassVar[int] = 0
    IS_ARRAY: ClassVar[bool] = False
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("job", "id?"),
        ("state", "JobState?"),
        ("tenant", "text?"),
        ("model", "text"),
        ("group", "text"),
    )


@dataclass
class JobList:
    # request: chosen by the asker, never 0 in a question, and returned in the answer
    request: int = 0
    # jobs: in order of acceptance, or newest first
    jobs: List[JobSummary] = field(default_factory=list)
    # more: ask again with `after`
    more: bool = False

    KIND: ClassVar[int] = 32
    IS_ARRAY: ClassVar[bool] = False
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("request", "uint64"),
        ("jobs", "JobSummary[]"),
        ("more", "bool"),
    )


@dataclass
class JobSummary:
    # job: its id
    job: str = "00000000000000000000000000000000"
    # order: grows with acceptance
    order: int = 0
    # key: as submitted
    key: str = ""
    # tenant: as submitted
    tenant: str = ""
    # group: as submitted
    group: str = ""
    # model: as submitted
    model: str = ""
    # state: of the job
    state: JobState = JobState.QUEUED
    # attempts: how often it was started
    attempts: int = 0
    # progress_done: tokens, or bytes of a conversion
    progress_done: int = 0
    # progress_total: of how many
    progress_total: int = 0
    # accepted_wall_ms: when it was accepted, since 1970
    accepted_wall_ms: int = 0
    # message: for people
    message: str = ""
    # kind: what it is
    kind: JobKind = JobKind.GENERATE

    KIND: ClassVar[int] = 0
    IS_ARRAY: ClassVar[bool] = True
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("job", "id"),
        ("order", "uint64"),
        ("key", "text"),
        ("tenant", "text"),
        ("group", "text"),
        ("model", "text"),
        ("state", "JobState"),
        ("attempts", "int32"),
        ("progress_done", "int64"),
        ("progress_total", "int64"),
        ("accepted_wall_ms", "int64"),
        ("message", "text"),
        ("kind", "JobKind"),
    )


@dataclass
class Requeue:
    # request: chosen by the asker, never 0 in a question, and returned in the answer
    request: int = 0
    # job: which dead job
    job: str = "00000000000000000000000000000000"

    KIND: ClassVar[int] = 33
    IS_ARRAY: ClassVar[bool] = False
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("request", "uint64"),
        ("job", "id"),
    )


@dataclass
class Purge:
    # request: chosen by the asker, never 0 in a question, and returned in the answer
    request: int = 0
    # filter: all conditions that are set must hold
    filter: JobFilter = field(default_factory=lambda: JobFilter())

    KIND: ClassVar[int] = 34
    IS_ARRAY: ClassVar[bool] = False
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("request", "uint64"),
        ("filter", "JobFilter"),
    )


@dataclass
class Purged:
    # request: chosen by the asker, never 0 in a question, and returned in the answer
    request: int = 0
    # jobs: how many were forgotten
    jobs: int = 0

    KIND: ClassVar[int] = 35
    IS_ARRAY: ClassVar[bool] = False
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("request", "uint64"),
        ("jobs", "int64"),
    )


@dataclass
class GetGroup:
    # request: chosen by the asker, never 0 in a question, and returned in the answer
    request: int = 0
    # tenant: whose group
    tenant: str = ""
    # group: its name
    group: str = ""
    # cancel: first cancel the jobs that are open
    cancel: bool = False

    KIND: ClassVar[int] = 36
    IS_ARRAY: ClassVar[bool] = False
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("request", "uint64"),
        ("tenant", "text"),
        ("group", "text"),
        ("cancel", "bool"),
    )


@dataclass
class GroupStatus:
    # request: chosen by the asker, never 0 in a question, and returned in the answer
    request: int = 0
    # open: jobs that have not ended
    open: int = 0
    # succeeded: jobs whose results are still kept
    succeeded: int = 0
    # failed: the same
    failed: int = 0
    # cancelled: the same
    cancelled: int = 0
    # expired: the same
    expired: int = 0
    # dead: the same
    dead: int = 0

    KIND: ClassVar[int] = 37
    IS_ARRAY: ClassVar[bool] = False
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("request", "uint64"),
        ("open", "int64"),
        ("succeeded", "int64"),
        ("failed", "int64"),
        ("cancelled", "int64"),
        ("expired", "int64"),
        ("dead", "int64"),
    )


@dataclass
class Backup:
    # request: chosen by the asker, never 0 in a question, and returned in the answer
    request: int = 0

    KIND: ClassVar[int] = 38
    IS_ARRAY: ClassVar[bool] = False
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("request", "uint64"),
    )


@dataclass
class BackedUp:
    # request: chosen by the asker, never 0 in a question, and returned in the answer
    request: int = 0
    # file: its name in the backup folder of the scheduler
    file: str = ""
    # bytes: its size
    bytes: int = 0

    KIND: ClassVar[int] = 39
    IS_ARRAY: ClassVar[bool] = False
    FIELDS: ClassVar[Tuple[Tuple[str, str], ...]] = (
        ("request", "uint64"),
        ("file", "text"),
        ("bytes", "int64"),
    )


MESSAGES: Dict[int, Any] = {
    1: Submit,
    2: SubmitReply,
    3: Attach,
    4: JobEvents,
    5: JobFinished,
    6: Cancel,
    7: GetJob,
    8: JobStatus,
    9: GetStatus,
    10: SystemStatus,
    11: Refused,
    12: Ping,
    13: Pong,
    29: Credit,
    30: Control,
    31: ListJobs,
    32: JobList,
    33: Requeue,
    34: Purge,
    35: Purged,
    36: GetGroup,
    37: GroupStatus,
    38: Backup,
    39: BackedUp,
}
STRUCTS: Dict[str, Any] = {
    "Submit": Submit,
    "JobSpec": JobSpec,
    "ConvertSpec": ConvertSpec,
    "TokenBias": TokenBias,
    "SubmitReply": SubmitReply,
    "SubmitOutcome": SubmitOutcome,
    "Attach": Attach,
    "JobEvents": JobEvents,
    "JobEvent": JobEvent,
    "JobFinished": JobFinished,
    "JobResult": JobResult,
    "Timings": Timings,
    "TokenLogprob": TokenLogprob,
    "Hypothesis": Hypothesis,
    "JobAttempt": JobAttempt,
    "Cancel": Cancel,
    "GetJob": GetJob,
    "JobStatus": JobStatus,
    "GetStatus": GetStatus,
    "SystemStatus": SystemStatus,
    "ServiceStatus": ServiceStatus,
    "ModelStatus": ModelStatus,
    "Refused": Refused,
    "Ping": Ping,
    "Pong": Pong,
    "Credit": Credit,
    "Control": Control,
    "ListJobs": ListJobs,
    "JobFilter": JobFilter,
    "JobList": JobList,
    "JobSummary": JobSummary,
    "Requeue": Requeue,
    "Purge": Purge,
    "Purged": Purged,
    "GetGroup": GetGroup,
    "GroupStatus": GroupStatus,
    "Backup": Backup,
    "BackedUp": BackedUp,
}
ENUMERATIONS: Dict[str, Any] = {
    "JobKind": JobKind,
    "SamplingProfile": SamplingProfile,
    "OnDisconnect": OnDisconnect,
    "ErrorCode": ErrorCode,
    "JobState": JobState,
    "FinishReason": FinishReason,
    "QueueMode": QueueMode,
    "ControlAction": ControlAction,
    "ControlScope": ControlScope,
}
# What a job's fields may hold: what is measured, least, most, whether the least itself is excluded.
JOB_BOUNDS: Dict[str, Tuple[str, float, float, bool]] = {
    "key": ("name", 1, 128, False),
    "tenant": ("name", 0, 64, False),
    "model": ("name", 1, 64, False),
    "prompt": ("bytes", 0, 65536, False),
    "prompt_ids": ("entries", 0, 2048, False),
    "temperature": ("number", 0, 2, False),
    "top_k": ("number", 0, 262144, False),
    "top_p": ("number", 0, 1, True),
    "min_p": ("number", 0, 1, False),
    "typical_p": ("number", 0, 1, True),
    "top_p_decay": ("number", 0, 1, True),
    "top_p_min": ("number", 0, 1, False),
    "top_p_decay_after": ("number", 0, 2048, False),
    "repetition_penalty": ("number", 0, 10, True),
    "presence_penalty": ("number", -2, 2, False),
    "frequency_penalty": ("number", -2, 2, False),
    "prompt_presence_penalty": ("number", -2, 2, False),
    "prompt_frequency_penalty": ("number", -2, 2, False),
    "min_new_tokens": ("number", 0, 2048, False),
    "logprobs": ("number", -1, 20, False),
    "beam_width": ("number", 1, 10, False),
    "beam_length_penalty": ("number", -10, 10, False),
    "beam_early_stopping": ("number", 0, 2, False),
    "beam_diversity": ("number", 0, 100, False),
    "profile": ("number", 0, 2, False),
    "max_new_tokens": ("number", 0, 2048, False),
    "stop": ("entries", 0, 16, False),
    "priority": ("number", 0, 9, False),
    "max_attempts": ("number", 1, 10, False),
    "ttl_ms": ("number", 1, 3600000, False),
    "result_ttl_ms": ("number", 0, 604800000, False),
    "group": ("name", 0, 128, False),
    "delay_ms": ("number", 0, 604800000, False),
    "queue_ms": ("number", 0, 3600000, False),
    "run_ms": ("number", 0, 3600000, False),
    "stop_ids": ("entries", 0, 16, False),
    "bad_words": ("entries", 0, 64, False),
    "prompt_best": ("number", 0, 20, False),
}

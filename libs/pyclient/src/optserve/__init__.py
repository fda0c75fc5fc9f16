"""Client of optserve, a job queue that serves OPT language models.

    with optserve.Client(model="demo") as client:
        for piece in client.stream("Once upon a time", max_new_tokens=64):
            print(piece, end="", flush=True)
"""

from ._aio import AsyncClient, AsyncStream
from ._blocking import Client, Stream
from ._errors import (
    AttemptsExhausted, BadRequest, Busy, Cancelled, DataCorrupt, DeadlineExceeded, Error, IdempotencyConflict,
    Internal, NotFound, PromptTooLong, StorageFull, Unavailable, UnknownModel, UnsupportedFormat,
    UnsupportedVersion,
)
from ._messages import (
    BackedUp, ControlAction, ConvertSpec, ErrorCode, FinishReason, GroupStatus, Hypothesis, JobEvent, JobKind,
    JobList, JobResult, JobSpec, JobState, JobSummary, ModelStatus, OnDisconnect, QueueMode, SamplingProfile,
    ServiceStatus, SystemStatus, Timings, TokenBias, TokenLogprob,
)
from ._outputs import Answers, Job, Piece
from ._version import __version__

__all__ = [
    "Answers", "AsyncClient", "AsyncStream", "AttemptsExhausted", "BackedUp", "BadRequest", "Busy", "Cancelled",
    "Client", "ControlAction", "ConvertSpec", "DataCorrupt", "DeadlineExceeded", "Error", "ErrorCode",
    "FinishReason", "GroupStatus", "Hypothesis", "IdempotencyConflict", "Internal", "Job", "JobEvent",
    "JobKind", "JobList", "JobResult", "JobSpec", "JobState", "JobSummary", "ModelStatus", "NotFound",
    "OnDisconnect", "Piece", "PromptTooLong", "QueueMode", "SamplingProfile", "ServiceStatus", "StorageFull",
    "Stream", "SystemStatus", "Timings", "TokenBias", "TokenLogprob", "Unavailable", "UnknownModel",
    "UnsupportedFormat", "UnsupportedVersion", "__version__",
]

for _name in __all__:  # tracebacks and help() show the names that callers use
    if isinstance(globals()[_name], type):
        globals()[_name].__module__ = __name__
del _name

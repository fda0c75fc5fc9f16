"""The asyncio client."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import (Any, AsyncIterable, AsyncIterator, Deque, Dict, Iterable, List, Mapping, Optional, Sequence, Type,
                    Union)

from ._choice import split_endpoints
from ._engine import Engine
from ._errors import Error, Unavailable
from ._keys import find_keys
from ._messages import (LIMITS, BackedUp, Backup, Cancel, Control, ControlAction, ControlScope, GetGroup, GetJob,
                        GetStatus, GroupStatus, JobFilter, JobList, JobResult, JobSpec, JobState, JobSummary,
                        ListJobs, Purge, Purged, Requeue, SystemStatus)
from ._options import JobLike, Prompt, _member, conversion_job, job_id, job_of, make_job
from ._outputs import Answers, Job, Piece, StreamBase, accepted, raise_of
from ._streams import SessionOptions

JobRef = Union[str, Job, JobResult, JobSummary]


def job_filter(job: Optional[JobRef] = None, state: Union[JobState, str, None] = None, tenant: Optional[str] = None,
               model: str = "", group: str = "") -> JobFilter:
    return JobFilter(None if job is None else job_id(job), _member(JobState, state), tenant, model, group)


class AsyncStream(StreamBase):
    """A job's output while it runs: `async for piece in stream`, then `await stream.result()`.

    Iterating ends with the job and raises its error if it did not succeed, unless cancel() of this stream ended it. A
    stream that is not read holds at most its own text.
    """

    def __init__(self, client: "AsyncClient", life: Optional[float] = None) -> None:
        super().__init__(self._on_piece)
        loop = asyncio.get_running_loop()
        self._client = client
        self._life = life
        self._pieces: Deque[Piece] = deque()
        self._waiter: Optional["asyncio.Future[None]"] = None
        self._end: "asyncio.Future[JobResult]" = loop.create_future()
        self._accepted: "asyncio.Future[Job]" = loop.create_future()
        for future in (self._end, self._accepted):  # an error that nobody asks for must not be reported
            future.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def job(self) -> Job:
        """The job, once it is accepted; raises the error if it is refused."""
        return await asyncio.shield(self._accepted)

    async def result(self, timeout: Optional[float] = None) -> JobResult:
        """The result, once the job has succeeded; raises its error if it does not. Without a timeout it waits for the
        job's time to live."""
        try:
            result = await asyncio.wait_for(asyncio.shield(self._end), self._life if timeout is None else timeout)
        except asyncio.TimeoutError:
            if timeout is not None:
                raise TimeoutError("the job has not ended yet") from None
            self.close()
            raise Unavailable("no result within the job's time to live") from None
        return raise_of(result, self._was_cancelled)

    async def cancel(self) -> JobResult:
        """Cancels the job; what has come is kept."""
        self._was_cancelled = True
        return await self._client.cancel((await self.job()).id)

    def close(self) -> None:
        """Stops following; the job goes on."""
        self._close(self._client._engine)

    def __aiter__(self) -> "AsyncStream":
        return self

    async def __anext__(self) -> Piece:
        while not self._pieces:
            if self._end.done():
                await self.result()
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._take(self._pieces.popleft())

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _on_piece(self, piece: Piece) -> None:
        if piece.restarted:
            self._pieces.clear()  # what nobody has read is no longer the job's text
        self._pieces.append(piece)
        self._wake()

    def _on_end(self, how: Union[JobResult, Error]) -> None:
        super()._on_end(how)
        self._wake()


class AsyncClient:
    """Submits jobs to optserve, from one asyncio loop.

    endpoints: addresses of all schedulers, as text with commas or as a list. model, tenant: of jobs that name none.
    timeout: seconds of one call, with its retries. retry_first, retry_max: seconds between attempts.
    window_bytes: how much a scheduler may send ahead.
    secret_key: file of this program's secret key, or the key itself; server_key: public keys of the schedulers, or
    files with them. By default OPTSERVE_SECRET_KEY and OPTSERVE_SERVER_KEY, if they are set. Without keys only this
    machine is spoken to, unless insecure.

    Lost connections and restarts of a scheduler are handled inside, as the C++ library does: submits are repeated with
    the same key, and streams resume at the byte they had reached.
    """

    def __init__(self, endpoints: Union[str, Sequence[str]] = "tcp://127.0.0.1:5555", *, model: str = "",
                 tenant: str = "", timeout: float = 10.0, retry_first: float = 0.25, retry_max: float = 8.0,
                 window_bytes: int = LIMITS["stream_window_bytes_max"], secret_key: str = "",
                 server_key: Union[str, Sequence[str]] = "", insecure: bool = False) -> None:
        self.timeout = timeout
        self._defaults = {name: value for name, value in (("model", model), ("tenant", tenant)) if value}
        keys = find_keys(secret_key, server_key, split_endpoints(endpoints), insecure)
        self._engine = Engine(endpoints, SessionOptions(retry_first=retry_first, retry_max=retry_max,
                                                        window_bytes=window_bytes), keys)

    async def __aenter__(self) -> "AsyncClient":
        self._engine.start()
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends open calls and streams with Cancelled; jobs go on."""
        self._engine.close()
        await asyncio.sleep(0)

    # --- jobs

    async def submit(self, prompt: Prompt, **options: Any) -> Job:
        """Returns once the job is accepted. Raises if it is refused."""
        job = (await self.submit_many([make_job(prompt, {**self._defaults, **options})]))[0]
        if isinstance(job, Error):
            raise job
        return job

    async def submit_many(self, jobs: Iterable[JobLike], **options: Any) -> List[Union[Job, Error]]:
        """One outcome for each job, in order: what was accepted, or why not. Each job is a prompt, a mapping of options
        with its `prompt`, or a JobSpec; `options` are for all that do not say otherwise."""
        specs = [job_of(job, {**self._defaults, **options}) for job in jobs]
        future: "asyncio.Future[Any]" = asyncio.get_running_loop().create_future()
        self._engine.submit(specs, None, self.timeout,
                            lambda outcomes, _: None if future.done() else future.set_result(outcomes))
        outcomes = await future
        if isinstance(outcomes, Error):
            raise outcomes
        return [accepted(outcome, spec.key) for outcome, spec in zip(outcomes, specs)]

    def stream(self, prompt: Prompt, **options: Any) -> AsyncStream:
        """Submits a job and follows it."""
        return self._start([make_job(prompt, {**self._defaults, **options})])[0]

    async def generate(self, prompt: Prompt, **options: Any) -> JobResult:
        """Submits a job and returns its result. Raises its error if it does not succeed."""
        return await self.stream(prompt, **options).result()

    async def score(self, prompt: Prompt, **options: Any) -> JobResult:
        """The log-probabilities of the prompt's ids (`prompt_logprobs`, from the second id of `prompt_ids` on)."""
        return await self.generate(prompt, **{"max_new_tokens": 0, **options, "prompt_logprobs": True})

    def convert(self, source: str, destination: str, **options: Any) -> AsyncStream:
        """Has a converter service convert a checkpoint; the paths are those of its file system. Options: dtype, shards,
        quantize, verify, and those of jobs."""
        tenant = {name: value for name, value in self._defaults.items() if name == "tenant"}
        return self._start([conversion_job(source, destination, {**tenant, **options})])[0]

    async def map(self, prompts: Union[Iterable[JobLike], AsyncIterable[JobLike]], *, in_flight: int = 64,
                  return_errors: bool = False, **options: Any) -> AsyncIterator[Any]:
        """The results of many jobs in the order of the prompts, which are taken as results are: at most `in_flight`
        jobs are open at a time. The first error is raised, or comes in its place if `return_errors`."""
        given = aiter_of(prompts)
        streams: Deque[AsyncStream] = deque()
        is_over = False
        try:
            while True:
                batch: List[JobSpec] = []
                while not is_over and len(streams) + len(batch) < in_flight:
                    try:
                        batch.append(job_of(await given.__anext__(), {**self._defaults, **options}))
                    except StopAsyncIteration:
                        is_over = True
                streams.extend(self._start(batch))
                if not streams:
                    return
                try:
                    outcome: Any = await streams[0].result()
                except Error as error:
                    if not return_errors:
                        raise
                    outcome = error
                streams.popleft()
                yield outcome
        finally:
            for stream in streams:
                stream.close()

    async def attach(self, job: JobRef, text_offset: int = 0) -> AsyncStream:
        """Follows a job that was submitted earlier, from this byte of its text on. Raises NotFound if no scheduler
        knows it."""
        stream = AsyncStream(self)
        stream._follow, known = await self._engine.attach(job_id(job), text_offset, stream._feed.listener(),
                                                          self.timeout)
        stream._accepted.set_result(Job(known.job, known.key))
        return stream

    async def get(self, job: JobRef) -> JobResult:
        """State and result so far. Raises NotFound if all schedulers say that they do not know the job."""
        id = job_id(job)
        return await self._engine.ask_job(id, GetJob(0, id), self.timeout)

    async def wait(self, job: JobRef, timeout: float) -> JobResult:
        """Waits until the job has ended, but at most so many seconds, and returns its state at that time."""
        known = await self.get(job)
        if known.is_final:
            return known
        stream = await self.attach(known)
        try:
            return await asyncio.wait_for(asyncio.shield(stream._end), timeout)
        except asyncio.TimeoutError:
            return await self.get(known)
        finally:
            stream.close()

    async def cancel(self, job: JobRef) -> JobResult:
        """Ends the job and returns its state; one that has ended stays as it is."""
        id = job_id(job)
        return await self._engine.ask_job(id, Cancel(0, id), self.timeout)

    async def group(self, group: str, tenant: Optional[str] = None) -> GroupStatus:
        """How many jobs of the group are in which state, over all schedulers; raises if one does not answer."""
        return await self._group(group, tenant, False)

    async def cancel_group(self, group: str, tenant: Optional[str] = None) -> GroupStatus:
        """Cancels what is open of the group and counts."""
        return await self._group(group, tenant, True)

    # --- operating

    async def status(self) -> Answers[SystemStatus]:
        """Of each scheduler."""
        return await self._ask_all(GetStatus(), SystemStatus)

    async def control(self, action: Union[ControlAction, str], *, model: str = "",
                      service: str = "") -> Answers[SystemStatus]:
        """'pause', 'drain' or 'resume' the whole queue, one model, or one service by instance or name."""
        scope = ControlScope.MODEL if model else ControlScope.SERVICE if service else ControlScope.QUEUE
        return await self._ask_all(Control(0, _member(ControlAction, action), scope, model or service), SystemStatus)

    async def list(self, *, limit: int = 100, after: Optional[Mapping[str, int]] = None, newest_first: bool = False,
                   **conditions: Any) -> Answers[JobList]:
        """At most `limit` jobs of each scheduler in order of acceptance, or the opposite. Conditions: job,
        state, tenant, model, group. `after`: by address, the `order` of the last job of the list before; only these are
        asked."""
        wanted = job_filter(**conditions)

        def message_for(endpoint: str) -> Optional[ListJobs]:
            if after and endpoint not in after:
                return None
            return ListJobs(0, wanted, (after or {}).get(endpoint, 0), limit, newest_first)

        return Answers.of(await self._engine.ask_all(message_for, self.timeout), JobList)

    async def jobs(self, **conditions: Any) -> AsyncIterator[JobSummary]:
        """All jobs that match, page by page; raises if a scheduler does not answer."""
        after: Optional[Dict[str, int]] = None
        while True:
            answers = await self.list(limit=LIMITS["jobs_per_list"], after=after, **conditions)
            answers.all()
            after = {}
            for endpoint, page in answers.items():
                for job in page.jobs:
                    yield job
                if page.more and page.jobs:
                    after[endpoint] = page.jobs[-1].order
            if not after:
                return

    async def requeue(self, job: JobRef) -> JobResult:
        """Queues a dead job again. NotFound: there is no such job, or it is not dead."""
        id = job_id(job)
        return await self._engine.ask_job(id, Requeue(0, id), self.timeout)

    async def purge(self, **conditions: Any) -> int:
        """Forgets the ended jobs that match; needs a condition. Returns how many."""
        return sum(answer.jobs for answer in (await self._ask_all(Purge(0, job_filter(**conditions)), Purged)).all())

    async def backup(self, timeout: float = 600.0) -> Answers[BackedUp]:
        """Each scheduler writes a copy of its journal. Never repeated: a lost answer is Unavailable."""
        return Answers.of(await self._engine.ask_all(lambda _: Backup(), timeout), BackedUp)

    # --- inside

    def _start(self, jobs: List[JobSpec]) -> List[AsyncStream]:
        streams = [AsyncStream(self, self._life(job)) for job in jobs]
        self._feed(jobs, streams)
        return streams

    def _life(self, job: JobSpec) -> float:
        """After which nobody waits for its result."""
        return (job.delay_ms + job.ttl_ms) / 1000 + self.timeout

    def _feed(self, jobs: List[JobSpec], streams: Sequence[Any]) -> None:
        """Submits the jobs and lets each stream follow its own."""
        if not jobs:
            return

        def done(outcomes: Any, follows: Sequence[Any]) -> None:
            by_job = {job: (scheduler, job, number) for scheduler, job, number in follows}
            for i, (stream, job) in enumerate(zip(streams, jobs)):
                outcome = outcomes if isinstance(outcomes, Error) else accepted(outcomes[i], job.key)
                follow = by_job.get(outcome.id) if isinstance(outcome, Job) else None
                stream._on_outcome(outcome, [follow] if follow else [])

        self._engine.submit(jobs, [stream._feed.listener() for stream in streams], self.timeout, done)

    async def _ask_all(self, message: Any, kind: Type[Any]) -> Answers[Any]:
        return Answers.of(await self._engine.ask_all(lambda _: message, self.timeout), kind)

    async def _group(self, group: str, tenant: Optional[str], cancel: bool) -> GroupStatus:
        owner = self._defaults.get("tenant", "") if tenant is None else tenant
        answers = (await self._ask_all(GetGroup(0, owner, group, cancel), GroupStatus)).all()
        names = ("open", "succeeded", "failed", "cancelled", "expired", "dead")
        return GroupStatus(0, *(sum(getattr(answer, name) for answer in answers) for name in names))


async def aiter_of(prompts: Any) -> AsyncIterator[Any]:
    if hasattr(prompts, "__aiter__"):
        async for prompt in prompts:
            yield prompt
    else:
        for prompt in prompts:
            yield prompt

"""The blocking client: an AsyncClient on a thread of its own, so that it works wherever a loop already runs."""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
import threading
import time
import weakref
from collections import deque
from typing import Any, Callable, Deque, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Union

from ._aio import AsyncClient, JobRef
from ._errors import Error, Internal, Unavailable
from ._messages import (LIMITS, BackedUp, ControlAction, GroupStatus, JobList, JobResult, JobSpec, JobSummary,
                        SystemStatus)
from ._options import JobLike, Prompt, conversion_job, job_id, job_of, make_job
from ._outputs import Answers, Job, Piece, StreamBase, raise_of

_END = object()


class Stream(StreamBase):
    """A job's output while it runs: `for piece in stream`, then `stream.result()`.

    Iterating ends with the job and raises its error if it did not succeed, unless cancel() of this stream ended it. A
    stream that is not read holds at most its own text.
    """

    def __init__(self, client: "Client", life: Optional[float] = None, *, wants_text: bool = True) -> None:
        self._client = client
        self._until = None if life is None else time.monotonic() + life
        self._pieces: "queue.SimpleQueue[Any]" = queue.SimpleQueue()
        self._end: "concurrent.futures.Future[JobResult]" = concurrent.futures.Future()
        self._accepted: "concurrent.futures.Future[Job]" = concurrent.futures.Future()
        super().__init__(self._pieces.put if wants_text else None)

    def job(self) -> Job:
        """The job, once it is accepted; raises the error if it is refused."""
        return self._accepted.result()

    def result(self, timeout: Optional[float] = None) -> JobResult:
        """The result, once the job has succeeded; raises its error if it does not. Without a timeout it waits for the
        job's time to live."""
        life = None if self._until is None else max(0.0, self._until - time.monotonic())
        try:
            result = self._end.result(life if timeout is None else timeout)
        except concurrent.futures.TimeoutError:
            if timeout is not None:
                raise TimeoutError("the job has not ended yet") from None
            self.close()
            raise Unavailable("no result within the job's time to live") from None
        return raise_of(result, self._was_cancelled)

    def cancel(self) -> JobResult:
        """Cancels the job; what has come is kept."""
        self._was_cancelled = True
        return self._client.cancel(self.job())

    def close(self) -> None:
        """Stops following; the job goes on."""
        self._client._post(self._close, self._client._client._engine)

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __iter__(self) -> Iterator[Piece]:
        return self

    def __next__(self) -> Piece:
        piece = self._pieces.get()
        if piece is _END:
            self._pieces.put(_END)  # for callers that ask again
            self.result()
            raise StopIteration
        return self._take(piece)

    # --- on the client's thread

    def _on_end(self, how: Union[JobResult, Error]) -> None:
        super()._on_end(how)
        self._pieces.put(_END)


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread, client: AsyncClient) -> None:
    async def end() -> None:
        client._engine.close()
        # Callers that wait in other threads get their errors before the loop stops.
        for step in (lambda task: None, lambda task: task.cancel()):
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                step(task)
            if tasks:
                await asyncio.wait(tasks, timeout=1)
        loop.stop()

    if thread.is_alive():
        asyncio.run_coroutine_threadsafe(end(), loop)
        thread.join()


class Client:
    """Submits jobs to optserve. Its calls may come from any thread and block until they are answered or their timeout
    is over; the arguments and promises are those of AsyncClient."""

    def __init__(self, endpoints: Union[str, Sequence[str]] = "tcp://127.0.0.1:5555", *, model: str = "",
                 tenant: str = "", timeout: float = 10.0, retry_first: float = 0.25, retry_max: float = 8.0,
                 window_bytes: int = LIMITS["stream_window_bytes_max"], secret_key: str = "",
                 server_key: Union[str, Sequence[str]] = "", insecure: bool = False) -> None:
        self._client = AsyncClient(endpoints, model=model, tenant=tenant, timeout=timeout, retry_first=retry_first,
                                   retry_max=retry_max, window_bytes=window_bytes, secret_key=secret_key,
                                   server_key=server_key, insecure=insecure)
        self._defaults = self._client._defaults
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_run_loop, args=(self._loop,), name="optserve", daemon=True)
        self._thread.start()
        self._finalizer = weakref.finalize(self, _stop, self._loop, self._thread, self._client)
        try:
            self._call(self._begin)
        except BaseException:
            self._finalizer()
            raise

    async def _begin(self) -> None:
        self._client._engine.start()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Ends open calls and streams with Cancelled; jobs go on."""
        self._finalizer()

    # --- jobs

    def submit(self, prompt: Prompt, **options: Any) -> Job:
        """Returns once the job is accepted. Raises if it is refused."""
        return self._call(self._client.submit, prompt, **options)

    def submit_many(self, jobs: Iterable[JobLike], **options: Any) -> List[Union[Job, Error]]:
        """One outcome for each job, in order: what was accepted, or why not. Each job is a prompt, a mapping of options
        with its `prompt`, or a JobSpec; `options` are for all that do not say otherwise."""
        return self._call(self._client.submit_many, list(jobs), **options)

    def stream(self, prompt: Prompt, **options: Any) -> Stream:
        """Submits a job and follows it."""
        return self._start([make_job(prompt, {**self._defaults, **options})])[0]

    def generate(self, prompt: Prompt, **options: Any) -> JobResult:
        """Submits a job and returns its result. Raises its error if it does not succeed."""
        job = make_job(prompt, {**self._defaults, **options})
        return self._start([job], wants_text=False)[0].result()

    def future(self, prompt: Prompt, **options: Any) -> "concurrent.futures.Future[JobResult]":
        """Submits a job and returns at once; the future has its result, or its error if it does not succeed."""
        future: "concurrent.futures.Future[JobResult]" = concurrent.futures.Future()
        future.set_running_or_notify_cancel()
        stream = self._start([make_job(prompt, {**self._defaults, **options})], wants_text=False)[0]

        def settle(_: Any) -> None:
            try:
                future.set_result(stream.result(0))
            except BaseException as error:  # the future reports it to its owner
                future.set_exception(error)

        stream._end.add_done_callback(settle)
        return future

    def score(self, prompt: Prompt, **options: Any) -> JobResult:
        """The log-probabilities of the prompt's ids (`prompt_logprobs`, from the second id of `prompt_ids` on)."""
        return self.generate(prompt, **{"max_new_tokens": 0, **options, "prompt_logprobs": True})

    def convert(self, source: str, destination: str, **options: Any) -> Stream:
        """Has a converter service convert a checkpoint; the paths are those of its file system. Options: dtype, shards,
        quantize, verify, and those of jobs."""
        tenant = {name: value for name, value in self._defaults.items() if name == "tenant"}
        return self._start([conversion_job(source, destination, {**tenant, **options})])[0]

    def map(self, prompts: Iterable[JobLike], *, in_flight: int = 64, return_errors: bool = False,
            **options: Any) -> Iterator[Any]:
        """The results of many jobs in the order of the prompts, which are taken as results are: at most `in_flight`
        jobs are open at a time. The first error is raised, or comes in its place if `return_errors`."""
        given = iter(prompts)
        streams: Deque[Stream] = deque()
        is_over = False
        try:
            while True:
                batch: List[JobSpec] = []
                while not is_over and len(streams) + len(batch) < in_flight:
                    try:
                        batch.append(job_of(next(given), {**self._defaults, **options}))
                    except StopIteration:
                        is_over = True
                if batch:
                    streams.extend(self._start(batch, wants_text=False))
                if not streams:
                    return
                try:
                    outcome: Any = streams[0].result()
                except Error as error:
                    if not return_errors:
                        raise
                    outcome = error
                streams.popleft()
                yield outcome
        finally:
            for stream in streams:
                stream.close()

    def attach(self, job: JobRef, text_offset: int = 0) -> Stream:
        """Follows a job that was submitted earlier, from this byte of its text on. Raises NotFound if no scheduler
        knows it."""
        return self._call(self._attach, job, text_offset)

    def get(self, job: JobRef) -> JobResult:
        """State and result so far. Raises NotFound if all schedulers say that they do not know the job."""
        return self._call(self._client.get, job)

    def wait(self, job: JobRef, timeout: float) -> JobResult:
        """Waits until the job has ended, but at most so many seconds, and returns its state at that time."""
        return self._call(self._client.wait, job, timeout)

    def cancel(self, job: JobRef) -> JobResult:
        """Ends the job and returns its state; one that has ended stays as it is."""
        return self._call(self._client.cancel, job)

    def group(self, group: str, tenant: Optional[str] = None) -> GroupStatus:
        """How many jobs of the group are in which state, over all schedulers; raises if one does not answer."""
        return self._call(self._client.group, group, tenant)

    def cancel_group(self, group: str, tenant: Optional[str] = None) -> GroupStatus:
        """Cancels what is open of the group and counts."""
        return self._call(self._client.cancel_group, group, tenant)

    # --- operating

    def status(self) -> Answers[SystemStatus]:
        """Of each scheduler."""
        return self._call(self._client.status)

    def control(self, action: Union[ControlAction, str], *, model: str = "",
                service: str = "") -> Answers[SystemStatus]:
        """'pause', 'drain' or 'resume' the whole queue, one model, or one service by instance or name."""
        return self._call(self._client.control, action, model=model, service=service)

    def list(self, *, limit: int = 100, after: Optional[Mapping[str, int]] = None, newest_first: bool = False,
             **conditions: Any) -> Answers[JobList]:
        """At most `limit` jobs of each scheduler in order of acceptance, or the opposite. Conditions: job,
        state, tenant, model, group. `after`: by address, the `order` of the last job of the list before; only these are
        asked."""
        return self._call(self._client.list, limit=limit, after=after, newest_first=newest_first, **conditions)

    def jobs(self, **conditions: Any) -> Iterator[JobSummary]:
        """All jobs that match, page by page; raises if a scheduler does not answer."""
        after: Optional[Dict[str, int]] = None
        while True:
            answers = self.list(limit=LIMITS["jobs_per_list"], after=after, **conditions)
            answers.all()
            after = {}
            for endpoint, page in answers.items():
                yield from page.jobs
                if page.more and page.jobs:
                    after[endpoint] = page.jobs[-1].order
            if not after:
                return

    def requeue(self, job: JobRef) -> JobResult:
        """Queues a dead job again. NotFound: there is no such job, or it is not dead."""
        return self._call(self._client.requeue, job)

    def purge(self, **conditions: Any) -> int:
        """Forgets the ended jobs that match; needs a condition. Returns how many."""
        return self._call(self._client.purge, **conditions)

    def backup(self, timeout: float = 600.0) -> Answers[BackedUp]:
        """Each scheduler writes a copy of its journal. Never repeated: a lost answer is Unavailable."""
        return self._call(self._client.backup, timeout)

    # --- inside

    def _post(self, function: Callable[..., Any], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the client was closed, and all its streams with it
            pass

    def _call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        if threading.current_thread() is self._thread:
            raise RuntimeError("called from the client's own thread")
        if not self._finalizer.alive:
            raise RuntimeError("the client was closed")
        return asyncio.run_coroutine_threadsafe(function(*arguments, **options), self._loop).result()

    def _start(self, jobs: List[JobSpec], wants_text: bool = True) -> List[Stream]:
        if not self._finalizer.alive:
            raise RuntimeError("the client was closed")
        streams = [Stream(self, self._client._life(job), wants_text=wants_text) for job in jobs]
        self._loop.call_soon_threadsafe(self._feed, jobs, streams)
        return streams

    def _feed(self, jobs: List[JobSpec], streams: List[Stream]) -> None:
        try:
            self._client._feed(jobs, streams)
        except Exception as wrong:  # nobody else would tell those that wait for the streams
            for stream in streams:
                if not stream._accepted.done():
                    stream._on_outcome(Internal(f"{type(wrong).__name__}: {wrong}"), [])

    async def _attach(self, job: JobRef, text_offset: int) -> Stream:
        stream = Stream(self)
        stream._follow, known = await self._client._engine.attach(job_id(job), text_offset, stream._feed.listener(),
                                                                  self._client.timeout)
        stream._accepted.set_result(Job(known.job, known.key))
        return stream

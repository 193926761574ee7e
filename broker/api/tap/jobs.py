"""Queries that run while their client is away (IVOA UWS 1.1): a few at a time, for a while."""

import secrets
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from broker.api.errors import ApiError, not_found
from broker.api.tap.asking import Asked, asked_of

PENDING, QUEUED, EXECUTING = "PENDING", "QUEUED", "EXECUTING"
COMPLETED, ERROR, ABORTED = "COMPLETED", "ERROR", "ABORTED"
ACTIVE = (QUEUED, EXECUTING)

MOST_JOBS, MOST_ACTIVE = 200, 20
MOST_BYTES = 1_000_000_000
"""Of all results that are kept."""

DEFAULT_S, MOST_S = 120.0, 600.0
"""How long a job may run: if it does not say, and at most. [s]"""

KEPT_S = 86_400.0
"""How long a job is kept, at most. [s]"""

_AT_ONCE = 1

Answering = Callable[[Asked, float, threading.Event], bytes]


@dataclass
class Job:
    """A query of a client that comes back for its answer.

    Parameters
    ----------
    job_id : str
        Known to the client alone.
    parameters : dict
        As they were sent, names in capitals.
    """

    job_id: str
    parameters: dict[str, str]
    phase: str = PENDING
    created: float = field(default_factory=time.time)
    started: float | None = None
    ended: float | None = None
    duration_s: float = DEFAULT_S
    destruction: float = field(default_factory=lambda: time.time() + KEPT_S)
    error: str | None = None
    result: Path | None = None
    media_type: str = ""
    size: int = 0
    stop: threading.Event = field(default_factory=threading.Event)


class Jobs:
    """The jobs of a service, in memory; their results are files.

    Parameters
    ----------
    answer : callable
        Returns the answer to a query, in some seconds at most.
    """

    def __init__(self, answer: Answering) -> None:
        self._answer, self._lock = answer, threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def make(self, parameters: dict[str, str]) -> Job:
        """Return a new job, which waits to be started; ApiError 503 if there are too many."""
        with self._lock:
            self._tidy()
            if len(self._jobs) >= MOST_JOBS:
                done = [one for one in self._jobs.values() if one.phase not in ACTIVE]
                if not done:
                    raise ApiError(503, "there are too many jobs; try again later")
                self._drop(min(done, key=lambda one: one.created))
            job = Job(secrets.token_hex(12), parameters)
            self._jobs[job.job_id] = job
            return job

    def get(self, job_id: str) -> Job:
        """Return a job; ApiError 404 if there is none any more."""
        with self._lock:
            self._tidy()
            if job_id not in self._jobs:
                raise not_found("job", job_id[:40])
            return self._jobs[job_id]

    def start(self, job: Job) -> None:
        """Put a job into the queue; ApiError if it is not waiting, or the queue is full."""
        with self._lock:
            if job.phase != PENDING:
                raise ApiError(400, f"the job is {job.phase}; only one that waits can be started")
            try:
                asked = asked_of(job.parameters)
            except ApiError as failed:  # as the standard wants it, the job says so
                job.phase, job.error, job.ended = ERROR, _sentence(failed), time.time()
                return
            if sum(one.phase in ACTIVE for one in self._jobs.values()) >= MOST_ACTIVE:
                raise ApiError(503, "the queue is full; try again later")
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="tap")
            job.phase = QUEUED
            self._pool.submit(self._run, job, asked)

    def abort(self, job: Job) -> None:
        """Stop a job, if it is not done."""
        with self._lock:
            if job.phase in (PENDING, *ACTIVE):
                job.phase, job.ended = ABORTED, time.time()
        job.stop.set()

    def delete(self, job: Job) -> None:
        """Stop and forget a job."""
        self.abort(job)
        with self._lock:
            self._drop(job)

    def close(self) -> None:
        """Stop all jobs and forget them."""
        for job in list(self._jobs.values()):
            self.delete(job)
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        if self._folder is not None:
            self._folder.cleanup()

    def _run(self, job: Job, asked: Asked) -> None:
        with self._lock:
            if job.phase != QUEUED:
                return
            job.phase, job.started = EXECUTING, time.time()
        try:
            data, error = self._answer(asked, job.duration_s, job.stop), None
        except ApiError as failed:
            data, error = b"", _sentence(failed)
        except Exception as failed:  # noqa: BLE001  # a thread's edge: a client must hear of it
            data, error = b"", f"the query failed: {type(failed).__name__}"
        with self._lock:
            job.ended = time.time()
            if job.phase != EXECUTING or job.job_id not in self._jobs:
                return
            if error is None:
                self._keep(job, data, asked.media_type)
            else:
                job.phase, job.error = ERROR, error

    def _keep(self, job: Job, data: bytes, media_type: str) -> None:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="broker-tap-")
        older = sorted((j for j in self._jobs.values() if j.result), key=lambda j: j.created)
        while older and sum(one.size for one in older) + len(data) > MOST_BYTES:
            self._drop(older.pop(0))
        path = Path(self._folder.name) / job.job_id
        path.write_bytes(data)
        job.result, job.size, job.media_type, job.phase = path, len(data), media_type, COMPLETED

    def _tidy(self) -> None:
        now = time.time()
        for job in [one for one in self._jobs.values() if one.destruction < now]:
            job.stop.set()
            self._drop(job)

    def _drop(self, job: Job) -> None:
        self._jobs.pop(job.job_id, None)
        if job.result is not None:
            job.result.unlink(missing_ok=True)


def _sentence(error: ApiError) -> str:
    return (
        f"{error.message}; allowed: {', '.join(error.allowed)}" if error.allowed else error.message
    )

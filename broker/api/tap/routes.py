"""TAP over HTTP (IVOA TAP 1.1): queries at once or as jobs, and what the service says of itself."""

import asyncio
import math
import time
from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import FileResponse, RedirectResponse

from broker.api.errors import ApiError, not_found
from broker.api.formats import MEDIA_TYPES, votable_error
from broker.api.tap import vosi
from broker.api.tap.asking import Tap, asked_of
from broker.api.tap.jobs import ACTIVE, ERROR, KEPT_S, MOST_S, PENDING, Job, Jobs

PREFIX = "/tap"

_MOST_BODY = 100_000
_XML = "text/xml"
_LONGEST_WAIT_S = 30.0
_LOOK_S = 0.05

router = APIRouter(prefix=PREFIX, include_in_schema=False)


def add_tap(app: FastAPI) -> Jobs:
    """Add the service to an application; return its jobs, which the caller closes.

    Parameters
    ----------
    app : FastAPI
        As of `make_app`.
    """
    tap = Tap(app.state.sources)
    jobs = Jobs(lambda asked, seconds, stop: tap.answer(asked, seconds=seconds, stop=stop))
    app.state.tap, app.state.tap_jobs = tap, jobs
    app.include_router(router)
    return jobs


async def _sent(request: Request) -> dict[str, str]:
    """Return the parameters of a request, of its address and its form, names in capitals."""
    pairs = list(request.query_params.multi_items())
    if request.method == "POST":
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        data = b""
        async for part in request.stream():
            data += part
            if len(data) > _MOST_BODY:
                raise ApiError(413, f"more than {_MOST_BODY} bytes were sent")
        if data and kind != "application/x-www-form-urlencoded":
            words = f"a form is sent as application/x-www-form-urlencoded, not {kind[:60]!r}"
            raise ApiError(400, words)
        pairs += parse_qsl(data.decode("utf-8", "replace"), keep_blank_values=True)
    return {name.upper(): value for name, value in pairs}


def _tap(request: Request) -> Tap:
    found: Tap = request.app.state.tap
    return found


def _jobs(request: Request) -> Jobs:
    found: Jobs = request.app.state.tap_jobs
    return found


def _job(request: Request, job_id: str) -> Job:
    return _jobs(request).get(job_id)


Sent = Annotated[dict[str, str], Depends(_sent)]
TapOf = Annotated[Tap, Depends(_tap)]
JobsOf = Annotated[Jobs, Depends(_jobs)]
JobOf = Annotated[Job, Depends(_job)]


def _base(request: Request) -> str:
    return f"{str(request.base_url).rstrip('/')}{PREFIX}"


def _url(request: Request, job: Job) -> str:
    return f"{_base(request)}/async/{job.job_id}"


def _xml(data: bytes) -> Response:
    return Response(data, media_type=_XML)


def _text(text: object) -> Response:
    return Response(str(text), media_type="text/plain")


def _to(request: Request, path: str) -> Response:
    """Lead to another address of the service, named in full: TOPCAT reads no other."""
    return RedirectResponse(f"{_base(request)}{path}", 303)


@router.get("")
def show_start() -> Response:
    """Lead to what the service says of itself."""
    return RedirectResponse(f"{PREFIX}/capabilities", 303)


@router.get("/availability")
def read_availability() -> Response:
    """Return that the service is there."""
    return _xml(vosi.availability())


@router.get("/capabilities")
def read_capabilities(request: Request) -> Response:
    """Return what the service can do."""
    return _xml(vosi.capabilities(_base(request)))


@router.get("/tables")
def read_tables(tap: TapOf) -> Response:
    """Return the tables and their columns."""
    return _xml(vosi.table_set(tap.tables()))


@router.get("/examples")
def read_examples() -> Response:
    """Return queries to begin with, as tools show them."""
    return Response(vosi.examples(), media_type="application/xhtml+xml")


@router.api_route("/sync", methods=["GET", "POST"])
def ask(tap: TapOf, sent: Sent) -> Response:
    """Answer a query at once."""
    asked = asked_of(sent)
    return Response(tap.answer_soon(asked), media_type=asked.media_type)


@router.get("/async")
def list_jobs() -> Response:
    """Return no job: who made one knows it."""
    return _xml(vosi.job_list())


@router.post("/async")
def make_job(request: Request, jobs: JobsOf, sent: Sent) -> Response:
    """Make a job; with PHASE=RUN it starts."""
    phase = sent.pop("PHASE", "")
    job = jobs.make(sent)
    if phase:
        _set_phase(jobs, job, phase)
    return _to(request, f"/async/{job.job_id}")


@router.get("/async/{job_id}")
async def read_job(request: Request, job: JobOf, sent: Sent) -> Response:
    """Return a job; with WAIT once its phase has changed, or after so many seconds."""
    end = time.monotonic() + _wait_s(sent.get("WAIT"))
    before = sent.get("PHASE", job.phase)
    while job.phase == before and job.phase in (PENDING, *ACTIVE) and time.monotonic() < end:
        await asyncio.sleep(_LOOK_S)
    return _xml(vosi.job_document(job, _url(request, job)))


def _wait_s(text: str | None) -> float:
    try:
        seconds = float(text or 0)
    except ValueError as error:
        raise ApiError(400, f"WAIT is {str(text)[:40]!r}; it must be a number") from error
    if not math.isfinite(seconds) or seconds < 0:
        return _LONGEST_WAIT_S
    return min(seconds, _LONGEST_WAIT_S)


@router.post("/async/{job_id}")
def change_job(request: Request, jobs: JobsOf, job: JobOf, sent: Sent) -> Response:
    """Change or, with ACTION=DELETE, forget a job."""
    if sent.pop("ACTION", "").upper() == "DELETE":
        return _forget(request, jobs, job)
    return _change(request, jobs, job, sent)


@router.delete("/async/{job_id}")
def delete_job(request: Request, jobs: JobsOf, job: JobOf) -> Response:
    """Forget a job."""
    return _forget(request, jobs, job)


def _forget(request: Request, jobs: Jobs, job: Job) -> Response:
    jobs.delete(job)
    return _to(request, "/async")


@router.get("/async/{job_id}/{part}")
def read_part(request: Request, job: JobOf, part: str) -> Response:
    """Return one thing that is said of a job."""
    if part == "parameters":
        return _xml(vosi.parameters_document(job))
    if part == "results":
        return _xml(vosi.results_document(job, _url(request, job)))
    if part == "error":
        if job.phase != ERROR:
            raise ApiError(404, f"the job is {job.phase}: it has no error")
        return Response(votable_error(job.error or ""), media_type=MEDIA_TYPES["votable"])
    said = {
        "phase": job.phase,
        "executionduration": int(job.duration_s),
        "destruction": vosi.iso(job.destruction),
        "quote": "",
        "owner": "",
    }
    if part not in said:
        raise not_found("part of a job", part[:40], [*said, "parameters", "results", "error"])
    return _text(said[part])


@router.post("/async/{job_id}/{part}")
def change_part(request: Request, jobs: JobsOf, job: JobOf, part: str, sent: Sent) -> Response:
    """Change what is said of a job."""
    if part not in _CHANGED:
        raise not_found("part of a job that can be changed", part[:40], _CHANGED)
    return _change(request, jobs, job, sent)


_CHANGED = ("phase", "executionduration", "destruction", "parameters")


@router.get("/async/{job_id}/results/{name}")
async def read_result(job: JobOf, name: str) -> Response:
    """Return the answer to a job."""
    if name != "result" or job.result is None:
        raise not_found("result", name[:40], ("result",) if job.result else ())
    return FileResponse(job.result, media_type=job.media_type)


def _change(request: Request, jobs: Jobs, job: Job, sent: dict[str, str]) -> Response:
    phase = sent.pop("PHASE", "")
    if (text := sent.pop("EXECUTIONDURATION", None)) is not None:
        job.duration_s = _duration(text)
    if (text := sent.pop("DESTRUCTION", None)) is not None:
        job.destruction = min(_moment(text), job.created + KEPT_S)
    if sent and job.phase != PENDING:
        raise ApiError(400, f"the job is {job.phase}; what it asks cannot be changed any more")
    job.parameters |= sent
    if phase:
        _set_phase(jobs, job, phase)
    return _to(request, f"/async/{job.job_id}")


def _set_phase(jobs: Jobs, job: Job, phase: str) -> None:
    if phase.upper() == "RUN":
        jobs.start(job)
    elif phase.upper() == "ABORT":
        jobs.abort(job)
    else:
        raise ApiError(400, f"there is no PHASE {phase[:40]!r} to ask for", ("RUN", "ABORT"))


def _duration(text: str) -> float:
    if not (text.isascii() and text.isdigit()):
        raise ApiError(400, f"EXECUTIONDURATION is {text[:40]!r}; it must be whole seconds")
    return min(float(text[:12]) or MOST_S, MOST_S)  # 0 is as long as may be


def _moment(text: str) -> float:
    try:
        found = datetime.fromisoformat(text.strip())
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        words = f"DESTRUCTION is {text[:40]!r}; it must be as 2030-01-31T12:00:00Z"
        raise ApiError(400, words) from error

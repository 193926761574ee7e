"""Bulk transfers over HTTP: what they would be, their queue, their files with ranges."""

from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Header, Path, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field

from broker.api.access import required
from broker.api.errors import ApiError, not_found
from broker.api.formats import json_response
from broker.archive import Archive
from broker.batch.transfer import FORMS, Question, read_question
from broker.batch.transfer_estimate import estimate
from broker.batch.transfer_folder import QUEUED, RUNNING, Transfer, Transfers
from broker.errors import ConfigError
from broker.ops.tokens import TRANSFER, Tokens

MOST_BYTES = 200e9
MOST_WAITING = 20

router = APIRouter(tags=["bulk transfers"])

TransferId = Annotated[
    str, Path(description="Id of a transfer.", examples=["0123456789abcdef"], max_length=16)
]
FileName = Annotated[
    str,
    Path(description="As in the list of files.", examples=["part-00000.csv"], max_length=100),
]


class Asked(BaseModel):
    """Which alerts, which columns, in which format."""

    model_config = ConfigDict(extra="forbid")

    first: str = Field(description="First night, YYYYMMDD.", examples=["20251110"], max_length=8)
    last: str = Field(description="Last night.", examples=["20251110"], max_length=8)
    surveys: list[str] = Field([], description="Empty is all.", max_length=20)
    topics: list[str] = Field([], description="On one of these; empty is all.", max_length=200)
    where: str = Field("", description="One expression over columns.", max_length=4000)
    cones: list[tuple[float, float, float]] = Field(
        [], description="ra, dec [deg], radius [arcsec]; in one of them.", max_length=100_000
    )
    columns: list[str] = Field([], description="Empty is all.", max_length=1000)
    form: str = Field("parquet", description=", ".join(FORMS), max_length=20)

    def question(self) -> Question:
        """Return the question; ApiError 400 if it is not allowed."""
        return _allowed(lambda: read_question(self.model_dump()))


def add_transfers(
    app: FastAPI, transfers: Transfers, archive: Archive, *, prefix: str,
    tokens: Tokens | None = None,
) -> None:  # fmt: skip
    """Add the calls to an application.

    Parameters
    ----------
    app : FastAPI
    transfers : Transfers
        The run's; a question that is asked for is put into its queue, and nothing else written.
    archive : Archive
        The run's packets, for the sizes of history and cutouts.
    prefix : str
        `/api/v1`.
    tokens : Tokens, optional
        Those that may start a transfer; without, everyone may.
    """
    app.state.transfers, app.state.transfer_archive = transfers, archive
    app.state.transfer_tokens = tokens
    app.include_router(router, prefix=prefix)


@router.post("/transfers/estimate")
def estimate_transfer(request: Request, asked: Asked) -> Response:
    """Return about how many alerts are asked for and how many bytes they are."""
    return json_response(_estimate(request, asked.question()))


@router.post("/transfers", status_code=202)
def start_transfer(
    request: Request, asked: Asked,
    authorization: Annotated[
        str | None, Header(description="`Bearer` and a token, where guests may not.",
                           max_length=300)] = None,
) -> Response:  # fmt: skip
    """Put a transfer into the queue; `broker transfer work` makes what waits there."""
    tokens: Tokens | None = request.app.state.transfer_tokens
    if tokens is not None:
        required(tokens, authorization, TRANSFER)
    question, transfers = asked.question(), _transfers(request)
    size = _estimate(request, question)["bytes"]
    if size > MOST_BYTES:
        raise ApiError(400, f"that is about {size / 1e9:.0f} GB; at most {MOST_BYTES / 1e9:.0f} GB")
    waiting = transfers.waiting()
    if len(waiting) >= MOST_WAITING:
        raise ApiError(429, f"{len(waiting)} transfers wait already; ask again later")
    name = _allowed(lambda: transfers.add(question))
    answer = json_response(transfers.open(name).state())
    answer.status_code = 202
    return answer


@router.get("/transfers/{transferId}")
def show_transfer(request: Request, transferId: TransferId) -> Response:  # noqa: N803
    """Return how far a transfer is."""
    return json_response(_transfer(request, transferId).state())


@router.get("/transfers/{transferId}/manifest")
def show_manifest(request: Request, transferId: TransferId) -> Response:  # noqa: N803
    """Return the files of a finished transfer: alerts, bytes, SHA-256, and their columns."""
    return json_response(_manifest(request, transferId))


@router.get("/transfers/{transferId}/files/{name}")
def read_file(request: Request, transferId: TransferId, name: FileName) -> Response:  # noqa: N803
    """Return a file of a finished transfer, or with the header Range a piece of it."""
    known = [file["name"] for file in _manifest(request, transferId)["files"]]
    if name not in known:
        raise not_found("file of this transfer", name, known[:20])
    path = _transfer(request, transferId).folder / name
    return FileResponse(path, media_type="application/octet-stream", filename=name)


def _transfers(request: Request) -> Transfers:
    found: Transfers = request.app.state.transfers
    return found


def _transfer(request: Request, name: str) -> Transfer:
    try:
        return _transfers(request).open(name)
    except ConfigError as error:
        raise not_found("transfer", name) from error


def _manifest(request: Request, name: str) -> dict[str, Any]:
    transfer = _transfer(request, name)
    found = transfer.manifest()
    if found is None:
        state = transfer.state()["state"]
        words = "ask again later" if state in (QUEUED, RUNNING) else "start it again"
        raise ApiError(404, f"the transfer is {state}, not done: {words}")
    return found


def _estimate(request: Request, question: Question) -> dict[str, Any]:
    plan, nights = _allowed(lambda: _transfers(request).plan(question))
    return estimate(plan, nights, request.app.state.transfer_archive).as_json()


def _allowed(make: Any) -> Any:
    try:
        return make()
    except ConfigError as error:
        raise ApiError(400, error.message) from error

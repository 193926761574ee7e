"""Watchlists over HTTP: shown to everyone or to their owner, written with the owner's token."""

from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Header, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from broker.api.access import asking, required
from broker.api.errors import ApiError, not_found
from broker.api.formats import json_response
from broker.api.questions import Cursor, Limit, ShapeOf, SourcesOf
from broker.api.rows import Row, iso_utc
from broker.api.topics import newest_packets
from broker.errors import ConfigError
from broker.ops.tokens import READ, WATCH, Tokens
from broker.ops.watchlists import Keeper, content_of
from broker.units import unix_s_to_mjd_tai
from broker.watchlists import Entries, WatchBook, Watchlist

MOST_BYTES = 100_000_000

router = APIRouter(tags=["watchlists"])

Name = Annotated[
    str, Path(description="Lower-case letters, digits, dashes.", examples=["my-stars"],
              max_length=61)
]  # fmt: skip
Token = Annotated[str | None, Header(description="`Bearer` and an owner's token.", max_length=300)]
Where = Annotated[
    str | None, Query(description="An expression that must be true too.", max_length=2000)
]
Doc = Annotated[str | None, Query(description="What it holds.", max_length=2000)]

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "Columns ra, dec (deg), and id, radius (arcsec); or names; or a MOC.",
        "content": {
            "text/csv": {"schema": {"type": "string"}, "example": "id,ra,dec\na,150.1,2.2\n"},
            "application/json": {"schema": {"type": "object"}, "example": {"9": [12, 13]}},
            "application/fits": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


def add_watchlists(app: FastAPI, keeper: Keeper, tokens: Tokens, *, prefix: str) -> None:
    """Add the calls to an application; only owners, with their tokens, can write."""
    app.state.watch_keeper, app.state.watch_owners = keeper, tokens
    app.state.sources.watchlists = keeper.book
    app.include_router(router, prefix=prefix)


def _reader(request: Request, authorization: str | None) -> str | None:
    """Return whose private lists are shown to who asks; None if nobody's. ApiError 401."""
    found = asking(request.app.state.watch_owners, authorization)
    return found.name if found is not None and found.may(READ) else None


def watchlist_row(found: Watchlist) -> Row:
    """Return a watchlist as a row of a table."""
    return {
        "name": found.name,
        "topic": found.topic,
        "owner": found.owner,
        "kind": found.kind,
        "entries": found.n_entries,
        "skyFraction": found.sky_fraction if found.kind == "region" else None,
        "radiusArcsec": found.radius_arcsec if found.kind == "positions" else None,
        "where": found.where or None,
        "isPrivate": found.is_private,
        "doc": found.doc,
        "changedUtc": iso_utc(float(unix_s_to_mjd_tai(found.changed_ms / 1000.0))),
    }


def lists_for(request: Request, owner: str | None) -> list[Watchlist]:
    """Return the lists that someone may see: public ones, and their own."""
    return [one for one in _book(request).all() if not one.is_private or one.owner == owner]


def put_list(request: Request, wanted: Watchlist, body: bytes) -> tuple[Watchlist, bool]:
    """Add a list, or put another in its place; return it, and whether it is new.

    Raises
    ------
    ApiError
        403 if it is someone else's, 422 if something is not allowed.
    """
    keeper: Keeper = request.app.state.watch_keeper
    there = keeper.book.find(wanted.name)
    if there is not None and there.owner != wanted.owner:
        raise ApiError(403, f"the name {wanted.name} is taken by someone else")
    try:
        content = content_of(body, radius_arcsec=wanted.radius_arcsec)
        return keeper.put(wanted, content, replaces=there is not None), there is None
    except ConfigError as error:
        raise ApiError(422, error.message) from error


@router.get("/watchlists")
def list_watchlists(
    request: Request, shape: ShapeOf, authorization: Token = None
) -> Response:  # fmt: skip
    """Return the public watchlists and, with a token, one's own."""
    found = lists_for(request, _reader(request, authorization))
    return shape.answer([watchlist_row(one) for one in found], name="watchlists")


@router.get("/watchlists/{name}")
def read_watchlist(request: Request, name: Name, authorization: Token = None) -> Response:
    """Return what a watchlist is."""
    return json_response(watchlist_row(_seen(request, name, authorization)))


@router.get("/watchlists/{name}/entries")
def read_entries(
    request: Request, shape: ShapeOf, name: Name, limit: Limit = 100,
    first: Annotated[int, Query(ge=0, le=10_000_000, description="Entries to leave out.")] = 0,
    authorization: Token = None,
) -> Response:  # fmt: skip
    """Return entries of a list; a region answers with its ranges of HEALPix pixels, order 29."""
    _seen(request, name, authorization)
    try:
        content = _book(request).entries(name)
    except ConfigError as error:  # it was removed a moment ago
        raise not_found("watchlist", name) from error
    if isinstance(content, Entries):
        rows = content.table.slice(first, limit).to_pylist()
        return shape.answer(rows, name=name, around={"total": len(content)})
    pairs = zip(content.first[first : first + limit].tolist(),
                content.end[first : first + limit].tolist(), strict=True)  # fmt: skip
    rows = [{"firstPixel": str(a), "endPixel": str(b)} for a, b in pairs]
    return shape.answer(rows, name=name, around={"total": int(content.first.size)})


@router.get("/watchlists/{name}/alerts")
def read_matches(
    request: Request, sources: SourcesOf, shape: ShapeOf, name: Name, limit: Limit = 100,
    cursor: Cursor = None, authorization: Token = None,
) -> Response:  # fmt: skip
    """Return the newest alerts on a list: `watchEntry`, and how far it is (arcsec)."""
    found = _seen(request, name, authorization)
    page = newest_packets(sources, found.topic, limit=limit, cursor=cursor or None)
    return shape.answer_page(page, name=name)


@router.put("/watchlists/{name}", status_code=201, openapi_extra=_BODY)
async def put_watchlist(
    request: Request, name: Name,
    radiusArcsec: Annotated[  # noqa: N803
        float, Query(gt=0.0, le=3600.0, description="Of positions that say none.")] = 2.0,
    where: Where = None,
    doc: Doc = None,
    private: Annotated[bool, Query(description="Shown to its owner only.")] = False,
    authorization: Token = None,
) -> Response:  # fmt: skip
    """Add one's watchlist, or put another in its place; its topic begins within seconds.

    The body is text with columns `ra`, `dec` and, if there, `id` and `radius`; or one column of
    object names; or a MOC as JSON or FITS.
    """
    owner = _required(request, authorization)
    body = await read_body(request, MOST_BYTES)
    wanted = Watchlist(name, owner, "", doc=doc or "", where=where or "",
                       radius_arcsec=radiusArcsec, is_private=private)  # fmt: skip
    made, is_new = await run_in_threadpool(put_list, request, wanted, body)
    answer = json_response(watchlist_row(made))
    answer.status_code = 201 if is_new else 200
    return answer


@router.delete("/watchlists/{name}")
def remove_watchlist(request: Request, name: Name, authorization: Token = None) -> Response:
    """Remove one's watchlist: nothing more goes to its topic; what is there stays."""
    owner = _required(request, authorization)
    found = _seen(request, name, authorization)
    if found.owner != owner:
        raise ApiError(403, f"the watchlist {name} is someone else's")
    try:
        _book(request).remove(name)
    except ConfigError as error:  # someone was faster
        raise not_found("watchlist", name) from error
    return json_response({"removed": name})


async def read_body(request: Request, most: int) -> bytes:
    """Return what was sent; ApiError 413 if it is more than so many bytes."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise ApiError(413, f"at most {most:,} bytes")
        parts.append(part)
    return b"".join(parts)


def _book(request: Request) -> WatchBook:
    keeper: Keeper = request.app.state.watch_keeper
    return keeper.book


def _required(request: Request, authorization: str | None) -> str:
    return required(request.app.state.watch_owners, authorization, WATCH).name


def _seen(request: Request, name: str, authorization: str | None) -> Watchlist:
    """Return a list that the one who asks may see; ApiError 404 if there is none."""
    found, owner = _book(request).find(name), _reader(request, authorization)
    if found is None or (found.is_private and found.owner != owner):
        raise not_found("watchlist", name)
    return found

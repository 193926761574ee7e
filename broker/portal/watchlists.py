"""Pages of watchlists: what is watched, by whom, what was seen, and forms to add and remove."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from broker.api.app import PREFIX
from broker.api.errors import ApiError, not_found
from broker.api.questions import SourcesOf
from broker.api.sources import Sources
from broker.api.topics import newest_packets
from broker.api.watchlists import lists_for, put_list, watchlist_row
from broker.errors import BrokerError, ConfigError
from broker.ops.tokens import WATCH
from broker.portal.account import read_form, signed_in
from broker.portal.app import address, pages_of
from broker.portal.search_pages import curves_of
from broker.watchlists import Entries, Watchlist

MOST_BYTES = 20_000_000
"""What a form takes; longer lists go through the API or the command. [bytes]"""

_RECENT, _FIRST = 5, 20

router = APIRouter()


@router.get("/watchlists")
def watchlists(request: Request, sources: SourcesOf) -> Response:
    """Show the public watchlists and, to who is signed in, their own with the forms."""
    return _page(request, sources, signed_in(request))


@router.post("/watchlists")
async def own_watchlists(request: Request, sources: SourcesOf) -> Response:
    """Add or remove a watchlist of one's own, as the form asks, and show them."""
    owner = signed_in(request, WATCH)
    if owner is None:
        raise ApiError(401, "sign in first, at /account, with a token to keep watchlists with")
    fields = await read_form(request, MOST_BYTES)
    return await run_in_threadpool(_answer, request, sources, owner, fields)


def _answer(
    request: Request, sources: Sources, owner: str, fields: Mapping[str, str]
) -> Response:  # fmt: skip
    wish, name, said, problem = fields.get("do", ""), fields.get("name", ""), "", ""
    try:
        if wish == "add":
            radius = _number(fields.get("radius") or "2")
            wanted = Watchlist(name, owner, "", doc=fields.get("doc", ""),
                               where=fields.get("where", ""), radius_arcsec=radius,
                               is_private="private" in fields)  # fmt: skip
            made, is_new = put_list(request, wanted, fields.get("entries", "").encode())
            begins = "begins" if is_new else "has the new list"
            said = f"the topic {made.topic} {begins} within seconds"
        elif wish == "remove":
            _remove(request, owner, name)
            said = f"the list {name} is removed"
    except (ApiError, ConfigError) as error:
        problem = error.message
    return _page(request, sources, owner, fields, said=said, problem=problem)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"the radius {text[:20]!r} is no number") from error


def _remove(request: Request, owner: str, name: str) -> None:
    book = request.app.state.watch_keeper.book
    found = book.find(name)
    if found is None or found.owner != owner:
        raise ConfigError(f"you have no watchlist {name[:80]!r}", name=name)
    book.remove(name)


def _page(
    request: Request, sources: Sources, owner: str | None,
    fields: Mapping[str, str] | None = None, *, said: str = "", problem: str = "",
) -> Response:  # fmt: skip
    found = lists_for(request, owner)
    mine = [
        (watchlist_row(one), _recent(sources, one)) for one in found if one.owner == owner
    ]  # fmt: skip
    answer = pages_of(request).page(
        "watchlists.html",
        api=f"{PREFIX}/watchlists",
        status=422 if problem else 200,
        owner=owner,
        mine=mine,
        lists=[watchlist_row(one) for one in found if one.owner != owner],
        fields=fields if problem and fields else {},
        said=said,
        problem=problem,
    )
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _recent(sources: Sources, found: Watchlist) -> list[dict[str, Any]]:
    try:
        return newest_packets(sources, found.topic, limit=_RECENT).rows
    except BrokerError:  # without Kafka the lists are shown all the same
        return []


@router.get("/watchlists/{name}")
def watchlist(request: Request, sources: SourcesOf, name: str) -> Response:
    """Show a watchlist, a private one to its owner: its first entries, its newest alerts."""
    book = request.app.state.watch_keeper.book
    found = book.find(name)
    if found is None or (found.is_private and found.owner != signed_in(request)):
        raise not_found("watchlist", name)
    content = book.entries(name)
    rows = newest_packets(sources, found.topic, limit=50).rows
    return pages_of(request).page(
        "watchlist.html",
        api=f"{PREFIX}{address('watchlists', name, 'alerts', limit=50)}",
        row=watchlist_row(found),
        slim=sources.run.public_topic(found.topic, "slim"),
        entries=content.table.slice(0, _FIRST).to_pylist() if isinstance(content, Entries) else [],
        rows=rows,
        curves=curves_of(sources, rows),
    )

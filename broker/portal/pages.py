"""Pages of the broker as a whole: topics, nights, modules, health, help."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from broker.api.app import PREFIX
from broker.api.errors import ApiError
from broker.api.finding import find
from broker.api.questions import SourcesOf
from broker.api.resolve import parse_night
from broker.api.sources import Sources
from broker.api.system import catalog_rows, health_of, ledger_of, module_rows, night_of_run
from broker.api.topics import newest, topic_rows
from broker.errors import BrokerError
from broker.portal.app import address, pages_of
from broker.portal.night_parts import latency_rows, undone_images
from broker.portal.search_pages import curves_of, examples, help_for
from broker.portal.sky_map import sky_map
from broker.portal.statistics import map_files
from broker.store.search import Wanted

router = APIRouter()


@router.get("/")
def home(request: Request, sources: SourcesOf) -> Response:
    """Show the search box, and what there is to find."""
    return pages_of(request).page(
        "home.html",
        api=f"{PREFIX}/topics",
        help=help_for(sources),
        topics=topic_rows(sources),
        nights=sorted(sources.night_counts().items(), reverse=True)[:5],
    )


@router.get("/topics")
def topics(request: Request, sources: SourcesOf) -> Response:
    """Show the topics: what each chooses, how much it is, and how to read it."""
    rows = topic_rows(sources)
    newest_of = {row["topic"]: examples(sources, row, 3) for row in rows}
    return pages_of(request).page(
        "topics.html", api=f"{PREFIX}/topics", topics=rows, examples=newest_of
    )


@router.get("/topics/{topic}")
def topic(request: Request, sources: SourcesOf, topic: str, cursor: str | None = None) -> Response:
    """Show a topic and its newest alerts."""
    page = newest(sources, topic, limit=50, cursor=cursor)
    watched = sources.watchlist_of(topic)
    if watched is not None:
        return RedirectResponse(address("watchlists", watched.name))
    row = next(r for r in topic_rows(sources) if r["topic"] == topic)
    return pages_of(request).page(
        "topic.html",
        api=f"{PREFIX}{address('topics', topic, 'alerts', limit=50)}",
        topic=row,
        rows=page.rows,
        curves=curves_of(sources, page.rows),
        older=address("topics", topic, cursor=page.cursor) if page.cursor else None,
    )


@router.get("/modules")
def modules(request: Request, sources: SourcesOf) -> Response:
    """Show the science modules and catalogues, and how they are."""
    return pages_of(request).page(
        "modules.html",
        api=f"{PREFIX}/modules",
        modules=module_rows(sources),
        catalogs=catalog_rows(sources),
    )


@router.get("/nights")
def nights(request: Request, sources: SourcesOf) -> Response:
    """Show the nights of which there are alerts, and the ledger."""
    return pages_of(request).page(
        "nights.html",
        api=f"{PREFIX}/nights",
        nights=sorted(sources.night_counts().items(), reverse=True),
        surveys=sources.surveys,
        ledger=ledger_of(sources),
        undone=undone_images(sources),
    )


@router.get("/nights/{night}")
def night(request: Request, sources: SourcesOf, night: str) -> Response:
    """Show a night: its counts, its batches, the ledger."""
    night = parse_night(night)
    of = night_of_run(sources, night)
    return pages_of(request).page(
        "night.html",
        api=f"{PREFIX}/nights/{night}",
        of=of,
        ledger=ledger_of(sources),
        latency=latency_rows(sources, of["batches"]),
        map=_map_of(sources, night),
        files=map_files({"night": night}),
        undone=undone_images(sources),
    )


def _map_of(sources: Sources, night: str) -> dict[str, Any] | None:
    """Return a map of a night's public alerts; None if the run keeps no index of them."""
    try:
        found = find(sources, Wanted(nights=(night, night)))
    except ApiError:
        return None
    return sky_map(found.entries.numbers["ra"], found.entries.numbers["dec"], "alerts")


@router.get("/health")
def health(request: Request, sources: SourcesOf) -> Response:
    """Show whether the stores answer and when each query last finished a batch."""
    state = health_of(sources)
    return pages_of(request).page(
        "health.html",
        api=f"{PREFIX}/health",
        health=state,
        last=_last_batches(sources),
        status=200 if all(part["ok"] for part in state["parts"]) else 503,
    )


def _last_batches(sources: Sources) -> list[Any]:
    try:
        return list({batch.query: batch for batch in sources.batches()}.values())
    except BrokerError:
        return []


@router.get("/quick-start")
def quick_start(request: Request, sources: SourcesOf) -> Response:
    """Show how to read the first alerts, by topic and by API."""
    first = sources.contributions.topics[0] if sources.contributions.topics else "my-topic"
    return pages_of(request).page("quick-start.html", topic=first, help=help_for(sources))


@router.get("/docs")
def reference(request: Request) -> Response:
    """Show every call of the API, from its own description."""
    description = request.app.openapi()
    calls = [
        {"method": method.upper(), "path": path, **operation}
        for path, operations in description["paths"].items()
        for method, operation in operations.items()
    ]
    return pages_of(request).page(
        "docs.html",
        api=f"{PREFIX}/openapi.json",
        about=description["info"]["description"],
        calls=calls,
    )

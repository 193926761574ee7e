"""Pages of the broker as a whole: search, topics, nights, modules, health, help."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from broker.api.app import PREFIX
from broker.api.questions import SourcesOf
from broker.api.resolve import HELP, Question, notations, parse_night, parse_question
from broker.api.rows import flat_row
from broker.api.sources import Sources
from broker.api.system import catalog_rows, health_of, ledger_of, module_rows, night_of_run
from broker.api.topics import newest, topic_rows
from broker.errors import BrokerError
from broker.portal.app import address, pages_of

router = APIRouter()

_ROWS = 200


def help_for(sources: Sources) -> list[tuple[str, str]]:
    """Return what may be typed, with examples that this run has."""
    row = next((r for t in topic_rows(sources) for r in _examples(sources, t, 5)), None)
    nights = list(sources.night_counts())
    found = {"night": f"night:{nights[-1]}"} if nights else {}
    if row is not None:
        name, survey = row["objectId"] or row["diaSourceId"], row["survey"]
        hours, degrees = notations(row["ra"], row["dec"])["sexagesimal"].split()
        found |= {
            "id": name,
            "survey": f"{survey}:{name}",
            "degrees": f"{row['ra']:.4f} {row['dec']:.4f} 30",
            "sexagesimal": f"{hours} {degrees} 1m",
            "name": f"J{hours.replace(':', '')[:9]}{degrees.replace(':', '')[:9]}",
        }
    return [(found.get(kind, example), words) for kind, example, words in HELP]


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


@router.get("/search")
def search(request: Request, sources: SourcesOf, q: str = "") -> Response:
    """Go to what was asked for, or show what there is of it."""
    asked = parse_question(q[:200], sources.surveys)
    if asked.kind == "topic":
        return RedirectResponse(address("topics", asked.text), status_code=303)
    if asked.kind == "night":
        return RedirectResponse(address("nights", asked.text), status_code=303)
    if asked.kind == "place":
        return _around(request, sources, q, asked)
    found = list(sources.find_name(asked.text, asked.survey))
    places = {_page_of(sources, *one) for one in found}
    if len(places) == 1:
        return RedirectResponse(places.pop(), status_code=303)
    return pages_of(request).page(
        "search.html",
        api=f"{PREFIX}{address('resolve', q=asked.text)}",
        q=q,
        help=help_for(sources),
        rows=[],
        places=sorted(places),
        around=None,
        total=0,
        status=200 if places else 404,
    )


def _page_of(sources: Sources, kind: str, survey: str, name: str) -> str:
    """Return the address of an object; of an alert that of its object, at that epoch."""
    if kind == "object":
        return address("objects", survey, name)
    row = flat_row(sources.alert(survey, name))
    if row["objectId"] == name:
        return address("objects", survey, name)
    return address("objects", survey, row["objectId"], alert=name)


def _around(request: Request, sources: Sources, q: str, asked: Question) -> Response:
    ra, dec, radius = asked.ra or 0.0, asked.dec or 0.0, asked.radius_arcsec
    rows = [flat_row(alert) for alert in sources.cone(ra, dec, radius)]
    query = {"ra": ra, "dec": dec, "radiusArcsec": radius}
    return pages_of(request).page(
        "search.html",
        api=f"{PREFIX}{address('cone-search', **query)}",
        q=q,
        help=help_for(sources),
        rows=rows[:_ROWS],
        total=len(rows),
        places=[],
        around={"radius": radius, **notations(ra, dec)},
    )


@router.get("/topics")
def topics(request: Request, sources: SourcesOf) -> Response:
    """Show the topics: what each chooses, how much it is, and how to read it."""
    rows = topic_rows(sources)
    examples = {row["topic"]: _examples(sources, row, 1) for row in rows}
    return pages_of(request).page(
        "topics.html", api=f"{PREFIX}/topics", topics=rows, examples=examples
    )


def _examples(sources: Sources, row: Mapping[str, Any], limit: int) -> list[dict[str, Any]]:
    return newest(sources, row["topic"], limit=limit).rows if row["slimMessages"] else []


@router.get("/topics/{topic}")
def topic(request: Request, sources: SourcesOf, topic: str, cursor: str | None = None) -> Response:
    """Show a topic and its newest alerts."""
    page = newest(sources, topic, limit=50, cursor=cursor)
    row = next(r for r in topic_rows(sources) if r["topic"] == topic)
    return pages_of(request).page(
        "topic.html",
        api=f"{PREFIX}{address('topics', topic, 'alerts', limit=50)}",
        topic=row,
        rows=page.rows,
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
    )


@router.get("/nights/{night}")
def night(request: Request, sources: SourcesOf, night: str) -> Response:
    """Show a night: its counts, its batches, the ledger."""
    night = parse_night(night)
    return pages_of(request).page(
        "night.html",
        api=f"{PREFIX}/nights/{night}",
        of=night_of_run(sources, night),
        ledger=ledger_of(sources),
    )


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

"""Searches: what a text means, what lies around a place, and what is as it is wanted."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from broker.api.app import PREFIX
from broker.api.errors import ApiError
from broker.api.pages import page_of
from broker.api.questions import SourcesOf
from broker.api.resolve import HELP, Question, notations, parse_question
from broker.api.rows import flat_row
from broker.api.search import search
from broker.api.sources import Sources
from broker.api.topics import newest, topic_rows
from broker.api.wanted import BANDS, WantedOf
from broker.portal.app import address, pages_of
from broker.portal.brightness import small_curve
from broker.store.blocks import is_class

router = APIRouter()

PAGE_ROWS = 50
_FORM = {
    "topic": ("topic", "young-supernova"),
    "class": ("what a module says it is", "hosted"),
    "survey": ("survey", "ztf"),
    "band": ("bands", "g,r"),
    "firstNight": ("first night", "20251110"),
    "lastNight": ("last night", "20251110"),
    "minMag": ("magnitude from", "16"),
    "maxMag": ("magnitude to", "21.5"),
    "minSnr": ("S/N at least", "10"),
    "minReliability": ("reliability at least", "0.8"),
    "minDetections": ("detections at least", "2"),
    "maxDetections": ("detections at most", "20"),
    "catalog": ("matched in catalogue", "gaia"),
    "notCatalog": ("not matched in catalogue", "gaia"),
    "box": ("RA from, to, Dec from, to", "149,151,1,3"),
    "moc": ("coverage", "6/1,3-7"),
}
"""Fields of the form: parameter, what it is, an example."""


def help_for(sources: Sources) -> list[tuple[str, str]]:
    """Return what may be typed, with examples that this run has."""
    row = next((r for t in topic_rows(sources) for r in examples(sources, t, 5)), None)
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


def examples(sources: Sources, row: Mapping[str, Any], limit: int) -> list[dict[str, Any]]:
    """Return some newest alerts of a topic that is a row of the topics."""
    return newest(sources, row["topic"], limit=limit).rows if row["slimMessages"] else []


def curves_of(sources: Sources, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a small light curve for each row's object, by survey and name."""
    found: dict[str, Any] = {}
    for row in rows[:PAGE_ROWS]:
        name = row["objectId"]
        if name and f"{row['survey']}:{name}" not in found:
            alerts = sources.find_object(row["survey"], name)
            found[f"{row['survey']}:{name}"] = small_curve(alerts)
    return found


@router.get("/search")
def show_search(
    request: Request, sources: SourcesOf, q: str = "", cursor: str | None = None
) -> Response:
    """Go to what was asked for, or show what there is of it."""
    asked = parse_question(q[:200], sources.surveys)
    if asked.kind == "topic":
        return RedirectResponse(address("topics", asked.text), status_code=303)
    if asked.kind == "night":
        return RedirectResponse(address("nights", asked.text), status_code=303)
    if asked.kind == "class":
        return RedirectResponse(address("find", **{"class": asked.text}), status_code=303)
    if asked.kind == "place":
        return _around(request, sources, q, asked, cursor)
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


def _around(
    request: Request, sources: Sources, q: str, asked: Question, cursor: str | None
) -> Response:
    ra, dec, radius = asked.ra or 0.0, asked.dec or 0.0, asked.radius_arcsec
    rows = [flat_row(alert) for alert in sources.cone(ra, dec, radius)]
    part = page_of(
        rows,
        key=lambda row: (row["separation"], row["survey"], row["objectId"]),
        limit=PAGE_ROWS,
        cursor=cursor or None,
    )
    query = {"ra": ra, "dec": dec, "radiusArcsec": radius}
    return pages_of(request).page(
        "search.html",
        api=f"{PREFIX}{address('cone-search', **query)}",
        q=q,
        help=help_for(sources),
        rows=part.rows,
        curves=curves_of(sources, part.rows),
        total=part.total,
        next=address("search", q=q, cursor=part.cursor) if part.cursor else None,
        places=[],
        around={"radius": radius, **notations(ra, dec)},
    )


@router.get("/find")
def show_found(
    request: Request, sources: SourcesOf, wanted: WantedOf, cursor: str | None = None
) -> Response:
    """Show the form of a search, and the objects that are as they are wanted."""
    asked = [(n, v) for n, v in request.query_params.items() if n != "cursor"]
    query = urlencode(asked)
    rows, total, after, problem = [], 0, None, None
    if asked:
        try:
            part = search(sources, wanted, by_object=True, limit=PAGE_ROWS, cursor=cursor or None)
            rows, total, after = part.rows, part.total, part.cursor
        except ApiError as error:
            problem = error.message
    return pages_of(request).page(
        "find.html",
        api=f"{PREFIX}/objects?{query}" if query else f"{PREFIX}/objects?limit=50",
        fields=[
            {"name": n, "words": w, "example": e, "value": request.query_params.get(n, "")}
            for n, (w, e) in _FORM.items()
        ],
        choices={
            "topic": sources.contributions.topics,
            "class": _classes(sources),
            "survey": sources.surveys,
            "band": BANDS,
            "catalog": tuple(sources.catalogs.definitions),
            "notCatalog": tuple(sources.catalogs.definitions),
        },
        is_asked=bool(asked),
        rows=rows,
        curves=curves_of(sources, rows),
        total=total,
        next=f"/find?{urlencode([*asked, ('cursor', after)])}" if after else None,
        problem=problem,
        status=400 if problem else 200,
    )


def _classes(sources: Sources) -> list[str]:
    """Return the columns in which modules say a class, as the form takes them."""
    return [c.rpartition(":")[2] for c in sources.contributions.qualified_columns if is_class(c)]


async def _go(request: Request) -> Response:
    """Leave out what was not filled in: an empty field asks for nothing."""
    asked = [(n, v.strip()) for n, v in request.query_params.items() if n in _FORM and v.strip()]
    return RedirectResponse("/find" + (f"?{urlencode(asked)}" if asked else ""), status_code=303)


router.add_route("/find/go", _go, methods=["GET"])

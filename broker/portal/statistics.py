"""How many alerts there are, where, and how far their hosts: by topic and class."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import numpy as np
from fastapi import APIRouter, Request, Response

from broker.api.app import PREFIX
from broker.api.errors import ApiError
from broker.api.finding import Found, find
from broker.api.questions import SourcesOf
from broker.api.search import search
from broker.api.sources import Sources
from broker.api.wanted import WantedOf
from broker.portal.app import pages_of
from broker.portal.sky_map import sky_map, wedge
from broker.store.search import Wanted
from broker.types import night_of

router = APIRouter()

_HOSTS = 300
_CLASSES = 24
_OF_MAPS = ("topic", "class", "firstNight", "lastNight")


@router.get("/statistics")
def show_statistics(request: Request, sources: SourcesOf, wanted: WantedOf) -> Response:
    """Show counts by night, class and band, a map, and the hosts, of what is asked for."""
    asked = urlencode(list(request.query_params.items()))
    found, problem = _found(sources, wanted)
    numbers = found.entries.numbers if found else {}
    return pages_of(request).page(
        "statistics.html",
        api=f"{PREFIX}/alerts?{asked}" if asked else f"{PREFIX}/statistics/nights",
        files=map_files(dict(request.query_params)) if found else [],
        asked=dict(request.query_params),
        problem=problem,
        total=len(found.entries) if found else 0,
        topics=sources.contributions.topics,
        nights=_by_night(numbers["midpointMjdTai"]) if found else [],
        classes=_by_label(found, "class") if found else [],
        bands=_by_label(found, "band") if found else [],
        map=sky_map(numbers["ra"], numbers["dec"], "alerts") if found else None,
        hosts=_hosts(sources, wanted) if found else None,
    )


def map_files(asked: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return words and addresses of a map's files; none if they cannot be asked for so."""
    query = {name: value for name, value in asked.items() if name in _OF_MAPS}
    if "night" in asked:
        query |= {"firstNight": asked["night"], "lastNight": asked["night"]}
    if set(asked) - {*_OF_MAPS, "night"}:
        return []
    choices = (("picture", "counts", "png"), ("depth", "depth", "png"), ("FITS", "counts", "fits"))
    return [
        (words, f"{PREFIX}/statistics/map?{urlencode({**query, 'kind': kind, 'format': form})}")
        for words, kind, form in choices
    ]


def _found(sources: Sources, wanted: Wanted) -> tuple[Found | None, str | None]:
    try:
        return find(sources, wanted), None
    except ApiError as error:
        return None, error.message


def _by_night(mjd: Any) -> list[dict[str, Any]]:
    days, counts = np.unique(np.floor(mjd - 0.5), return_counts=True)
    most = int(counts.max()) if counts.size else 1
    rows = zip(days.tolist(), counts.tolist(), strict=True)
    return [
        {"name": night_of(day + 0.75), "count": count, "part": count / most}
        for day, count in reversed(list(rows))
    ]


def _by_label(found: Found, kind: str) -> list[dict[str, Any]]:
    """Return how many alerts have each label of a kind, the most first."""
    rows: list[dict[str, Any]] = []
    for label in found.entries.labels:
        if label.startswith(f"{kind}:"):
            count = int(found.entries.label(label).sum())
            column, _, value = label.removeprefix(f"{kind}:").partition("=")
            if count:
                name = column.rpartition(":")[2]
                rows.append({"by": column, "column": name, "name": value or name, "count": count})
    rows.sort(key=lambda row: (-row["count"], row["by"], row["name"]))
    most = max((row["count"] for row in rows), default=1)
    return [{**row, "part": row["count"] / most} for row in rows[:_CLASSES]]


def _hosts(sources: Sources, wanted: Wanted) -> dict[str, Any] | None:
    """Return the newest hosts that have a redshift: those of catalogues that know one."""
    known = [
        name
        for name, definition in sources.catalogs.definitions.items()
        if any(column.name == "redshift" for column in definition.columns)
    ]
    ra, redshift = [], []
    for row in search(sources, wanted, by_object=True, limit=_HOSTS).rows:
        for name in known:
            value = row.get(f"{name}Redshift")
            if value is not None and np.isfinite(value) and value > 0.0:
                ra.append(row["ra"])
                redshift.append(value)
                break
    return wedge(ra, redshift)

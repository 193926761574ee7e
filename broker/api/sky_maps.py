"""Probability maps that are sent here, and the alerts where an event may have been."""

import dataclasses
import hashlib
import threading
from collections import OrderedDict
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Path, Query, Request, Response
from numpy.typing import NDArray

from broker.api.errors import ApiError, not_found
from broker.api.finding import alert_keys, find
from broker.api.formats import json_response
from broker.api.pages import page_of
from broker.api.questions import Cursor, Limit, ShapeOf, SourcesOf
from broker.api.rows import Row, flat_row
from broker.api.sources import Sources
from broker.api.wanted import WantedOf
from broker.catalog.healpix import FINEST_ORDER, centres, pixels_in_cone
from broker.catalog.regions import Region
from broker.errors import AlertError
from broker.notices import maps
from broker.notices.place import MAX_LEVEL, ProbabilityMap
from broker.store.search import Wanted
from broker.units import ARCSEC_PER_DEG, separation_arcsec

router = APIRouter(prefix="/sky-maps", tags=["sky maps"])

MAX_BYTES = 32 << 20
"""Larger files are refused."""

_MOST_MAPS = 16
_MOST_CANDIDATES = 100_000
_SKY_DEG2 = 129_600.0 / np.pi
_NAME_DIGITS = 16

Level = Annotated[
    float,
    Query(
        gt=0.0,
        le=MAX_LEVEL,
        description="Credible level: of the probability inside.",
        examples=[0.9],
    ),
]


EXAMPLE = "example"
"""Name of a made-up map, to try the calls with: 3 degrees around (150, 2)."""

MapName = Annotated[
    str, Path(description="mapId of the map that was sent.", max_length=40, examples=[EXAMPLE])
]


def example_map() -> ProbabilityMap:
    """Return a Gaussian of 3 degrees around (150, 2), in pixels of order 6."""
    first, end = pixels_in_cone(150.0, 2.0, 10.0 * ARCSEC_PER_DEG)
    shift = np.uint64(2 * (FINEST_ORDER - 6))
    pixels = np.arange(first[0] >> shift, (end[-1] >> shift) + np.uint64(1), dtype=np.uint64)
    away = separation_arcsec(150.0, 2.0, *centres(pixels, 6)) / ARCSEC_PER_DEG
    likely = np.exp(-0.5 * (away / 3.0) ** 2)
    order = np.argsort(-likely, kind="stable")
    level = np.empty(likely.size)
    level[order] = np.cumsum(likely[order]) / likely.sum()
    kept = level <= MAX_LEVEL
    ranges = pixels[kept] << shift, (pixels[kept] + np.uint64(1)) << shift
    return ProbabilityMap(*ranges, level[kept].astype(np.float32))


class SkyMaps:
    """The maps that were sent last, by a hash of the file."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._maps: OrderedDict[str, ProbabilityMap] = OrderedDict()

    def add(self, data: bytes) -> str:
        """Keep a map and return its name; ApiError if it is none."""
        name = hashlib.sha256(data).hexdigest()[:_NAME_DIGITS]
        try:
            found = maps.map_of_bytes(data)
        except AlertError as error:
            raise ApiError(
                400, error.message, ("a HEALPix FITS file: NESTED, RING or NUNIQ",)
            ) from error
        except (ArithmeticError, LookupError, TypeError, ValueError, MemoryError) as error:
            # What a stranger's file does to a library is the file's fault.
            words = f"the map cannot be read: {type(error).__name__}"
            raise ApiError(400, words) from error
        with self._lock:
            self._maps[name] = found
            self._maps.move_to_end(name)
            while len(self._maps) > _MOST_MAPS:
                self._maps.popitem(last=False)
        return name

    def get(self, name: str) -> ProbabilityMap:
        """Return a map; ApiError 404 if it is not kept any more."""
        if name == EXAMPLE:
            return example_map()
        with self._lock:
            found = self._maps.get(name)
            if found is None:
                raise not_found("sky map any more, send it again:", name)
            self._maps.move_to_end(name)
            return found


def region_of_level(sky_map: ProbabilityMap, level: float) -> Region:
    """Return where an event was with a probability of `level`."""
    first, end = sky_map.ranges(level)

    def contains(ra: Any, dec: Any) -> NDArray[np.bool_]:
        return np.asarray(sky_map.level(ra, dec) <= level)

    return Region(first, end, contains)


def candidates(
    sources: Sources, sky_map: ProbabilityMap, wanted: Wanted, level: float
) -> list[Row]:
    """Return the alerts inside a credible level, the likeliest places first.

    Each has `credibleLevel`, the share of the probability at places as likely as its own or
    likelier: the smaller the better.

    Raises
    ------
    ApiError
        If there are too many, or a search cannot be done.
    """
    inside = dataclasses.replace(wanted, region=region_of_level(sky_map, level))
    entries = find(sources, inside).entries
    if len(entries) > _MOST_CANDIDATES:
        raise ApiError(
            400,
            f"{len(entries)} alerts are inside; narrow the search",
            ("level", "firstMjdTai, lastMjdTai", "night", "class", "topic", "minReliability"),
        )
    levels = np.asarray(sky_map.level(entries.numbers["ra"], entries.numbers["dec"]), np.float64)
    order = np.lexsort((entries.numbers["number"], levels))
    names = alert_keys(entries, order)
    return [
        {"credibleLevel": at, "number": number, "key": key}
        for at, number, key in zip(
            levels[order].tolist(), entries.numbers["number"][order].tolist(), names, strict=True
        )
    ]


_FILE = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post("", openapi_extra=_FILE)
async def send_map(request: Request) -> Response:
    """Take a HEALPix probability map: the bytes of a FITS file, gzipped or not, up to 32 MB.

    Of one order or several (NUNIQ), equatorial or galactic, with a column PROB, PROBABILITY or
    PROBDENSITY. The answer's `mapId` names it in the calls below until 16 others were sent. The
    same file has the same name.
    """
    from starlette.concurrency import run_in_threadpool

    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > MAX_BYTES:
            raise ApiError(413, f"a map may have {MAX_BYTES >> 20} MB")
    kept: SkyMaps = request.app.state.sky_maps
    name = await run_in_threadpool(kept.add, bytes(data))
    return json_response(about_map(name, kept.get(name)))


def about_map(name: str, sky_map: ProbabilityMap) -> dict[str, Any]:
    """Return what is told of a map: where it is likeliest, and how large its regions are."""
    ra, dec = sky_map.likeliest
    areas = {f"{level:g}": sky_map.sky_share(level) * _SKY_DEG2 for level in (0.5, 0.9)}
    return {"mapId": name, "ra": ra, "dec": dec, "areaDeg2": areas}


@router.get("/{mapId}/candidates")
def read_candidates(
    request: Request,
    sources: SourcesOf,
    shape: ShapeOf,
    wanted: WantedOf,
    mapId: MapName,  # noqa: N803  # parameters have wire names
    level: Level = 0.9,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Response:
    """Return the public alerts inside a credible level of a map, the likeliest places first.

    `firstMjdTai` and `lastMjdTai` say when; all else of a search narrows it. `credibleLevel` is the
    share of the probability at places as likely as the alert's or likelier.
    """
    if wanted.region is not None:
        raise ApiError(400, "the map says where; leave ra, box, polygon and moc out")
    kept: SkyMaps = request.app.state.sky_maps
    rows = candidates(sources, kept.get(mapId), wanted, level)
    page = page_of(
        rows,
        key=lambda row: (row["credibleLevel"], row["number"]),
        limit=limit,
        cursor=cursor or None,
    )
    levels = {row["key"]: row["credibleLevel"] for row in page.rows}
    alerts = sources.store.alerts(list(levels))
    shown = [
        {**flat_row(alert), "credibleLevel": level}
        for alert, level in zip(alerts, levels.values(), strict=True)
        if alert["isPublic"]
    ]
    return shape.answer_page(type(page)(shown, page.total, page.cursor), name="candidates")

"""What a search may be asked by: parameters that become one `Wanted`."""

import json
import re
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import Depends, Query
from numpy.typing import NDArray

from broker.api.errors import ApiError, not_found
from broker.api.questions import EXAMPLE_NIGHT, EXAMPLE_TOPIC, SourcesOf
from broker.api.resolve import check_place, parse_night
from broker.api.sources import Sources
from broker.catalog.coverage import Coverage, coverage_of_cells, read_coverage
from broker.catalog.healpix import FINEST_ORDER, pixels_in_cone
from broker.catalog.regions import Region, box, covered, polygon
from broker.errors import AlertError, ConfigError
from broker.store.search import Range, Wanted
from broker.units import separation_arcsec

BANDS = ("u", "g", "r", "i", "z", "y")

_ASCII_MOC = re.compile(r"^\s*\d+/[\d\s,\-/]*$")
_MOST_CELLS = 1_000_000

Text = str | None
Number = float | None


def _query(words: str, **more: Any) -> Any:
    return Query(description=words, **more)


_LIST = " Several with commas between."


def wanted_of(
    sources: SourcesOf,
    night: Annotated[Text, _query("YYYYMMDD: one night.", max_length=20)] = None,
    firstNight: Annotated[  # noqa: N803  # parameters have wire names
        Text, _query("YYYYMMDD: from this night on.", examples=[EXAMPLE_NIGHT], max_length=20)
    ] = None,
    lastNight: Annotated[Text, _query("YYYYMMDD: until this night.", max_length=20)] = None,  # noqa: N803
    firstMjdTai: Annotated[Number, _query("Observed then or later. [d]")] = None,  # noqa: N803
    lastMjdTai: Annotated[Number, _query("Observed then or before. [d]")] = None,  # noqa: N803
    survey: Annotated[Text, _query("sim, ztf or lsst.", max_length=40)] = None,
    topic: Annotated[
        Text, _query("Chosen for this topic.", examples=[EXAMPLE_TOPIC], max_length=200)
    ] = None,
    class_: Annotated[
        Text,
        _query(
            "What a module says it is: a value of an output whose name ends in Class, or "
            "column=value." + _LIST,
            alias="class",
            examples=["hosted,lightCurveClass=SNIa"],
            max_length=500,
        ),
    ] = None,
    band: Annotated[
        Text, _query("u, g, r, i, z, y." + _LIST, examples=["g,r"], max_length=40)
    ] = None,
    minMag: Annotated[Number, _query("AB magnitude of psfFlux, at least. [mag]")] = None,  # noqa: N803
    maxMag: Annotated[Number, _query("At most: as bright or brighter. [mag]")] = None,  # noqa: N803
    minReliability: Annotated[Number, _query("Real/bogus score, at least.")] = None,  # noqa: N803
    minSnr: Annotated[Number, _query("Signal to noise, at least.")] = None,  # noqa: N803
    maxSnr: Annotated[Number, _query("Signal to noise, at most.")] = None,  # noqa: N803
    minDetections: Annotated[int | None, _query("Of its object so far, at least.")] = None,  # noqa: N803
    maxDetections: Annotated[int | None, _query("Of its object so far, at most.")] = None,  # noqa: N803
    catalog: Annotated[
        Text, _query("A match in each of these catalogues." + _LIST, max_length=500)
    ] = None,
    notCatalog: Annotated[  # noqa: N803
        Text, _query("No match in any of these catalogues." + _LIST, max_length=500)
    ] = None,
    isSolarSystem: Annotated[  # noqa: N803
        bool | None, _query("Whether its survey knows it as a solar-system object.")
    ] = None,
    ra: Annotated[Number, _query("With dec and radiusArcsec: a cone. ICRS. [deg]")] = None,
    dec: Annotated[Number, _query("ICRS. [deg]")] = None,
    radiusArcsec: Annotated[Number, _query("At most 3600. [arcsec]")] = None,  # noqa: N803
    box: Annotated[
        Text,
        _query("RA from, RA to, Dec from, Dec to; eastwards and northwards. [deg]", max_length=200),
    ] = None,
    polygon: Annotated[
        Text, _query("RA and Dec of each corner, with commas between. [deg]", max_length=4000)
    ] = None,
    moc: Annotated[
        Text,
        _query('A coverage: `6/1,3-7 8/42` or `{"6": [1, 3]}`, nested pixels.', max_length=8000),
    ] = None,
) -> Wanted:
    """Return what a search asks for; ApiError says what may stand in the place of what cannot."""
    one = parse_night(night) if night else None
    first = parse_night(firstNight) if firstNight else one
    last = parse_night(lastNight) if lastNight else one
    if survey is not None:
        sources.check_survey(survey)
    ranges: dict[str, Range] = {
        "midpointMjdTai": (firstMjdTai, lastMjdTai),
        "mag": (minMag, maxMag),
        "snr": (minSnr, maxSnr),
        "reliability": (minReliability, None),
        "nDiaSources": (minDetections, maxDetections),
    }
    known = tuple(sources.catalogs.definitions)
    return Wanted(
        nights=(first, last),
        topic=_known_topic(sources, topic),
        survey=survey,
        classes=_words(class_),
        bands=_checked(_words(band), BANDS, "band"),
        catalogs=_checked(_words(catalog), known, "catalogue"),
        not_catalogs=_checked(_words(notCatalog), known, "catalogue"),
        ranges={name: limits for name, limits in ranges.items() if limits != (None, None)},
        is_solar_system=isSolarSystem,
        region=_region((ra, dec, radiusArcsec), box, polygon, moc),
    )


WantedOf = Annotated[Wanted, Depends(wanted_of)]


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip()) if text else ()


def _checked(words: tuple[str, ...], known: tuple[str, ...], what: str) -> tuple[str, ...]:
    for word in words:
        if word not in known:
            raise ApiError(400, f"there is no {what} {word!r}", known)
    return words


def _known_topic(sources: Sources, topic: str | None) -> str | None:
    if topic is None or topic in sources.contributions.topics or sources.index.nights(topic=topic):
        return topic
    raise not_found("topic", topic, sources.contributions.topics)


def _region(
    cone: tuple[float | None, float | None, float | None],
    sides: str | None,
    corners: str | None,
    moc: str | None,
) -> Region | None:
    given = [cone != (None, None, None), sides is not None, corners is not None, moc is not None]
    if sum(given) > 1:
        raise ApiError(
            400, "only one of them says where", ("ra, dec, radiusArcsec", "box", "polygon", "moc")
        )
    try:
        if sides is not None:
            west, east, south, north = _numbers(sides, 4)
            return box((west, east), (south, north))
        if corners is not None:
            numbers = _numbers(corners)
            return polygon(numbers[::2], numbers[1::2])
        if moc is not None:
            return covered(parse_moc(moc))
    except AlertError as error:
        raise ApiError(400, error.message) from error
    if not given[0]:
        return None
    ra, dec, radius = cone
    if ra is None or dec is None or radius is None:
        raise ApiError(400, "a cone needs all three", ("ra", "dec", "radiusArcsec"))
    check_place(ra, dec, radius)
    return cone_region(ra, dec, radius)


def cone_region(ra: float, dec: float, radius_arcsec: float) -> Region:
    """Return a cone as a region. [deg]"""

    def contains(at_ra: Any, at_dec: Any) -> NDArray[np.bool_]:
        return np.asarray(separation_arcsec(ra, dec, at_ra, at_dec) <= radius_arcsec)

    return Region(*pixels_in_cone(ra, dec, radius_arcsec), contains)


def _numbers(text: str, count: int | None = None) -> list[float]:
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    odd = len(numbers) % 2 if count is None else len(numbers) != count
    if not numbers or odd or not np.isfinite(numbers).all():
        words = "pairs of numbers" if count is None else f"{count} numbers"
        raise ApiError(400, f"{text[:60]!r} is not {words} with commas between")
    return numbers


def parse_moc(text: str) -> Coverage:
    """Return the coverage that a text names.

    Parameters
    ----------
    text : str
        As ASCII, `6/1,3-7 8/42`, or as JSON, `{"6": [1, 3]}`.

    Raises
    ------
    ApiError
        If it is neither, or names pixels that do not exist.
    """
    cells: list[int] = []
    orders: list[int] = []
    try:
        by_order = json.loads(text) if text.lstrip()[:1] == "{" else _ascii_moc(text)
        for order, numbers in by_order.items():
            level = int(order)
            if not 0 <= level <= FINEST_ORDER:
                raise ValueError(f"there is no order {level}")
            for number in numbers:
                if not 0 <= int(number) < 12 << (2 * level):
                    raise ValueError(f"order {level} has no pixel {number}")
                cells.append(int(number))
                orders.append(level)
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise ApiError(
            400, f"the MOC cannot be read: {error}", ("6/1,3-7 8/42", '{"6": [1, 3]}')
        ) from error
    return coverage_of_cells(np.array(cells, np.uint64), np.array(orders, np.int64))


def _ascii_moc(text: str) -> dict[str, list[int]]:
    if not _ASCII_MOC.match(text):
        raise ValueError(f"{text[:40]!r} is none")
    found: dict[str, list[int]] = {}
    order, total = "", 0
    for word in re.split(r"[\s,]+", text.strip()):
        if "/" in word:
            order, _, word = word.partition("/")
            found.setdefault(order, [])
        if not word:
            continue
        first, _, last = word.partition("-")
        total += int(last or first) - int(first) + 1
        if total > _MOST_CELLS:
            raise ValueError(f"it has more than {_MOST_CELLS} pixels")
        found[order] += range(int(first), int(last or first) + 1)
    return found


def region_of_file(data: bytes) -> Region:
    """Return the region of a MOC file: FITS or JSON; ApiError if it is none."""
    with tempfile.NamedTemporaryFile(suffix=".moc") as file:
        file.write(data)
        file.flush()
        try:
            return covered(read_coverage(Path(file.name)))
        except ConfigError as error:
            words = error.message.replace(file.name, "the file")
            raise ApiError(400, words, ("FITS", "JSON")) from error

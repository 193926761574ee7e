"""Counts of public alerts by night, topic and class, and maps of them: numbers, FITS, pictures."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Response
from numpy.typing import NDArray

from broker.api.errors import ApiError
from broker.api.questions import EXAMPLE_NIGHT, EXAMPLE_TOPIC, ShapeOf, SourcesOf
from broker.api.resolve import parse_night
from broker.api.rows import Row
from broker.api.sources import Sources
from broker.store.blocks import COUNT_ORDER, PUBLIC, Bools, Entries
from broker.store.search import KINDS

router = APIRouter(prefix="/statistics", tags=["statistics and maps"])

MAPS = ("counts", "depth")
MAP_FORMATS = ("png", "fits", "json")
_MEDIA = {"png": "image/png", "fits": "application/fits"}
_MOST_NIGHTS = 400

FirstNight = Annotated[
    str | None,
    Query(description="YYYYMMDD: from this night on.", max_length=20, examples=[EXAMPLE_NIGHT]),
]
LastNight = Annotated[str | None, Query(description="YYYYMMDD: until this night.", max_length=20)]


def nights_between(sources: Sources, first: str | None, last: str | None) -> list[str]:
    """Return the nights with public alerts between two, of the newest 400, oldest first."""
    sources.check_index()
    low, high = (parse_night(text) if text else None for text in (first, last))
    nights = [
        night
        for night in sources.nights()
        if (low is None or night >= low) and (high is None or night <= high)
    ]
    return [night for night in nights[-_MOST_NIGHTS:] if sources.counts(night)["alerts"]["all"]]


@router.get("/nights")
def read_counts(
    sources: SourcesOf,
    shape: ShapeOf,
    firstNight: FirstNight = None,  # noqa: N803  # parameters have wire names
    lastNight: LastNight = None,  # noqa: N803
    by: Annotated[
        str, Query(description=", ".join(KINDS) + ".", max_length=40, examples=["topic"])
    ] = "alerts",
) -> Response:
    """Return how many public alerts each night has, by a kind: a row a night and value.

    Classes are named `column=value`. At most the newest 400 nights of those asked for; the newest
    two may be a minute old, others an hour.
    """
    if by not in KINDS:
        raise ApiError(400, f"nothing is counted by {by!r}", KINDS)
    rows: list[Row] = [
        {"night": night, "kind": by, "value": value, "alerts": n}
        for night in nights_between(sources, firstNight, lastNight)
        for value, n in sources.counts(night)[by].items()
    ]
    return shape.answer(rows, name=f"counts-by-{by}")


def sky_map(
    sources: Sources,
    nights: Sequence[str],
    *,
    order: int,
    topic: str | None = None,
    class_name: str | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return where public alerts were.

    Parameters
    ----------
    sources : Sources
    nights : sequence of str
        `YYYYMMDD`, of which there are alerts.
    order : int
        HEALPix order, at most `COUNT_ORDER`.
    topic, class_name : str, optional
        Only those chosen for the topic; that a module says are of this class (value, or
        `column=value`).

    Returns
    -------
    counts : NDArray[np.int64], shape (12 * 4**order,)
        Alerts in each nested pixel.
    depth : NDArray[np.float64], shape (12 * 4**order,)
        The deepest 5-sigma limiting magnitude of an image with an alert there, NaN where none is
        known. [mag]
    """
    n_pixels = 12 << (2 * order)
    counts = np.zeros(n_pixels, np.int64)
    depth = np.full(n_pixels, np.nan)
    for night in nights:
        entries = sources.shelf.counted(night)
        chosen = entries.label(PUBLIC) & _of(entries, topic, class_name)
        pixels = (entries.numbers["pixel"][chosen] >> (2 * (COUNT_ORDER - order))).astype(np.int64)
        counts += np.bincount(pixels, minlength=n_pixels)
        np.fmax.at(depth, pixels, entries.numbers["limitingMag"][chosen].astype(np.float64))
    return counts, depth


def _of(entries: Entries, topic: str | None, class_name: str | None) -> Bools:
    chosen = np.ones(len(entries), bool)
    if topic is not None:
        chosen &= entries.label(f"topic:{topic}")
    if class_name is not None:
        one = np.zeros(len(entries), bool)
        for label, bits in entries.labels.items():
            said = label.removeprefix("class:")
            if said != label and class_name in (said, said.partition("=")[2]):
                one |= bits
        chosen &= one
    return chosen


@router.get("/map")
def read_map(
    sources: SourcesOf,
    firstNight: FirstNight = None,  # noqa: N803
    lastNight: LastNight = None,  # noqa: N803
    kind: Annotated[str, Query(description=", ".join(MAPS) + ".", max_length=20)] = "counts",
    topic: Annotated[
        str | None,
        Query(description="Only of this topic.", max_length=200, examples=[EXAMPLE_TOPIC]),
    ] = None,
    class_: Annotated[
        str | None,
        Query(
            alias="class", description="Only of this class: value, or column=value.", max_length=200
        ),
    ] = None,
    order: Annotated[
        int, Query(ge=0, le=COUNT_ORDER, description="HEALPix order of the pixels.")
    ] = 5,
    form: Annotated[
        str, Query(alias="format", description=", ".join(MAP_FORMATS) + ".", max_length=10)
    ] = "png",
) -> Response:
    """Return a map of where alerts were: counts, or the depth of their images.

    PNG is a picture in Mollweide's projection, east to the left; FITS a HEALPix map, nested, that
    healpy and Aladin read; JSON the nested pixels that have alerts.
    """
    for value, known in ((kind, MAPS), (form, MAP_FORMATS)):
        if value not in known:
            raise ApiError(400, f"there is no {value!r} here", known)
    nights = nights_between(sources, firstNight, lastNight)
    counts, depth = sky_map(sources, nights, order=order, topic=topic, class_name=class_)
    what = " ".join(word for word in (topic, class_) if word) or "alerts"
    if form == "json":
        return _pixels(nights, order, counts, depth)
    body = map_file(counts, depth, order, kind=kind, form=form, title=_title(what, nights))
    name = f'inline; filename="{kind}.{form}"'
    return Response(body, media_type=_MEDIA[form], headers={"Content-Disposition": name})


def _pixels(
    nights: Sequence[str], order: int, counts: NDArray[np.int64], depth: NDArray[np.float64]
) -> Response:
    from broker.api.formats import json_response

    there = np.flatnonzero(counts)
    rows = [
        {"pixel": pixel, "alerts": n, "depth": None if np.isnan(deep) else deep}
        for pixel, n, deep in zip(
            there.tolist(), counts[there].tolist(), depth[there].tolist(), strict=True
        )
    ]
    about: dict[str, Any] = {"order": order, "ordering": "nested", "nights": list(nights)}
    return json_response({**about, "data": rows})


def map_file(
    counts: NDArray[np.int64],
    depth: NDArray[np.float64],
    order: int,
    *,
    kind: str,
    form: str,
    title: str,
) -> bytes:
    """Return a map as the bytes of a file.

    Parameters
    ----------
    counts, depth : NDArray, shape (12 * 4**order,)
        As of `sky_map`.
    order : int
        HEALPix order.
    kind : str
        Which of `MAPS` a picture shows; a FITS file has both.
    form : str
        `png` or `fits`.
    title : str
        Above the picture.
    """
    from broker.batch import density  # draws: slow to load

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"map.{form}"
        if form == "fits":
            density.write_map(
                path, counts, order, name=title[:60], columns={"LIMITINGMAG": (depth, "mag")}
            )
        elif kind == "counts":
            density.draw_map(path, counts, order, title=title)
        else:
            label = "5-sigma limiting magnitude"
            density.draw_values(path, depth, order, title=title, label=label)
        return path.read_bytes()


def _title(what: str, nights: Sequence[str]) -> str:
    if not nights:
        return f"{what}, no night"
    span = nights[0] if len(nights) == 1 else f"{nights[0]} to {nights[-1]}"
    # A dollar would begin a formula in a picture, and FITS takes ASCII only.
    plain = "".join(
        c if c.isascii() and c.isprintable() and c not in "$\\^_{}" else "-" for c in what
    )
    return f"{plain}, {span}"

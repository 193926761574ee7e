"""Scorecards of many images: of files or of a stored night, as rows and as a table."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from broker.detection.differencing.difference import without_sky
from broker.detection.quality.image_flags import names
from broker.detection.quality.scorecard import Card, assess, judged, usual_of
from broker.errors import AlertError
from broker.imaging.fits import Defaults, read_frames, to_image
from broker.imaging.templates import Template
from broker.ops.image_files import read_calibrated, stem

NUMBERS: dict[str, str] = {
    "seeing": "arcsec",
    "seeingScatter": "",
    "ellipticity": "",
    "psfStars": "",
    "measuredZeroPoint": "mag",
    "zeroPointOff": "mag",
    "zeroPointErr": "mag",
    "transparencySpread": "mag",
    "limitingMag": "mag",
    "background": "adu",
    "skySigma": "adu",
    "noiseRatio": "",
    "skyShape": "",
    "amplifierStep": "",
    "amplifierNoise": "",
    "amplifierLost": "",
    "nStars": "",
    "starShare": "",
    "kernelSum": "",
    "kernelChi2": "",
    "differenceChi": "",
    "subtractionRatio": "",
    "maskedShare": "",
    "wcsShiftPx": "pixel",
    "wcsRmsPx": "pixel",
    "midpointMjdTai": "d",
}
"""What of a scorecard goes into tables, with its unit."""

_WORDS = ("image", "band", "failure")


def cards_of_file(path: Path, defaults: Defaults, template: Template | None = None) -> list[Card]:
    """Return a scorecard for each image of a file, named after it.

    Raises
    ------
    AlertError
        If it is no FITS file with images.
    """
    frames = read_frames(path)
    cards: list[Card] = []
    for number, frame in enumerate(frames):
        image = to_image(frame, defaults)
        name = path.name if len(frames) == 1 else f"{path.name}[{number}]"
        cards.append(assess(image, template) | {"image": name})
    return cards


def read_template(path: Path, defaults: Defaults) -> Template:
    """Return a file's image as a template: a coadd, or any good image of the place."""
    image = read_calibrated(path, defaults)
    if "nVisits" not in image.meta:
        image = without_sky(image)[0]
    return Template(image, stem(path))


def cards_of_rows(rows: Iterable[Any], night: str = "") -> list[Card]:
    """Return the scorecards of stored detectors, in order of visit and detector.

    Parameters
    ----------
    rows : iterable of DetectorRow
    night : str
        `YYYYMMDD`; empty for all.
    """
    from broker.types import night_of

    cards: list[Card] = []
    for row in rows:
        card: Card = dict(row.scorecard)
        if not card or (night and night_of(float(card["midpointMjdTai"])) != night):
            continue
        cards.append(card | {"image": f"{row.visit}-{row.detector}"})
    return sorted(cards, key=lambda c: (int(c["visit"]), int(c["detector"])))


def held_against_each_other(cards: Sequence[Mapping[str, Any]]) -> list[Card]:
    """Return scorecards with the flags for what is unusual among those of one band."""
    usual = {
        band: usual_of(c for c in cards if c.get("band") == band)
        for band in {c.get("band") for c in cards}
    }
    return [judged(card, usual[card.get("band")]) for card in cards]


def rows_of(cards: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return scorecards as rows with the names of their flags."""
    return [
        {"image": card.get("image", ""), "flags": names(int(card["flags"]))}
        | {k: v for k, v in card.items() if k not in ("image", "flags")}
        for card in cards
    ]


def table_of(cards: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return scorecards as a table, a row an image; what is not known is null."""
    columns: dict[str, pa.Array] = {
        name: pa.array([str(card.get(name) or "") for card in cards], pa.string())
        for name in _WORDS
    }
    for name in ("visit", "detector", "flags"):
        columns[name] = pa.array([int(card.get(name, 0)) for card in cards], pa.int64())
    columns["flagNames"] = pa.array(
        [" ".join(names(int(card["flags"]))) for card in cards], pa.string()
    )
    for name in NUMBERS:
        values = [card.get(name) for card in cards]
        columns[name] = pa.array(
            [None if v is None else float(v) for v in values], pa.float64(), from_pandas=True
        )
    return pa.table(columns)


def flagged(cards: Iterable[Mapping[str, Any]]) -> int:
    """Return how many images have a flag."""
    return sum(int(card["flags"]) != 0 for card in cards)


def require_cards(cards: Sequence[Any], where: str) -> None:
    """Raise AlertError if there is none."""
    if not cards:
        raise AlertError(f"{where} has no image with a scorecard")

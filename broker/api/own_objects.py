"""What is known of objects of our own images beside their alerts: names, forced fluxes, marks."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from broker.api.sources import LEDGER_S, TOPICS_S, Alert, Sources
from broker.store.forced import ForcedStore, pixels_of_new_objects
from broker.store.objects import DetectorStore
from broker.store.retractions import Retraction, RetractionStore
from broker.types import night_of

_SURVEY = "sim"


@dataclass(frozen=True)
class WholeObject:
    """An object under all its names.

    Parameters
    ----------
    name : str
        The one that it is known by.
    aliases : tuple of str
        Its other names: detectors that overlap each gave it one in the visit it began in.
    alerts : list of Alert
        Under any of its names, oldest first.
    """

    name: str
    aliases: tuple[str, ...]
    alerts: list[Alert]


def whole_object(sources: Sources, survey: str, name: str) -> WholeObject:
    """Return an object by any of its names; ApiError 404 if there is none.

    Objects of a survey whose images are not ours have one name each.
    """
    alerts = sources.object(survey, name)
    names = [name]
    if survey == _SURVEY and _is_number(name) and _has(sources, "association"):
        names = _names(sources, int(name), alerts[0])
    more = [one for other in names if other != name for one in sources.find_object(survey, other)]
    if more:
        alerts = sorted(
            [*alerts, *more], key=lambda one: (one["midpointMjdTai"], int(one["diaSourceId"]))
        )
    return WholeObject(names[0], tuple(names[1:]), alerts)


def _names(sources: Sources, name: int, alert: Alert) -> list[str]:
    from broker.store.object_names import names_of  # compiled code, slow to load

    found = names_of(sources.tables, sources.run, name, alert["ra"], alert["dec"])
    return [str(one) for one in found]


def forced_fluxes(sources: Sources, alerts: list[Alert]) -> list[dict[str, Any]]:
    """Return the forced fluxes at an object, in all visits so far, oldest first.

    Also those of visits after its newest alert, which no packet tells of yet. Empty for an object
    of a survey whose images are not ours.
    """
    first = alerts[0]
    name = first["diaObjectId"]
    if first["survey"] != _SURVEY or not _is_number(name) or not _has(sources, "forced"):
        return []
    # It is kept under the place of the source that it is named by.
    named = next((alert for alert in alerts if alert["diaSourceId"] == name), first)
    (pixel,) = pixels_of_new_objects(np.array([named["ra"]]), np.array([named["dec"]])).tolist()
    return ForcedStore(sources.tables, sources.run).of_objects([(int(name), pixel)]).to_pylist()


def retraction_of(sources: Sources, survey: str, name: str) -> dict[str, Any]:
    """Return whether an object is withdrawn, when and why, and which of its sources are."""
    marks: list[Retraction] = []
    if survey == _SURVEY and _is_number(name) and _has(sources, "retraction"):
        marks = RetractionStore(sources.tables, sources.run).of_object(name)
    whole = next((mark for mark in marks if mark.dia_source_id is None), None)
    is_retracted = whole is not None and whole.is_retracted
    return {
        "isRetracted": is_retracted,
        "timeWithdrawnMjdTai": whole.time_withdrawn_mjd_tai if whole and is_retracted else None,
        "retractionReason": whole.reason if whole and is_retracted else None,
        "retractedDiaSourceIds": [
            str(mark.dia_source_id)
            for mark in marks
            if mark.dia_source_id is not None and mark.is_retracted
        ],
    }


def images_of_night(sources: Sources, night: str) -> dict[str, Any]:
    """Return how many of our own images a night has, how many are flagged, and with what.

    Each is held against the night's other images of its band; may be a minute old.

    Parameters
    ----------
    sources : Sources
    night : str
        `YYYYMMDD`.
    """
    nothing = {"images": 0, "flagged": 0, "flags": {}}
    return sources.kept("images", LEDGER_S, lambda: _count_images(sources)).get(night, nothing)


def _count_images(sources: Sources) -> dict[str, dict[str, Any]]:
    from broker.ops import image_quality as quality  # compiled code, slow to load

    rows = DetectorStore(sources.tables, sources.run).all() if _has(sources, "detector") else ()
    nights: dict[str, list[Any]] = {}
    for card in quality.cards_of_rows(rows):
        nights.setdefault(night_of(float(card["midpointMjdTai"])), []).append(card)
    counts = {}
    for night, its in nights.items():
        cards = quality.held_against_each_other(its)
        flags = Counter(name for row in quality.rows_of(cards) for name in row["flags"])
        counts[night] = {
            "images": len(cards),
            "flagged": quality.flagged(cards),
            "flags": dict(flags.most_common()),
        }
    return counts


def _is_number(name: str | None) -> bool:
    return name is not None and name.isascii() and name.isdigit()


def _has(sources: Sources, table: str) -> bool:
    """Return whether a run has a table; runs from before it was thought of have none."""
    names = sources.kept("tables", TOPICS_S, sources.tables.names)
    return sources.run.table(table) in names

"""What alerts are asked for, and which of many are: columns against limits, without a loop."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from broker.catalog.regions import Region
from broker.store.blocks import PUBLIC, SOLAR_SYSTEM, Bools, Entries
from broker.units import flux_to_mag

Range = tuple[float | None, float | None]
"""From, to; None is no limit. What is not known is in no range that has a limit."""

RANGED = ("midpointMjdTai", "mag", "snr", "reliability", "nDiaSources")
"""What may be asked for by a range."""

KINDS = ("alerts", "survey", "band", "topic", "class", "catalog")
"""What is counted by: all alerts, or the values of one of these."""


@dataclass(frozen=True)
class Wanted:
    """What alerts are asked for: all of it together.

    Parameters
    ----------
    nights : tuple of str or None
        First and last night; None is no limit.
    topic, survey : str, optional
        Chosen for that topic; of that survey.
    classes : tuple of str
        What a module says they are, one of these: a value, or `column=value`.
    bands : tuple of str
        One of these.
    catalogs : tuple of str
        A match in each of these catalogues.
    not_catalogs : tuple of str
        No match in any of these.
    ranges : mapping of str to Range
        By a name of `RANGED`.
    is_solar_system : bool, optional
        Whether it is known as a solar-system object.
    region : Region, optional
        Where.
    """

    nights: tuple[str | None, str | None] = (None, None)
    topic: str | None = None
    survey: str | None = None
    classes: tuple[str, ...] = ()
    bands: tuple[str, ...] = ()
    catalogs: tuple[str, ...] = ()
    not_catalogs: tuple[str, ...] = ()
    ranges: Mapping[str, Range] = field(default_factory=dict)
    is_solar_system: bool | None = None
    region: Region | None = None


def matching(entries: Entries, wanted: Wanted) -> Bools:
    """Return which public alerts are as they are wanted, shape (n,); nights are not looked at."""
    chosen = entries.label(PUBLIC).copy()
    if wanted.topic is not None:
        chosen &= entries.label(f"topic:{wanted.topic}")
    if wanted.survey is not None:
        chosen &= entries.label(f"survey:{wanted.survey}")
    if wanted.bands:
        chosen &= _any(entries, [f"band:{band}" for band in wanted.bands])
    if wanted.classes:
        chosen &= _any(entries, _class_labels(entries, wanted.classes))
    for catalog in wanted.catalogs:
        chosen &= entries.label(f"catalog:{catalog}")
    for catalog in wanted.not_catalogs:
        chosen &= ~entries.label(f"catalog:{catalog}")
    if wanted.is_solar_system is not None:
        chosen &= entries.label(SOLAR_SYSTEM) == wanted.is_solar_system
    for name, limits in wanted.ranges.items():
        chosen &= _within(entries, name, limits)
    if wanted.region is not None:
        rows = np.flatnonzero(chosen)
        ra, dec = entries.numbers["ra"][rows], entries.numbers["dec"][rows]
        chosen[rows] = wanted.region.contains(ra, dec)
    return chosen


def _any(entries: Entries, labels: list[str]) -> Bools:
    found = np.zeros(len(entries), bool)
    for label in labels:
        found |= entries.label(label)
    return found


def _class_labels(entries: Entries, classes: tuple[str, ...]) -> list[str]:
    """Return the labels of classes that are named by their value, or by column and value."""
    return [
        label
        for label in entries.labels
        if label.startswith("class:")
        and (label.removeprefix("class:") in classes or label.partition("=")[2] in classes)
    ]


def _within(entries: Entries, name: str, limits: Range) -> Bools:
    low, high = limits
    if name == "mag":
        flux = entries.numbers["psfFlux"].astype(np.float64)
        values = np.full(flux.shape, np.nan)
        values[flux > 0.0] = flux_to_mag(flux[flux > 0.0])
    else:
        values = entries.numbers[name]
    inside = np.ones(len(entries), bool)
    with np.errstate(invalid="ignore"):
        if low is not None:
            inside &= values >= low
        if high is not None:
            inside &= values <= high
    if name == "nDiaSources" and low is None and high is not None:
        inside &= values > 0  # not known
    return inside


def counts_by_kind(entries: Entries) -> dict[str, dict[str, int]]:
    """Return how many public alerts there are, by `KINDS` and their values.

    Of `alerts` the values are `all` and `solar-system`; classes are named `column=value`.
    """
    public = entries.label(PUBLIC)
    counts: dict[str, dict[str, int]] = {kind: {} for kind in KINDS}
    counts["alerts"] = {"all": int(public.sum())}
    counts["alerts"][SOLAR_SYSTEM] = int((entries.label(SOLAR_SYSTEM) & public).sum())
    for label, bits in entries.labels.items():
        kind, _, value = label.partition(":")
        if value and kind in counts and (n := int((bits & public).sum())):
            counts[kind][value] = n
    return counts

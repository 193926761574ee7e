"""Why a catalogue entry is near a position, in words and as a rank."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from broker.alerts.columns import FOUND, NOT_FOUND
from broker.catalog.definition import MAP, ORBITS, Definition, match_name

STAR_ON_TOP, IN_HOST, NEAR_HOST, NEAR_ENTRY, NOTHING = 1, 2, 3, 4, 9
"""Ranks: the smaller, the more an entry tells what the alert is."""

_ON_TOP_ARCSEC = 1.5
_STARS = {"star", "variable", "agn", "qso", "quasar"}
_WORDS = {"agn": "AGN", "qso": "quasar", "variable": "variable star"}


@dataclass(frozen=True)
class Association:
    """One catalogue's say on a position.

    Parameters
    ----------
    catalog : str
        Its name.
    rank : int
        1 a point source on top, 2 within a galaxy, 3 around one, 4 near an entry of no stated
        kind, 9 nothing there or not searched.
    sentence : str
        The same in plain language.
    """

    catalog: str
    rank: int
    sentence: str


def associate(definition: Definition, match: Mapping[str, Any]) -> Association:
    """Say what a match with one catalogue means.

    Parameters
    ----------
    definition : Definition
        The catalogue.
    match : mapping
        One row of `Catalogs.match`.
    """
    name = definition.name
    value = {c: match.get(match_name(name, c)) for c in ("match", "id", "separation", "class")}
    if value["match"] == NOT_FOUND:
        return Association(name, NOTHING, f"No entry of {name} is near.")
    if value["match"] != FOUND:
        return Association(name, NOTHING, f"{name} has not been searched here.")
    if definition.kind == MAP:
        return Association(name, NOTHING, f"The map {name} {_map_words(definition, match)}.")
    away = float(value["separation"] or 0.0)
    if definition.kind == ORBITS:
        mag = match.get(match_name(name, "predictedMag"))
        words = f", predicted at V = {mag:.1f}" if mag is not None else ""
        sentence = f"{away:.2f} arcsec from where {value['id']} of {name} should be{words}."
        return Association(name, STAR_ON_TOP, sentence)
    entry, kind = f"{value['id']} of {name}", (value["class"] or "").lower()
    size = match.get(match_name(name, definition.radius_column)) if definition.radius_column else 0
    if kind in _STARS:
        word = _WORDS.get(kind, kind)
        if away <= _ON_TOP_ARCSEC:
            return Association(name, STAR_ON_TOP, f"On the {word} {entry}, {away:.2f} arcsec away.")
        return Association(name, NEAR_ENTRY, f"{away:.1f} arcsec from the {word} {entry}.")
    if size and size > 0.0:
        word, ratio = kind or "entry", away / float(size)
        words = f"the {word} {entry}, {away:.1f} arcsec or {ratio:.2f} of its radius from the core."
        rank = IN_HOST if ratio <= 1.0 else NEAR_HOST
        return Association(name, rank, f"{'In' if ratio <= 1.0 else 'Around'} {words}")
    return Association(name, NEAR_ENTRY, f"{away:.1f} arcsec from the {kind or 'entry'} {entry}.")


def _map_words(definition: Definition, match: Mapping[str, Any]) -> str:
    columns = (*definition.computed_columns, *definition.columns)
    values = [(c, match.get(match_name(definition.name, c.name))) for c in columns]
    said = [
        f"{c.name} {v:.4g} {c.unit}".strip() if isinstance(v, float) else f"{c.name} {v}"
        for c, v in values
        if v is not None
    ]
    return f"has {', '.join(said)} here" if said else "has no value here"


def associations(definitions: Sequence[Definition], match: Mapping[str, Any]) -> list[Association]:
    """Say what the match of one alert with all catalogues means, the most telling first."""
    said = [associate(definition, match) for definition in definitions]
    return sorted(said, key=lambda one: (one.rank, one.catalog))

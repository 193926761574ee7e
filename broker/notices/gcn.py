"""Notices in JSON, with the names of the unified schema of the General Coordinates Network."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from broker.errors import AlertError
from broker.notices.maps import map_of_base64, map_of_path
from broker.notices.notice import (
    INITIAL,
    KINDS,
    RETRACTION,
    Notice,
    digest_of,
    mjd_tai_of,
)
from broker.notices.place import Ellipse, Place

_TYPES = (*KINDS, "test", "injected", "commanded", "commended")
_TENSES = ("current", "archival", "test", "mock", "injection", "planned", "commanded")
_REAL_TENSES = ("current", "archival")
_CONTAINMENT = 0.9  # the schema's, where a notice does not say


def parse_gcn(body: bytes, *, maps: Path | None = None) -> Notice:
    """Return a notice from JSON.

    Parameters
    ----------
    body : bytes
        One object with `event_name` or `id`, `trigger_time`, and `ra`, `dec` with an error
        (`ra_dec_error`: a radius, or semi-axes and position angle; or `position_a_error`…), or
        `healpix_file` (base64) or `healpix_url` (a file below `maps`). Other fields may be there.
    maps : Path, optional
        The folder in which maps may be.

    Raises
    ------
    AlertError
        If something is missing, of another type, or not possible.
    """
    values = _object(body)
    kind = _choice(values, "alert_type", _TYPES, INITIAL)
    tense = _choice(values, "alert_tense", _TENSES, "current")
    mission = _text(values, "mission") or "unknown"
    instrument = _text(values, "instrument")
    name = _name(values)
    stated = _text(values, "alert_datetime") or _text(values, "datetime_of_notice")
    trigger_text = _text(values, "trigger_time")
    if not trigger_text and kind != RETRACTION:
        raise AlertError("the notice has no trigger_time")
    trigger = mjd_tai_of(trigger_text, "trigger_time") if trigger_text else None
    if not stated and trigger is None:
        raise AlertError("the notice has no alert_datetime")
    created = mjd_tai_of(stated, "alert_datetime") if stated else trigger
    record = _number(values, "record_number")
    digest = digest_of(body)
    number = f"{record:g}" if record is not None else stated or digest
    is_plain = kind in KINDS
    return Notice(
        notice_id=":".join(x for x in (mission, instrument, name, kind, number) if x),
        event=f"{mission}:{name}",
        kind=kind if is_plain else INITIAL,
        is_test=not is_plain or tense not in _REAL_TENSES,
        reporter=" ".join(x for x in (mission, instrument) if x),
        # A record that is written in the same second as the one before comes after it.
        created_mjd_tai=(created or 0.0) + 1e-9 * (record or 0.0),
        trigger_mjd_tai=trigger,
        place=None if kind == RETRACTION else _place(values, maps),
        digest=digest,
    )


def _object(body: bytes) -> dict[str, Any]:
    try:
        values = json.loads(body, parse_constant=_refuse_constant, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise AlertError(f"the notice is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise AlertError("the notice is JSON, but no object")
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise AlertError(f"the notice has the number {name}, which JSON has not")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise AlertError(f"the notice has {twice} twice")
    return found


def _choice(values: Mapping[str, Any], name: str, allowed: tuple[str, ...], default: str) -> str:
    value = _text(values, name).lower() or default
    if value not in allowed:
        raise AlertError(f"{name} is {value!r}; it is one of {', '.join(allowed)}")
    return value


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise AlertError(f"{name} is {value!r}, no text")
    return value.strip()


def _number(values: Mapping[str, Any], name: str) -> float | None:
    value = values.get(name)
    return None if value is None else _finite(value, name)


def _finite(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AlertError(f"{name} is {value!r}, no number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise AlertError(f"{name} is not finite")
    return number


def _name(values: Mapping[str, Any]) -> str:
    """Return the event's first trigger id, else its first name."""
    for key in ("id", "event_name"):
        value = values.get(key)
        first = value[0] if isinstance(value, list) and value else value
        if first is None or first == []:
            continue
        if not isinstance(first, str) or not first.strip():
            raise AlertError(f"{key} is {value!r}, no text and no list of texts")
        return first.strip()
    raise AlertError("the notice names no event: it has neither id nor event_name")


def _place(values: Mapping[str, Any], maps: Path | None) -> Place:
    if values.get("healpix_file") is not None:
        return map_of_base64(_text(values, "healpix_file"))
    if values.get("healpix_url") is not None:
        return map_of_path(_text(values, "healpix_url"), maps)
    ra, dec = _number(values, "ra"), _number(values, "dec")
    if ra is None or dec is None:
        raise AlertError("the notice has no place: neither ra and dec nor a map")
    major, minor, pa = _axes(values)
    containment = _number(values, "containment_probability")
    return Ellipse(ra, dec, major, minor, pa, _CONTAINMENT if containment is None else containment)


def _axes(values: Mapping[str, Any]) -> tuple[float, float, float]:
    error = values.get("ra_dec_error")
    if isinstance(error, list):
        if len(error) != 3:
            raise AlertError("ra_dec_error has not three parts: semi-axes and position angle")
        major, minor, pa = (_finite(part, "ra_dec_error") for part in error)
        return major, minor, pa
    if error is not None:
        radius = _finite(error, "ra_dec_error")
        return radius, radius, 0.0
    semi_major = _number(values, "position_a_error")
    if semi_major is None:
        raise AlertError("the notice has a position without an error: no ra_dec_error")
    semi_minor = _number(values, "position_b_error")
    angle = _number(values, "position_error_pa") or 0.0
    return semi_major, semi_major if semi_minor is None else semi_minor, angle

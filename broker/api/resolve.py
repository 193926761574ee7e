"""What a person types to find something: an id, a name, a place, a topic, a night."""

import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from broker.api.errors import ApiError

DEFAULT_RADIUS_ARCSEC = 10.0
MAX_RADIUS_ARCSEC = 3600.0

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
_UNIT = r"arcsec|arcmin|deg|s|m|d|\"|'|″|′|°"
_RADIUS = rf"(?:[\s,]+(?:r=|radius=)?(?P<radius>\d+\.?\d*|\.\d+)\s*(?P<unit>{_UNIT})?)?"
_DEGREES = re.compile(
    rf"^(?P<ra>{_NUMBER})\s*(?:d|°)?[\s,]+(?P<dec>{_NUMBER})\s*(?:d|°)?{_RADIUS}$"
)
_H = r"(?P<h>\d{1,2})\s*[:h\s]\s*(?P<hm>\d{1,2})\s*[:m\s]\s*(?P<hs>\d{1,2}(?:\.\d*)?)\s*s?"
_D = (
    r"(?P<sign>[+\-−]?)\s*(?P<d>\d{1,2})\s*[:d°\s]\s*(?P<dm>\d{1,2})\s*[:m'′\s]\s*"
    r"(?P<ds>\d{1,2}(?:\.\d*)?)\s*[s\"″]?"
)
_SEXAGESIMAL = re.compile(rf"^{_H}[\s,]*{_D}{_RADIUS}$")
_J_NAME = re.compile(
    r"^(?:[A-Za-z0-9]+[\s_]+)?[Jj](?P<h>\d{2})(?P<hm>\d{2})(?P<hs>\d{2}(?:\.\d+)?)"
    r"(?P<sign>[+\-−])(?P<d>\d{2})(?P<dm>\d{2})(?P<ds>\d{2}(?:\.\d+)?)$"
)
_KEYED = re.compile(r"^(?P<key>[a-z]+):\s*(?P<value>.+)$", re.IGNORECASE)
_NIGHT = re.compile(r"^\d{8}$|^\d{4}-\d{2}-\d{2}$")
_ARCSEC = {
    "": 1.0,
    "arcsec": 1.0,
    "s": 1.0,
    '"': 1.0,
    "″": 1.0,
    "arcmin": 60.0,
    "m": 60.0,
    "'": 60.0,
    "′": 60.0,
    "deg": 3600.0,
    "d": 3600.0,
    "°": 3600.0,
}

KINDS = ("place", "topic", "class", "night", "name")

HELP = (
    ("id", "91955254103259883", "an object or an alert, by its id"),
    ("survey", "sim:91955254103259883", "the same, in one survey"),
    ("degrees", "150.1163 -2.2012 30", "a place in degrees, with a radius in arcseconds"),
    ("sexagesimal", "10:00:27.91 -02:12:04.3 1m", "a place in hours and degrees; radius s, m or d"),
    ("name", "J100027.91-021204.3", "a name that is a place"),
    ("topic", "topic:young-supernova", "the newest alerts of a topic"),
    ("class", "class:hosted", "objects that a module says are of a class"),
    ("night", "night:20251110", "what happened in a night"),
)
"""What may be typed: kind, example, what it finds."""


@dataclass(frozen=True)
class Question:
    """What a person asked for.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    text : str
        A name, an id, a topic, a class or a night; what was typed for a place.
    ra, dec : float or None
        The place. [deg]
    radius_arcsec : float
        Around the place. [arcsec]
    survey : str or None
        The survey, where one was named.
    """

    kind: str
    text: str
    ra: float | None = None
    dec: float | None = None
    radius_arcsec: float = DEFAULT_RADIUS_ARCSEC
    survey: str | None = None


def parse_question(text: str, surveys: Collection[str] = ()) -> Question:
    """Return what a text asks for.

    Parameters
    ----------
    text : str
        What was typed.
    surveys : collection of str
        Names that may stand before a colon and an id.

    Raises
    ------
    ApiError
        If it is empty, or a place is not on the sky, or a key before a colon is unknown.
    """
    text = " ".join(text.split())
    if not text:
        raise ApiError(400, "nothing was asked for", (example for _, example, _ in HELP))
    for pattern in (_SEXAGESIMAL, _J_NAME, _DEGREES):
        match = pattern.match(text)
        if match:
            return _place(text, match.groupdict())
    keyed = _KEYED.match(text)
    if keyed:
        return _keyed(text, keyed["key"].lower(), keyed["value"].strip(), surveys)
    return Question("name", text)


def _keyed(text: str, key: str, value: str, surveys: Collection[str]) -> Question:
    if key in ("topic", "class"):
        return Question(key, value)
    if key == "night":
        return Question("night", parse_night(value))
    if key == "ss":
        return Question("name", text)
    if key in surveys:
        return Question("name", value, survey=key)
    raise ApiError(
        400,
        f"{key}: is not understood",
        ("topic:", "class:", "night:", "ss:", *(f"{s}:" for s in surveys)),
    )


def parse_night(text: str) -> str:
    """Return a night as `YYYYMMDD`; ApiError if the text is no date."""
    digits = text.replace("-", "")
    try:
        if _NIGHT.match(text):
            datetime.strptime(digits, "%Y%m%d")
            return digits
    except ValueError:
        pass
    raise ApiError(400, f"{text!r} is no night", ("YYYYMMDD", "YYYY-MM-DD"))


def _place(text: str, parts: dict[str, str | None]) -> Question:
    if "ra" in parts:
        ra, dec = float(parts["ra"] or 0), float(parts["dec"] or 0)
    else:
        numbers = [float(parts[name] or 0) for name in ("h", "hm", "hs", "d", "dm", "ds")]
        for value, limit in zip(numbers, (24.0, 60.0, 60.0, 90.1, 60.0, 60.0), strict=True):
            if value >= limit:
                raise ApiError(400, f"{text!r}: {value:g} is too much", ("hh:mm:ss ±dd:mm:ss",))
        ra = 15.0 * _sexagesimal(*numbers[:3])
        dec = _sexagesimal(*numbers[3:]) * (-1.0 if parts["sign"] in ("-", "−") else 1.0)
    radius = parts.get("radius")
    arcsec = float(radius) * _ARCSEC[parts.get("unit") or ""] if radius else DEFAULT_RADIUS_ARCSEC
    check_place(ra, dec, arcsec)
    return Question("place", text, ra, dec, arcsec)


def check_place(ra: float, dec: float, radius_arcsec: float) -> None:
    """Raise ApiError if a place is not on the sky or a radius is too large."""
    if not (math.isfinite(ra) and 0.0 <= ra <= 360.0):
        raise ApiError(400, f"the right ascension {ra:g} is not on the sky", ("0 to 360",))
    if not (math.isfinite(dec) and -90.0 <= dec <= 90.0):
        raise ApiError(400, f"the declination {dec:g} is not on the sky", ("-90 to 90",))
    if not 0.0 < radius_arcsec <= MAX_RADIUS_ARCSEC:
        raise ApiError(
            400,
            f"the radius is {radius_arcsec:g} arcsec",
            (f"more than 0, at most {MAX_RADIUS_ARCSEC:g} arcsec",),
        )


def _sexagesimal(whole: float, minutes: float, seconds: float) -> float:
    return whole + minutes / 60.0 + seconds / 3600.0


def notations(ra: float, dec: float) -> dict[str, str]:
    """Return a place in three notations: degrees, sexagesimal, galactic. [deg]"""
    longitude, latitude = galactic(ra, dec)
    return {
        "degrees": f"{ra:.6f} {dec:+.6f}",
        "sexagesimal": f"{_hours(ra)} {_degrees(dec)}",
        "galactic": f"{longitude:.5f} {latitude:+.5f}",
    }


def _hours(ra: float) -> str:
    total = round(ra / 15.0 * 3600.0 * 1000.0) % (24 * 3_600_000)
    hours, rest = divmod(total, 3_600_000)
    minutes, ms = divmod(rest, 60_000)
    return f"{hours:02d}:{minutes:02d}:{ms / 1000.0:06.3f}"


def _degrees(dec: float) -> str:
    total = round(abs(dec) * 3600.0 * 100.0)
    degrees, rest = divmod(total, 360_000)
    minutes, cs = divmod(rest, 6_000)
    return f"{'-' if dec < 0 else '+'}{degrees:02d}:{minutes:02d}:{cs / 100.0:05.2f}"


_POLE_RA, _POLE_DEC, _NODE = (math.radians(x) for x in (192.85948, 27.12825, 122.93192))


def galactic(ra: float, dec: float) -> tuple[float, float]:
    """Return galactic longitude and latitude. [deg]

    With the pole of the Hipparcos catalogue (ESA 1997, SP-1200, section 1.5.3).
    """
    a, d = math.radians(ra), math.radians(dec)
    sine = math.sin(_POLE_DEC) * math.sin(d) + math.cos(_POLE_DEC) * math.cos(d) * math.cos(
        a - _POLE_RA
    )
    y = math.cos(d) * math.sin(a - _POLE_RA)
    x = math.cos(_POLE_DEC) * math.sin(d) - math.sin(_POLE_DEC) * math.cos(d) * math.cos(
        a - _POLE_RA
    )
    longitude = math.degrees(_NODE - math.atan2(y, x)) % 360.0
    return longitude, math.degrees(math.asin(max(-1.0, min(1.0, sine))))

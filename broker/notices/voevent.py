"""Notices as VOEvent 2.0 (Seaman et al. 2011, IVOA recommendation)."""

import math
from pathlib import Path

from broker.errors import AlertError
from broker.notices.maps import map_of_base64, map_of_path
from broker.notices.notice import INITIAL, RETRACTION, UPDATE, Notice, digest_of, mjd_tai_of
from broker.notices.place import Ellipse, Place
from broker.notices.safe_xml import Element, read_xml

_NAMESPACE = "http://www.ivoa.net/xml/VOEvent/v2.0"
_ROLES = ("observation", "test")
_FRAMES = ("ICRS", "FK5")  # FK5 differs from ICRS by some 20 mas, less than any error of an event
_CONTAINMENT = 0.9
_INLINE, _BY_PATH = ("healpix_file",), ("skymap_fits", "skymap_fits_basic", "healpix_url")


def parse_voevent(body: bytes, *, maps: Path | None = None) -> Notice:
    """Return a notice from a VOEvent.

    Parameters
    ----------
    body : bytes
        The document: role, author or date, time (UTC) and position (ICRS, or FK5) with
        `Error2Radius`, the radius that holds 0.9 unless a parameter `containment_probability`
        says otherwise; or a parameter `healpix_file` (base64) or `skymap_fits` (below `maps`).
    maps : Path, optional
        The folder in which maps may be.

    Raises
    ------
    AlertError
        If it is no VOEvent 2.0, something is missing or not possible, or it declares a type.
    """
    root = read_xml(body)
    if root.name != "VOEvent" or root.namespace != _NAMESPACE:
        raise AlertError(f"the document is {root.name} of {root.namespace!r}, no VOEvent 2.0")
    if root.attributes.get("version") != "2.0":
        raise AlertError(f"the VOEvent is of version {root.attributes.get('version')}, not 2.0")
    role = root.attributes.get("role", "observation")
    if role not in _ROLES:
        raise AlertError(f"the role is {role!r}; of an event it is {' or '.join(_ROLES)}")
    ivorn = root.attributes.get("ivorn", "")
    if not ivorn.startswith("ivo://"):
        raise AlertError(f"the ivorn is {ivorn!r}; it begins with ivo://")
    kind, cites = _citation(root)
    where = root.first("WhereWhen")
    time = where.first("ISOTime") if where is not None else None
    trigger = None if time is None else mjd_tai_of(time.text, "ISOTime")
    if trigger is None and kind != RETRACTION:
        raise AlertError("the VOEvent has no ISOTime")
    who = root.first("Who")
    date = who.first("Date") if who is not None else None
    created = trigger if date is None else mjd_tai_of(date.text, "Date")
    if created is None:
        raise AlertError("the VOEvent has no Date")
    author = who.first("AuthorIVORN") if who is not None else None
    place = None
    if kind != RETRACTION:
        place = _map(root, maps) or _position(where, root)
    return Notice(
        notice_id=ivorn,
        event=cites or ivorn,
        kind=kind,
        is_test=role == "test",
        reporter=author.text if author is not None else ivorn.split("#")[0],
        created_mjd_tai=created,
        trigger_mjd_tai=trigger,
        place=place,
        cites=cites,
        digest=digest_of(body),
    )


def _citation(root: Element) -> tuple[str, str]:
    citations = root.first("Citations")
    for cited in citations.all("EventIVORN") if citations is not None else ():
        how = cited.attributes.get("cite", "")
        if how in ("supersedes", "retraction"):
            return (UPDATE if how == "supersedes" else RETRACTION), cited.text
        if how != "followup":
            raise AlertError(f"a citation is {how!r}; it is followup, supersedes or retraction")
    return INITIAL, ""


def _parameters(root: Element) -> dict[str, str]:
    what = root.first("What")
    found = {}
    for parameter in what.all("Param") if what is not None else ():
        value = parameter.first("Value")
        text = parameter.attributes.get("value", value.text if value is not None else "")
        found[parameter.attributes.get("name", "")] = text
    return found


def _map(root: Element, maps: Path | None) -> Place | None:
    values = _parameters(root)
    for name in _INLINE:
        if name in values:
            return map_of_base64(values[name])
    for name in _BY_PATH:
        if name in values:
            return map_of_path(values[name], maps)
    return None


def _position(where: Element | None, root: Element) -> Place:
    position = where.first("Position2D") if where is not None else None
    if where is None or position is None:
        raise AlertError("the VOEvent has no place: neither Position2D nor a map")
    system = where.first("AstroCoordSystem")
    name = system.attributes.get("id", "") if system is not None else ""
    scale, _, frame = name.partition("-")
    if scale != "UTC" or frame.partition("-")[0] not in _FRAMES:
        raise AlertError(f"the coordinates are {name!r}; they are UTC-ICRS-… or UTC-FK5-…")
    if position.attributes.get("unit", "deg").split("-")[0] not in ("deg", "degrees"):
        raise AlertError(f"the position is in {position.attributes['unit']}, not in deg")
    ra, dec = _number(position, "C1"), _number(position, "C2")
    radius = _number(position, "Error2Radius")
    stated = _parameters(root).get("containment_probability")
    containment = _CONTAINMENT if stated is None else _float(stated, "containment_probability")
    return Ellipse(ra, dec, radius, radius, 0.0, containment)


def _number(inside: Element, name: str) -> float:
    found = inside.first(name)
    if found is None:
        raise AlertError(f"the position has no {name}")
    return _float(found.text, name)


def _float(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise AlertError(f"{name} is {text!r}, no number") from error
    if not math.isfinite(value):
        raise AlertError(f"{name} is not finite")
    return value

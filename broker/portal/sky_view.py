"""The sky around an object: its own cutout with what is known there marked, in pixels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.api.cutouts import KINDS, orientation, plain_fits
from broker.api.rows import object_name
from broker.api.sources import Alert, Packet, Sources
from broker.catalog.cone import cone_search
from broker.errors import AlertError
from broker.imaging.cutout import decode_cutout

_MOST = 60
_WORLD = tuple(f"{name}{axis}" for name in ("CTYPE", "CRVAL", "CRPIX", "CDELT") for axis in (1, 2))
_WORLD += tuple(f"{name}{i}_{j}" for name in ("CD", "PC") for i in (1, 2) for j in (1, 2))
_LENGTHS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)

F64 = NDArray[np.float64]


def sky_view(sources: Sources, packet: Packet, alerts: Sequence[Alert]) -> dict[str, Any] | None:
    """Return what stands on the object's template, or on its next best cutout.

    Parameters
    ----------
    sources : Sources
        Whose catalogues and objects are marked.
    packet : Packet
        Of the alert that is shown.
    alerts : sequence of Alert
        All of the object.

    Returns
    -------
    dict or None
        `kinds` of pictures, the first one shown; `width`, `height` [pix]; `marks` with `x`, `y`
        (down), `layer`, `words`; `north` and `east` as unit vectors (up); `scale` and `length` of
        a bar [pix, arcsec]. What nothing tells is null, and then nothing is marked. None if there
        is no picture.
    """
    kinds = [kind for kind in ("template", "science", "difference") if _pixels(packet, kind)]
    if not kinds:
        return None
    height, width = _pixels(packet, kinds[0]) or (0, 0)
    view: dict[str, Any] = {
        "kinds": kinds,
        "width": width,
        "height": height,
        "marks": [],
        "scale": None,
        **orientation(packet.canonical[KINDS[kinds[0]]]),
        "length": None,
    }
    world = _world(packet.canonical[KINDS[kinds[0]]])
    if world is None:
        return view
    shown = alerts[-1]
    scale = world.proj_plane_pixel_scales()[0].to_value("arcsec")
    radius = 0.71 * max(width, height) * scale
    marks = _sources(alerts) + _catalogs(sources, shown, radius) + _near(sources, shown, radius)
    if marks:
        x, y = world.wcs_world2pix([m["ra"] for m in marks], [m["dec"] for m in marks], 0)
        for mark, px, py in zip(marks, x.tolist(), y.tolist(), strict=True):
            mark |= {"x": round(px + 0.5, 2), "y": round(height - py - 0.5, 2)}
    fits = [length for length in _LENGTHS if length / scale < 0.4 * width]
    length = fits[-1] if fits else 1.0
    inside = [m for m in marks if 0.0 <= m["x"] <= width and 0.0 <= m["y"] <= height]
    return {**view, "marks": inside, "scale": round(length / scale, 2), "length": length}


def _pixels(packet: Packet, kind: str) -> tuple[int, int] | None:
    data = packet.canonical[KINDS[kind]]
    if data is None:
        return None
    try:
        rows, columns = decode_cutout(data).shape
    except AlertError:
        return None
    return rows, columns


def _world(data: bytes) -> Any | None:
    """Return a cutout's map from sky to pixels; None if its header has none."""
    from astropy.io.fits import Header
    from astropy.wcs import WCS

    header = Header.fromstring(plain_fits(data)[:28800].decode("latin-1"))
    if not str(header.get("CTYPE1", "")).startswith("RA--"):
        return None
    try:
        # Cards that are not quite by the standard are read, and written anew as they should be.
        told = Header({name: header[name] for name in _WORLD if name in header})
        world = WCS(told, fix=False).celestial
        _ = world.wcs_pix2world([[0.0, 0.0]], 0)
    except (ValueError, TypeError):  # astropy's own errors of a bad header are ValueErrors
        return None
    return world


def _sources(alerts: Sequence[Alert]) -> list[dict[str, Any]]:
    return [
        {
            "ra": one["ra"],
            "dec": one["dec"],
            "layer": "alerts",
            "words": f"alert {one['diaSourceId']}",
        }
        for one in alerts[-_MOST:]
    ]


def _catalogs(sources: Sources, at: Alert, radius: float) -> list[dict[str, Any]]:
    marks = []
    for name in sources.catalogs.definitions:
        rows = sources.catalogs.rows(name)
        if rows is None or "ra" not in rows.entries.column_names:
            continue
        for entry in cone_search(rows, at["ra"], at["dec"], radius).slice(0, _MOST).to_pylist():
            words = f"{name} {entry['id']}, {entry['separation']:.2f}″ away"
            mark = {"ra": entry["ra"], "dec": entry["dec"], "layer": "catalogues", "words": words}
            marks.append(mark)
    return marks


def _near(sources: Sources, at: Alert, radius: float) -> list[dict[str, Any]]:
    own = object_name(at)
    marks = []
    for other in sources.cone(at["ra"], at["dec"], radius)[:_MOST]:
        name = object_name(other)
        if name != own:
            words = f"object {name}, {other['separation']:.2f}″ away"
            place = {"survey": other["survey"], "name": name}
            mark = {"ra": other["ra"], "dec": other["dec"], "layer": "objects", "words": words}
            marks.append({**mark, "place": place})
    return marks

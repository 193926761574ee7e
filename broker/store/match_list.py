"""The objects of the alert tables at a list of positions, as columns like a catalogue's."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from broker.catalog.healpix import on_sky
from broker.store.alerts import AlertStore

SCHEMA = pa.schema(
    [
        ("alertsMatch", pa.int32()),
        ("alertsObjects", pa.int32()),
        ("alertsSurvey", pa.string()),
        ("alertsDiaObjectId", pa.string()),
        ("alertsSsObjectId", pa.string()),
        ("alertsSeparation", pa.float64()),
        ("alertsDiaSourceId", pa.string()),
        ("alertsMidpointMjdTai", pa.float64()),
        ("alertsBand", pa.string()),
        ("alertsPsfFlux", pa.float64()),
        ("alertsSnr", pa.float64()),
    ]
)
"""1 found, 0 none there, -1 no place on the sky; how many objects are there; of the nearest one
its name, its distance and its newest alert."""

UNITS = {"alertsSeparation": "arcsec", "alertsMidpointMjdTai": "d", "alertsPsfFlux": "nJy"}

_TAKEN = tuple(name[6].lower() + name[7:] for name in SCHEMA.names[2:])


def match_alerts(
    store: AlertStore, ra: ArrayLike, dec: ArrayLike, *, radius_arcsec: float
) -> pa.Table:
    """Return the nearest object of the alert tables at each position.

    Parameters
    ----------
    store : AlertStore
    ra, dec : array_like, shape (n,)
        Positions, ICRS. [deg]
    radius_arcsec : float
        Objects as far as this from a position are found. [arcsec]

    Returns
    -------
    pa.Table, n rows
        With the columns of `SCHEMA`, in the order of the positions.
    """
    ra, dec = np.asarray(ra, dtype=np.float64), np.asarray(dec, dtype=np.float64)
    rows = [
        _row(store.cone(float(a), float(d), radius_arcsec)) if is_place else {"alertsMatch": -1}
        for a, d, is_place in zip(ra, dec, on_sky(ra, dec), strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _row(found: list[dict[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {"alertsMatch": int(bool(found)), "alertsObjects": len(found)}
    if found:
        row |= {f"alerts{name[0].upper()}{name[1:]}": found[0][name] for name in _TAKEN}
    return row

"""Synthetic canonical alerts for checks and notebooks, and modules run on them without Spark."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from broker.alerts.columns import (
    CANONICAL,
    DETECTION,
    FORCED,
    FOUND,
    NOT_FOUND,
    NOT_SEARCHED,
    SCALARS,
    UPPER_LIMIT,
    Column,
)
from broker.errors import ConfigError
from broker.science.contract import ScienceModule, TopicFilter
from broker.science.execute import OK, Models, run_batch, tasks_of
from broker.science.light_curves import LightCurves
from broker.science.registry import Catalogs, find_contributions

_TONIGHT = 61_000.0
_SIZES = (63, 63, 63, 31)
_BANDS = ("g", "r", "i", "z")
_CLASSES = ("star", "galaxy", "variable")

Row = dict[str, Any]


def sample_alerts(
    n: int = 100,
    seed: int = 1,
    *,
    catalogs: Catalogs | None = None,
    cutouts: bool = True,
    n_epochs: int = 30,
) -> pa.Table:
    """Return synthetic alerts with everything that modules must be ready for.

    Rising, falling, steady and moving sources in several bands, histories from nothing to
    `n_epochs` entries with upper limits and forced fluxes, unknown bands, nulls in every column
    that may have them, cutouts of two sizes, absent and damaged ones, matches of all three
    readings. They are no model of the sky.

    Parameters
    ----------
    n : int
        Number of alerts.
    seed : int
        An alert depends on the seed and its own number only.
    catalogs : mapping, optional
        Match columns by catalogue; default all that are defined.
    cutouts : bool
        Whether there are cutouts; they take most of the time.
    n_epochs : int
        Length of the longest history.

    Returns
    -------
    pa.Table, n rows
        Canonical columns, then match columns.
    """
    if catalogs is None:
        from broker.catalog.registry import provided_matches

        catalogs = provided_matches()
    rows = [_alert(np.random.default_rng([seed, i]), i, n_epochs, cutouts) for i in range(n)]
    table = pa.Table.from_pylist(rows, schema=CANONICAL)
    for name, columns in catalogs.items():
        matches = [_match(np.random.default_rng([seed, i, 1]), name, columns) for i in range(n)]
        for column in columns:
            values = pa.array([match[column.name] for match in matches], column.arrow_type)
            table = table.append_column(
                pa.field(column.name, column.arrow_type, column.nullable), values
            )
    return table


def light_curves(
    mjd: NDArray[np.float64],
    flux: ArrayLike,
    err: ArrayLike,
    band: ArrayLike,
    kind: NDArray[np.integer[Any]] | None = None,
) -> LightCurves:
    """Return light curves of arrays, as a module's test injects them.

    Parameters
    ----------
    mjd : NDArray[np.float64], shape (n_alerts, n_epochs)
        Ascending times. [d]
    flux, err, band : array_like
        Fluxes and their errors [nJy], codes of bands; of that shape, or broadcast to it.
    kind : NDArray, shape (n_alerts, n_epochs), optional
        Kinds of entries; default all are detections.
    """
    n, k = mjd.shape
    flat = [np.broadcast_to(x, mjd.shape).ravel() for x in (flux, err, band)]
    return LightCurves(
        np.repeat(np.arange(n), k),
        mjd.ravel(),
        flat[0].astype("f4"),
        flat[1].astype("f4"),
        n,
        flat[2].astype("i1"),
        None if kind is None else kind.ravel().astype("i1"),
    )


def ascending_times(rng: np.random.Generator, n: int, k: int, span: float) -> NDArray[np.float64]:
    """Return k ascending times of n alerts within `span` days, the last of each MJD 61000. [d]"""
    mjd = 61000.0 - np.sort(rng.uniform(0.0, span, (n, k)))[:, ::-1]
    mjd[:, -1] = 61000.0
    return mjd


def _alert(rng: np.random.Generator, index: int, n_epochs: int, cutouts: bool) -> Row:
    history = _history(rng, int(rng.integers(1, n_epochs + 1)))
    own = history[-1]
    row: Row = {column.name: _value(rng, column) for column in SCALARS}
    is_moving = rng.random() < 0.1
    flux, error = own["psfFlux"], own["psfFluxErr"]
    row |= {
        "survey": ("sim", "ztf", "lsst")[index % 3],
        "diaSourceId": str(10**17 + index),
        "diaObjectId": None if is_moving else f"object{index // 3}",
        "ssObjectId": f"asteroid{index}" if is_moving else None,
        "ssSeparation": float(rng.uniform(0.0, 2.0)) if is_moving else None,
        "isPublic": bool(rng.random() < 0.9),
        "midpointMjdTai": own["midpointMjdTai"],
        "band": own["band"],
        "ra": float(rng.uniform(0.0, 360.0)),
        "dec": float(np.degrees(np.arcsin(rng.uniform(-1.0, 1.0)))),
        "psfFlux": flux,
        "psfFluxErr": error,
        "snr": flux / error,
        "isNegative": flux < 0.0,
        "firstMjdTai": history[0]["midpointMjdTai"],
        "ageDays": own["midpointMjdTai"] - history[0]["midpointMjdTai"],
        "nDiaSources": sum(entry["kind"] == DETECTION for entry in history),
        "history": history,
        "origin": {"topic": "alerts.sample", "partition": 0, "offset": index, "schemaId": 0},
    }
    for name in ("cutoutScience", "cutoutTemplate", "cutoutDifference"):
        row[name] = _cutout(rng, flux / error) if cutouts else None
    return row


def _value(rng: np.random.Generator, column: Column) -> Any:
    if column.nullable and rng.random() < 0.1:
        return None
    if column.dtype == "bool":
        return bool(rng.random() < 0.1)
    if column.dtype == "string":
        return "x"
    if column.dtype.startswith("int"):
        return int(rng.integers(0, 1000))
    if column.name == "reliability":
        return float(rng.random())
    return float(rng.lognormal(1.0, 0.5))


def _history(rng: np.random.Generator, n: int) -> list[Row]:
    """Return `n` epochs, the last of them the alert's own: a detection."""
    mjd = np.sort(_TONIGHT - rng.uniform(0.0, 30.0, n))
    slope = rng.choice([-50.0, 0.0, 100.0])
    error = rng.uniform(20.0, 60.0, n)
    flux = 2000.0 + slope * (mjd - mjd[-1]) + rng.normal(0.0, error)
    kind = rng.choice([DETECTION, UPPER_LIMIT, FORCED], n, p=[0.7, 0.2, 0.1])
    kind[-1] = DETECTION
    bands = [None if rng.random() < 0.03 else str(rng.choice(_BANDS)) for _ in range(n)]
    sign = -1.0 if rng.random() < 0.1 else 1.0
    return [
        {
            "midpointMjdTai": float(mjd[k]),
            "band": bands[k],
            "psfFlux": None if kind[k] == UPPER_LIMIT else float(np.float32(sign * flux[k])),
            "psfFluxErr": float(np.float32(error[k])),
            "isPublic": bool(rng.random() < 0.95) or k == n - 1,
            "kind": int(kind[k]),
        }
        for k in range(n)
    ]


def _cutout(rng: np.random.Generator, snr: float) -> bytes | None:
    from broker.imaging.cutout import encode_cutout

    chance = rng.random()
    if chance < 0.05:
        return None
    if chance < 0.07:
        return b"damaged"
    size = int(rng.choice(_SIZES))
    y, x = np.mgrid[:size, :size] - (size - 1) / 2.0
    source = np.exp(-0.5 * (x**2 + y**2) / 1.5**2)
    pixels = (source * 4.0 * np.abs(snr) / 3.0 + rng.normal(0.0, 10.0, (size, size))).astype("f4")
    if chance < 0.15:
        pixels[:, : size // 5] = np.nan  # at the border of the detector
    return encode_cutout(pixels, lossless=size == 63)


def _match(rng: np.random.Generator, catalog: str, columns: tuple[Column, ...]) -> Row:
    reading = int(rng.choice([FOUND, NOT_FOUND, NOT_SEARCHED], p=[0.5, 0.4, 0.1]))
    row: Row = {}
    for column in columns:
        if column.name == f"{catalog}Match":
            row[column.name] = reading
        elif reading != FOUND:
            row[column.name] = None
        elif column.name == f"{catalog}Class":
            row[column.name] = str(rng.choice(_CLASSES))
        else:
            row[column.name] = _value(rng, column)
    return row


def run_module(
    name: str, alerts: pa.Table, *, path: str = "", catalogs: Catalogs | None = None
) -> pd.DataFrame:
    """Run one science module, or a topic's filter, and the modules it reads from.

    Parameters
    ----------
    name : str
        A science module's name, or a topic.
    alerts : pa.Table
        Canonical alerts with match columns.
    path : str
        The modules folder; empty for the installed package.
    catalogs : mapping, optional
        Match columns by catalogue; default all that are defined.

    Returns
    -------
    pd.DataFrame
        One row an alert: the module's outputs by wire name, or `passes`.

    Raises
    ------
    ConfigError
        If there is none of that name, or it or one it needs fails; the message says why.
    """
    from broker.science.runner import Runner

    found = find_contributions(path, catalogs=catalogs)
    chosen: ScienceModule | TopicFilter
    chosen = next((f for f in found.filters if f.topic == name), None) or found.module(name)
    wanted = {name} | {module.name for module in found.needed_by(chosen)}
    others = {task.name for task in tasks_of(found)} - wanted
    few = found.without(frozenset(others))
    with Runner(few, isolate=False) as runner:
        needed = runner.needed_columns(alerts)
    result = run_batch(few, needed, Models(), skip={})
    failed = [f"{n}: {reason}" for n, (status, reason) in result.verdicts.items() if status != OK]
    if failed:
        raise ConfigError("; ".join(failed), name=name)
    if isinstance(chosen, TopicFilter):
        return pd.DataFrame({"passes": result.passes[name]})
    columns: Mapping[str, pa.Array] = {
        column.name: result.columns[qualified] for qualified, column in chosen.qualified.items()
    }
    return pa.table(columns).to_pandas()

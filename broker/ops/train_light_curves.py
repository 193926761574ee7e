"""Alerts of simulated transients with their classes: what light-curve models are trained on.

Light curves only, no images: each object is seen by a survey with a cadence, a depth and a length
of history of its own, and alerts at one of its detections.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from broker.alerts.columns import CANONICAL, DETECTION, FORCED, UPPER_LIMIT
from broker.simulation.contract import Surroundings, TransientClass
from broker.simulation.transients import find_classes
from broker.units import BANDS

_FIRST_MJD = 61000.0
_GROUP = 8
"""So many objects share one schedule of visits."""
_DAYS_BEFORE, _DAYS_AFTER = 60, 25
_HALF_NIGHT_DAYS = 0.2
_SIGMAS = 5.0
_MIN_DETECTIONS = 4
_MIN_ALERTS = 40
_PEAK_SNR = (8.0, 150.0)
_ERROR_NJY = 200.0


@dataclass(frozen=True)
class LabelledAlerts:
    """Alerts of objects whose class is known.

    Parameters
    ----------
    alerts : pa.Table, n rows
        Canonical alerts without cutouts.
    label : NDArray[np.int64], shape (n,)
        Index into `classes`.
    classes : tuple of str
        Names of the kinds of transients.
    """

    alerts: pa.Table
    label: NDArray[np.int64]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class _Seen:
    """The visits of one group: times, bands, fluxes and errors, shape (n_objects, n_visits)."""

    mjd: NDArray[np.float64]
    band: NDArray[np.int64]
    flux: NDArray[np.float64]
    error: NDArray[np.float64]


def simulate_labelled_alerts(rng: np.random.Generator, per_class: int) -> LabelledAlerts:
    """Draw alerts of every kind of transient of the simulation, equally many of each.

    Parameters
    ----------
    rng : np.random.Generator
        Everything is drawn from it.
    per_class : int
        Objects drawn of each kind; those with fewer than four detections are left out, so that
        fewer come back, but more are drawn until there are forty.
    """
    kinds = find_classes()
    rows: list[dict[str, object]] = []
    labels: list[int] = []
    for label, kind in enumerate(kinds):
        drawn = 0
        while drawn < per_class or labels.count(label) < _MIN_ALERTS:
            seen = _observe(rng, kind, max(min(_GROUP, per_class - drawn), 1))
            drawn += len(seen.flux)
            for index in range(len(seen.flux)):
                row = _alert(rng, seen, index, len(rows))
                if row is not None:
                    rows.append(row)
                    labels.append(label)
    table = pa.Table.from_pylist(rows, schema=CANONICAL)
    return LabelledAlerts(table, np.array(labels, np.int64), tuple(kind.name for kind in kinds))


def _observe(rng: np.random.Generator, kind: TransientClass, n: int) -> _Seen:
    """Draw n objects of a kind and one schedule, and measure them at its visits."""
    mjd, band = _schedule(rng)
    low, high = np.log(_PEAK_SNR)
    amplitude = _ERROR_NJY * np.exp(rng.uniform(low, high, n))
    redshift = rng.uniform(0.02, 0.2, n)
    params = kind.draw(rng, Surroundings(amplitude, redshift, _FIRST_MJD))
    template = {code: kind.template_flux(BANDS[code], params) for code in np.unique(band)}
    true = np.stack(
        [
            kind.flux(float(time), BANDS[code], params) - template[code]
            for time, code in zip(mjd, band, strict=True)
        ],
        axis=1,
    )
    error = _ERROR_NJY * np.exp(rng.normal(0.0, 0.25, mjd.size)) * np.ones((n, 1))
    return _Seen(mjd, band, true + rng.normal(0.0, error), error)


def _schedule(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return times and bands of visits: one to four in a night, each one to three nights."""
    nights = np.arange(-_DAYS_BEFORE, _DAYS_AFTER + 1, rng.integers(1, 4))
    nights = nights[rng.random(nights.size) < rng.uniform(0.6, 1.0)]  # clouds
    visits = np.repeat(nights, rng.integers(1, 5))
    mjd = _FIRST_MJD + visits + rng.uniform(-_HALF_NIGHT_DAYS, _HALF_NIGHT_DAYS, visits.size)
    choices = [BANDS.index(band) for band in ("gr", "gri", "griz")[rng.integers(0, 3)]]
    return np.sort(mjd), rng.choice(choices, visits.size)


def _alert(
    rng: np.random.Generator, seen: _Seen, index: int, number: int
) -> dict[str, object] | None:
    """Return one object's alert at one of its detections, or None if there are too few."""
    flux, error = seen.flux[index], seen.error[index]
    is_found = np.abs(flux) >= _SIGMAS * error
    found = np.flatnonzero(is_found)
    if found.size < _MIN_DETECTIONS:
        return None
    now = int(rng.choice(found[_MIN_DETECTIONS - 1 :]))
    days = float(rng.choice([30.0, 90.0]))
    shown = np.flatnonzero(seen.mjd[: now + 1] >= seen.mjd[now] - days)
    kind = np.where(is_found, DETECTION, FORCED if rng.random() < 0.5 else UPPER_LIMIT)
    first = float(seen.mjd[found[0]])
    return {
        "survey": "sim",
        "diaSourceId": str(number),
        "isPublic": True,
        "midpointMjdTai": float(seen.mjd[now]),
        "band": BANDS[seen.band[now]],
        "ra": 0.0,
        "dec": 0.0,
        "psfFlux": float(flux[now]),
        "psfFluxErr": float(error[now]),
        "snr": float(flux[now] / error[now]),
        "isNegative": bool(flux[now] < 0.0),
        "isDipole": False,
        "flags": 0,
        "firstMjdTai": first,
        "nDiaSources": int(np.searchsorted(found, now, side="right")),
        "ageDays": float(seen.mjd[now]) - first,
        "history": [
            {
                "midpointMjdTai": float(seen.mjd[k]),
                "band": BANDS[seen.band[k]],
                "psfFlux": None if kind[k] == UPPER_LIMIT else float(flux[k]),
                "psfFluxErr": float(error[k]),
                "isPublic": True,
                "kind": int(kind[k]),
            }
            for k in shown
        ],
        "origin": {"topic": "", "partition": 0, "offset": number, "schemaId": 0},
    }

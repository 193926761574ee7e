"""Periods that a light curve may have: a Lomb-Scargle periodogram of its fluxes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Response
from numpy.typing import NDArray

from broker.api.app import PREFIX
from broker.api.errors import ApiError
from broker.api.formats import json_response
from broker.api.objects import history_rows
from broker.api.own_objects import whole_object
from broker.api.questions import ObjectName, SourcesOf, SurveyName
from broker.portal.brightness import flux_rows

router = APIRouter(prefix=PREFIX, tags=["objects and alerts"])

_LEAST_EPOCHS = 8
_SHORTEST_D = 0.05
_MOST_FREQUENCIES = 200_000
_PER_PEAK = 5.0
_BINS = 800
_PEAKS = 5

F64 = NDArray[np.float64]


@router.get("/objects/{survey}/{objectId}/periodogram")
def read_periodogram(
    sources: SourcesOf,
    survey: SurveyName,
    objectId: ObjectName,  # noqa: N803  # parameters have wire names
) -> Response:
    """Return the Lomb-Scargle periodogram of an object: its curve, and the highest peaks.

    `frequency` [1/d] and `power` of all bands together; `peaks` with `period` [d], `power` and
    `falseAlarm`, the chance that noise without a memory is as high. 422 if there are fewer than
    eight epochs.
    """
    rows = history_rows(sources, whole_object(sources, survey, objectId).alerts)
    return json_response(periodogram(rows))


def periodogram(epochs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the Lomb-Scargle power of an object's fluxes in all bands together.

    Each band's weighted mean is taken away and its fluxes are divided by their weighted scatter,
    so that bands of unlike brightness say the same; the mean is fitted again with each sine
    (Zechmeister & Kuerster 2009, A&A 496, 577). False alarm probability: Baluev 2008, MNRAS 385,
    1279; it holds for noise without a memory, not for a supernova.

    Parameters
    ----------
    epochs : sequence of mapping
        Rows of a history: `midpointMjdTai`, `band`, `psfFlux`, `psfFluxErr`.

    Returns
    -------
    dict
        `epochs` that were used, `frequency` [1/d] and `power` of the curve (the highest power of
        each bin), `peaks`: `period` [d], `power`, `falseAlarm`.

    Raises
    ------
    ApiError
        If there are fewer than eight epochs with flux and error, or no time between them.
    """
    from astropy.timeseries import LombScargle  # slow to load

    times, values, errors = _normalised(epochs)
    span = float(np.ptp(times)) if times.size else 0.0
    if times.size < _LEAST_EPOCHS or span <= 2.0 * _SHORTEST_D:
        raise ApiError(
            422, f"a period needs {_LEAST_EPOCHS} epochs with a flux at unlike times", ()
        )
    step = 1.0 / (_PER_PEAK * span)
    count = int(min(1.0 / (_SHORTEST_D * step), _MOST_FREQUENCIES))
    frequency = step * np.arange(1, count + 1, dtype=np.float64)
    model = LombScargle(times - times.min(), values, errors)
    power = model.power(frequency, method="fast", assume_regular_frequency=True)
    power = np.nan_to_num(np.asarray(power, np.float64))
    peaks = []
    for at in _highest(power, apart=int(2 * _PER_PEAK)):
        best = _refined(model, frequency[at], step)
        height = float(model.power(best, method="slow"))
        alarm = model.false_alarm_probability(
            height, method="baluev", maximum_frequency=float(frequency[-1])
        )
        peaks.append({"period": 1.0 / best, "power": height, "falseAlarm": float(alarm)})
    peaks.sort(key=lambda peak: -peak["power"])
    curve = _binned(frequency, power)
    return {"epochs": int(times.size), "frequency": curve[0], "power": curve[1], "peaks": peaks}


def _normalised(epochs: Sequence[Mapping[str, Any]]) -> tuple[F64, F64, F64]:
    times, values, errors = [], [], []
    for _, (mjd, flux, err) in flux_rows(epochs):
        if mjd.size < 3:
            continue  # its own mean would be most of it
        mean = float(np.average(flux, weights=err**-2.0))
        scatter = float(np.sqrt(np.average((flux - mean) ** 2, weights=err**-2.0)))
        if not scatter > 0.0:
            continue
        times.append(mjd)
        values.append((flux - mean) / scatter)
        errors.append(err / scatter)
    if not times:
        return np.empty(0), np.empty(0), np.empty(0)
    return np.concatenate(times), np.concatenate(values), np.concatenate(errors)


def _highest(power: F64, *, apart: int) -> list[int]:
    """Return the places of the highest peaks that do not stand beside a higher one."""
    left, found = power.copy(), []
    for _ in range(_PEAKS):
        at = int(np.argmax(left))
        if not left[at] > 0.0:
            break
        found.append(at)
        left[max(0, at - apart) : at + apart + 1] = 0.0
    return found


def _refined(model: Any, frequency: float, step: float) -> float:
    """Return the frequency of a peak, to a hundredth of the grid's step."""
    near = frequency + step * np.linspace(-1.0, 1.0, 201)
    near = near[near > 0.0]
    return float(near[int(np.argmax(model.power(near, method="slow")))])


def _binned(frequency: F64, power: F64) -> tuple[list[float], list[float]]:
    """Return the curve in so few bins that a picture can show them: the highest of each."""
    edges = np.unique(np.linspace(0, frequency.size, _BINS + 1).astype(np.int64))
    starts = edges[:-1]
    tops = np.maximum.reduceat(power, starts)
    return frequency[starts].round(6).tolist(), tops.round(5).tolist()

"""Histories: the epochs of many alerts, sorted, one entry an epoch, without a loop over alerts.

An epoch is one band at one time to 0.1 s. Surveys send an epoch more than once: in several lists,
and with other last digits of its time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from broker.alerts.arrays import BoolArray, FloatArray, band_names
from broker.alerts.columns import DETECTION, FORCED, HISTORY, UPPER_LIMIT
from broker.units import SECONDS_PER_DAY

EPOCH_S = 0.1
"""Entries of one band that are closer in time are one epoch. [s]"""

EARLIEST_MJD, LATEST_MJD = 15_020.0, 88_068.0
"""1900 and 2100: an MJD outside is none. [d]"""

MAX_ALERTS = 1 << 14
"""Alerts that fit into one call: their number shares 64 bits with band and time."""

_TICK_S = 1e-3
_TIME_BITS = 43  # 200 years in milliseconds
_BAND_BITS = 3
_EPOCH_TICKS = round(EPOCH_S / _TICK_S)

_OWN = 0
_RANK = {DETECTION: 1, FORCED: 2, UPPER_LIMIT: 3}
"""Which entry of an epoch is kept: the alert's own, a detection, a forced flux, a limit."""


@dataclass(frozen=True, eq=False)
class Epochs:
    """Entries of the histories of a batch, in any order.

    Parameters
    ----------
    alert : NDArray[np.int64], shape (n_entries,)
        Index of the alert in its batch.
    mjd : NDArray[np.float64], shape (n_entries,)
        Middle of the exposure, MJD, TAI. [d]
    band : NDArray[np.int8], shape (n_entries,)
        Index into `broker.units.BANDS`, -1 if unknown.
    flux, flux_err : NDArray[np.float64], shape (n_entries,)
        PSF flux on the difference image, NaN for an upper limit, and its error. [nJy]
    is_public : NDArray[np.bool_], shape (n_entries,)
    kind : NDArray[np.int8], shape (n_entries,)
        Index into `broker.alerts.columns.KINDS`.
    own : NDArray[np.bool_], shape (n_entries,)
        Whether it is the alert itself.
    """

    alert: NDArray[np.int64]
    mjd: FloatArray
    band: NDArray[np.int8]
    flux: FloatArray
    flux_err: FloatArray
    is_public: BoolArray
    kind: NDArray[np.int8]
    own: BoolArray

    def take(self, chosen: NDArray[Any]) -> "Epochs":
        """Return some entries, by index or by mask."""
        return Epochs(*(values[chosen] for values in vars(self).values()))


def entries(
    alert: NDArray[Any],
    mjd: FloatArray,
    *,
    band: NDArray[np.int8],
    flux: FloatArray,
    flux_err: FloatArray,
    is_public: BoolArray | bool,
    kind: NDArray[Any] | int,
    own: bool = False,
) -> Epochs:
    """Return entries; what holds for all of them may be given once."""
    n = len(alert)
    return Epochs(
        np.asarray(alert, np.int64),
        mjd,
        band,
        flux,
        flux_err,
        np.broadcast_to(np.asarray(is_public, np.bool_), n),
        np.broadcast_to(np.asarray(kind, np.int8), n),
        np.broadcast_to(np.asarray(own, np.bool_), n),
    )


def flat_list(lists: pa.ListArray) -> tuple[NDArray[np.int64], pa.StructArray]:
    """Return the elements of a column of lists, and which row each one belongs to."""
    return pc.list_parent_indices(lists).to_numpy(zero_copy_only=False), pc.list_flatten(lists)


@dataclass(frozen=True, eq=False)
class Histories:
    """The column `history` of a batch, and what follows from it.

    Parameters
    ----------
    column : pa.ListArray, shape (n_alerts,)
        Of type `HISTORY`.
    first_mjd : NDArray[np.float64], shape (n_alerts,)
        Time of the first detection, NaN if there is none; of a public alert, of the public ones.
        [d]
    n_detections : NDArray[np.int64], shape (n_alerts,)
        Likewise.
    """

    column: pa.ListArray
    first_mjd: FloatArray
    n_detections: NDArray[np.int64]


def build_histories(parts: Sequence[Epochs], n_alerts: int) -> Histories:
    """Merge lists of entries into one history an alert.

    Entries without a time, or with neither a flux nor an error, are left out, and so are those
    later than the alert itself: a history is as of the alert, and the alert's own entry is its
    last. An epoch that comes more than once is kept once: the alert's own entry before a
    detection before a forced flux before an upper limit.

    Parameters
    ----------
    parts : sequence of Epochs
        The alerts themselves among them.
    n_alerts : int
        At most `MAX_ALERTS`.
    """
    if n_alerts > MAX_ALERTS:
        raise ValueError(f"{n_alerts} alerts in one batch; at most {MAX_ALERTS} fit")
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    epochs = Epochs(*(np.concatenate(column) for column in columns))
    epochs = _one_an_epoch(_usable(epochs, n_alerts))
    return _histories(_in_order_of_time(epochs), n_alerts)


def _usable(epochs: Epochs, n_alerts: int) -> Epochs:
    until, band = np.full(n_alerts, np.inf), np.full(n_alerts, -1, np.int8)
    own = np.flatnonzero(epochs.own)
    until[epochs.alert[own]] = epochs.mjd[own]
    band[epochs.alert[own]] = epochs.band[own]
    good = (epochs.mjd >= EARLIEST_MJD) & (epochs.mjd <= LATEST_MJD) & (epochs.flux_err > 0.0)
    good &= np.isfinite(epochs.flux_err)
    good &= np.isfinite(epochs.flux) | (epochs.kind == UPPER_LIMIT)
    late = epochs.mjd - until[epochs.alert]
    same = (late <= EPOCH_S / SECONDS_PER_DAY) & (epochs.band == band[epochs.alert])
    good &= (late <= 0.0) | same
    return epochs if good.all() else epochs.take(np.flatnonzero(good))


def _ticks(mjd: FloatArray) -> NDArray[np.int64]:
    return np.rint((mjd - EARLIEST_MJD) * (SECONDS_PER_DAY / _TICK_S)).astype(np.int64)


def _one_an_epoch(epochs: Epochs) -> Epochs:
    """Keep the best entry of each epoch; a stable sort, so that ties keep their order."""
    if not len(epochs.mjd):
        return epochs
    series = (epochs.alert << _BAND_BITS) | (epochs.band.astype(np.int64) + 1)
    key = (series << _TIME_BITS) | _ticks(epochs.mjd)
    order = np.argsort(key, kind="stable")
    step = np.diff(key[order])  # a change of alert or band is a step of 2^43
    starts = np.concatenate(([True], step > _EPOCH_TICKS))
    if starts.all():
        return epochs.take(order)
    rank = np.array([_RANK[kind] for kind in range(len(_RANK))], np.int8)[epochs.kind]
    rank = np.where(epochs.own, _OWN, rank)[order]
    first = np.flatnonzero(starts)
    epoch = np.cumsum(starts) - 1
    best = np.flatnonzero(rank == np.minimum.reduceat(rank, first)[epoch])
    _, kept = np.unique(epoch[best], return_index=True)
    return epochs.take(order[best[kept]])


def _in_order_of_time(epochs: Epochs) -> Epochs:
    ticks = _ticks(epochs.mjd)
    # The own entry stays last where another band's entry has its time to the last digit.
    key = (((epochs.alert << _TIME_BITS) | ticks) << 1) | epochs.own
    return epochs.take(np.argsort(key, kind="stable"))


def _histories(epochs: Epochs, n_alerts: int) -> Histories:
    offsets = np.searchsorted(epochs.alert, np.arange(n_alerts + 1)).astype(np.int32)
    with np.errstate(over="ignore"):
        flux, flux_err = (x.astype(np.float32) for x in (epochs.flux, epochs.flux_err))
    fields = [
        pa.array(epochs.mjd),
        band_names(epochs.band),
        pa.array(flux, from_pandas=True),
        pa.array(flux_err),
        pa.array(epochs.is_public),
        pa.array(epochs.kind),
    ]
    values = pa.StructArray.from_arrays(fields, fields=list(HISTORY.value_type))
    # What is said of a public alert's past tells of nothing that is not public.
    is_public = np.zeros(n_alerts, np.bool_)
    is_public[epochs.alert[epochs.own]] = epochs.is_public[epochs.own]
    told = epochs.is_public | ~is_public[epochs.alert]
    detections = np.flatnonzero((epochs.kind == DETECTION) & told)
    alerts, first = np.unique(epochs.alert[detections], return_index=True)
    first_mjd = np.full(n_alerts, np.nan)
    first_mjd[alerts] = epochs.mjd[detections[first]]
    return Histories(
        pa.ListArray.from_arrays(pa.array(offsets), values, type=HISTORY),
        first_mjd,
        np.bincount(epochs.alert[detections], minlength=n_alerts),
    )

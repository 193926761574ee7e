"""Many light curves in flat arrays: sums over each alert's history without a loop over alerts."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from broker.alerts.columns import DETECTION, FORCED, UPPER_LIMIT
from broker.errors import ConfigError
from broker.units import BANDS

FloatArray = NDArray[np.floating[Any]]

_ENTRY = np.dtype(
    [("mjd", "f8"), ("band", "U1"), ("flux", "f4"), ("flux_err", "f4"), ("kind", "i1")]
)


@dataclass(frozen=True, eq=False)
class LightCurves:
    """The histories of a batch of alerts, one after the other.

    Every array has one element per entry; a result has one per alert. All sums add an alert's
    own entries in their order, so that no result depends on the alerts beside it.

    Parameters
    ----------
    alert : NDArray[np.int64], shape (n_entries,)
        Index of the alert in its batch; ascending.
    mjd : NDArray[np.float64], shape (n_entries,)
        Middle of the exposure, MJD, TAI. [d]
    flux, flux_err : NDArray, shape (n_entries,)
        PSF flux on the difference image and its 1-sigma error; an upper limit has flux NaN and
        the error that the limit stands for. [nJy]
    n_alerts : int
        Number of alerts; some may have no entry.
    band : NDArray[np.int8], shape (n_entries,), optional
        Index into `broker.units.BANDS`, -1 if unknown. Default: unknown.
    kind : NDArray[np.int8], shape (n_entries,), optional
        Index into `broker.alerts.columns.KINDS`. Default: detections.
    """

    alert: NDArray[np.integer[Any]]
    mjd: FloatArray
    flux: FloatArray
    flux_err: FloatArray
    n_alerts: int
    band: NDArray[np.integer[Any]] | None = None
    kind: NDArray[np.integer[Any]] | None = None

    @classmethod
    def from_arrow(cls, history: pa.ListArray | pa.ChunkedArray) -> "LightCurves":
        """Return the light curves of a canonical column `history`.

        Columns without nulls are not copied; fluxes of upper limits become NaN.
        """
        if isinstance(history, pa.ChunkedArray):
            history = history.combine_chunks()
        entries = history.flatten()
        band = pc.fill_null(pc.index_in(entries.field("band"), value_set=pa.array(BANDS)), -1)
        lengths = pc.fill_null(pc.list_value_length(history), 0).to_numpy(zero_copy_only=False)
        arrays = [
            np.repeat(np.arange(len(history)), lengths),
            *(
                entries.field(name).to_numpy(zero_copy_only=False)
                for name in ("midpointMjdTai", "psfFlux", "psfFluxErr")
            ),
            band.to_numpy(zero_copy_only=False).astype(np.int8),
            entries.field("kind").to_numpy(zero_copy_only=False),
        ]
        for array in arrays:
            array.flags.writeable = False  # others read them too
        alert, mjd, flux, flux_err, code, kind = arrays
        return cls(alert, mjd, flux, flux_err, len(history), code, kind)

    def __getstate__(self) -> dict[str, Any]:
        # What was worked out on the way is no part of it.
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def __len__(self) -> int:
        return int(self.alert.size)

    @cached_property
    def count(self) -> NDArray[np.int64]:
        """Number of entries of each alert, shape (n_alerts,)."""
        return np.bincount(self.alert, minlength=self.n_alerts)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where each alert's entries begin, shape (n_alerts + 1,); the last is the end."""
        return np.concatenate([[0], np.cumsum(self.count)])

    def select(self, chosen: ArrayLike) -> "LightCurves":
        """Return the entries where a mask of shape (n_entries,) is true."""
        mask = np.asarray(chosen, dtype=bool)
        if mask.all():
            return self
        return self._take(mask)

    def _take(self, which: NDArray[Any]) -> "LightCurves":
        return LightCurves(
            self.alert[which],
            self.mjd[which],
            self.flux[which],
            self.flux_err[which],
            self.n_alerts,
            None if self.band is None else self.band[which],
            None if self.kind is None else self.kind[which],
        )

    def detections(self) -> "LightCurves":
        """Return the detections that have a flux and an error above zero."""
        measured = np.isfinite(self.flux) & (self.flux_err > 0.0)
        return self.select(measured & self._is_kind(DETECTION))

    def forced(self) -> "LightCurves":
        """Return the forced fluxes that have an error above zero."""
        measured = np.isfinite(self.flux) & (self.flux_err > 0.0)
        return self.select(measured & self._is_kind(FORCED))

    def upper_limits(self) -> "LightCurves":
        """Return the upper limits: flux is NaN, `flux_err` the error they stand for."""
        return self.select(self._is_kind(UPPER_LIMIT))

    def measured(self) -> "LightCurves":
        """Return detections and forced fluxes that have a flux and an error above zero."""
        is_measured = np.isfinite(self.flux) & (self.flux_err > 0.0)
        return self.select(is_measured & ~self._is_kind(UPPER_LIMIT))

    def by_band(self) -> "LightCurves":
        """Return each band of each alert as a light curve of its own.

        Light curve `alert * 6 + band` holds the entries of that band, so that a result of shape
        (n_alerts * 6,) can be reshaped to (n_alerts, 6), bands as in `broker.units.BANDS`.
        Entries of an unknown band are left out.
        """
        known = self.select(self.band_code >= 0)
        series = known.alert * len(BANDS) + known.band_code
        order = np.argsort(series, kind="stable")
        taken = known._take(order)
        return dataclasses.replace(taken, alert=series[order], n_alerts=self.n_alerts * len(BANDS))

    def _is_kind(self, kind: int) -> NDArray[np.bool_]:
        if self.kind is None:
            return np.full(len(self), kind == DETECTION)
        return np.asarray(self.kind == kind)

    def in_band(self, band: str) -> "LightCurves":
        """Return the entries in one band, u g r i z or y.

        Raises
        ------
        ConfigError
            If there is no such band.
        """
        if band not in BANDS:
            raise ConfigError(f"there is no band {band!r}; use one of {' '.join(BANDS)}")
        return self.select(self.band_code == BANDS.index(band))

    @property
    def band_code(self) -> NDArray[np.integer[Any]]:
        """Index into `broker.units.BANDS` of each entry, -1 if unknown."""
        return np.full(len(self), -1, np.int8) if self.band is None else self.band

    def in_richest_band(self) -> "LightCurves":
        """Return each alert's entries in the band that it has most of; the bluer of equals.

        Entries of an unknown band count as a band of their own, taken last.
        """
        n_bands = len(BANDS) + 1
        code = np.where(self.band_code < 0, n_bands - 1, self.band_code).astype(np.int64)
        counts = np.bincount(self.alert * n_bands + code, minlength=self.n_alerts * n_bands)
        richest = counts.reshape(self.n_alerts, n_bands).argmax(axis=1)
        return self.select(code == richest[self.alert])

    def within(self, days: float) -> "LightCurves":
        """Return the entries not older than this, counted back from each alert's newest. [d]"""
        return self.select(self.mjd >= self.max(self.mjd)[self.alert] - days)

    def in_time_order(self) -> "LightCurves":
        """Return the entries of each alert in order of time; equal times keep their order."""
        backwards = (np.diff(self.mjd) < 0.0) & (np.diff(self.alert) == 0)
        if not backwards.any():
            return self
        return self._take(np.lexsort((self.mjd, self.alert)))

    def sum(self, values: ArrayLike) -> NDArray[np.float64]:
        """Return each alert's sum of values of shape (n_entries,); 0 without entries."""
        weights = np.asarray(values, dtype=np.float64)
        total = np.bincount(self.alert, weights=weights, minlength=self.n_alerts)
        return total.astype(np.float64, copy=False)  # integers if there are no entries at all

    def mean(self, values: ArrayLike) -> NDArray[np.float64]:
        """Return each alert's mean; NaN without entries."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.sum(values) / self.count)

    def max(self, values: ArrayLike) -> NDArray[np.float64]:
        """Return each alert's largest value; NaN without entries."""
        return self._reduce(np.maximum, values)

    def min(self, values: ArrayLike) -> NDArray[np.float64]:
        """Return each alert's smallest value; NaN without entries."""
        return self._reduce(np.minimum, values)

    def _reduce(self, function: np.ufunc, values: ArrayLike) -> NDArray[np.float64]:
        result = np.full(self.n_alerts, np.nan)
        some = self.count > 0
        if some.any():
            array = np.asarray(values, dtype=np.float64)
            result[some] = function.reduceat(array, self.starts[:-1][some])
        return result

    def median(self, values: ArrayLike) -> NDArray[np.float64]:
        """Return each alert's median; NaN without entries."""
        array = np.asarray(values, dtype=np.float64)
        ascending = array[np.lexsort((array, self.alert))]
        result = np.full(self.n_alerts, np.nan)
        some = self.count > 0
        low = (self.starts[:-1] + (self.count - 1) // 2)[some]
        high = (self.starts[:-1] + self.count // 2)[some]
        result[some] = 0.5 * (ascending[low] + ascending[high])
        return result

    def first(self, values: ArrayLike) -> NDArray[np.float64]:
        """Return the value of each alert's first entry; NaN without entries."""
        return self._at(values, self.starts[:-1])

    def last(self, values: ArrayLike) -> NDArray[np.float64]:
        """Return the value of each alert's last entry, its own; NaN without entries."""
        return self._at(values, self.starts[1:] - 1)

    def _at(self, values: ArrayLike, index: NDArray[np.int64]) -> NDArray[np.float64]:
        result = np.full(self.n_alerts, np.nan)
        some = self.count > 0
        result[some] = np.asarray(values, dtype=np.float64)[index[some]]
        return result

    def cumulative_sum(self, values: ArrayLike) -> NDArray[np.float64]:
        """Return running sums that begin anew with each alert, shape (n_entries,)."""
        array = np.asarray(values, dtype=np.float64)
        return np.asarray(pd.Series(array).groupby(self.alert).cumsum().to_numpy())

    def rank(self) -> NDArray[np.integer[Any]]:
        """Return the position of each entry in its alert, from 0, shape (n_entries,)."""
        rank: NDArray[np.integer[Any]] = np.arange(len(self)) - self.starts[self.alert]
        return rank

    def to_series(self) -> pd.Series:
        """Return one structured array an alert: mjd, band (letter or ""), flux, flux_err, kind."""
        entries = np.empty(len(self), dtype=_ENTRY)
        letters = np.array([*BANDS, ""])
        entries["mjd"], entries["flux"], entries["flux_err"] = self.mjd, self.flux, self.flux_err
        entries["band"] = letters[self.band_code]
        entries["kind"] = DETECTION if self.kind is None else self.kind
        result = np.empty(self.n_alerts, dtype=object)
        result[:] = [entries[a:b] for a, b in zip(self.starts[:-1], self.starts[1:], strict=True)]
        return pd.Series(result)

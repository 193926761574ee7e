"""What was found against what was put in: completeness, purity, and honest errors."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from broker.units import ARCSEC_PER_DEG, flux_to_mag

SNR_EDGES = (3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 20.0, 50.0, np.inf)
"""Edges of the S/N bins of the completeness."""

MATCH_ARCSEC = 1.0
RELIABLE = 0.5
LEAST_TRUE_SNR = 2.0
"""A transient fainter than this explains no alert."""

PULL_SNR = 7.0
"""Pulls are of transients above this true S/N: below, those that noise helped over the threshold
are a biased sample."""

RESIDUAL_SNR = 20.0

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Bin:
    """Completeness between two signal-to-noise ratios."""

    low: float
    high: float
    true: int
    found: int

    @property
    def completeness(self) -> float:
        """Share that was found; NaN if there was nothing to find."""
        return self.found / self.true if self.true else float("nan")


@dataclass(frozen=True)
class Scores:
    """How well a set of diaSources describes the truth.

    Parameters
    ----------
    bins : tuple of Bin
        Of visible transients, by absolute true S/N.
    alerts, reliable, false : int
        Alerts, those above the reliability cut, and of these those that are no transient.
    lost_by_cut : int
        Real alerts above S/N 8 that the cut leaves out.
    flux_pull, ra_pull, dec_pull : float
        Root mean square of residual over stated error, of isolated transients; NaN without any.
    n_pulls : int
    astrometric_mas, photometric_mmag : float
        Root mean square residual of a coordinate, and of the magnitude of the change, of isolated
        transients above S/N 20.
    """

    bins: tuple[Bin, ...]
    alerts: int
    reliable: int
    false: int
    lost_by_cut: int
    flux_pull: float
    ra_pull: float
    dec_pull: float
    n_pulls: int
    astrometric_mas: float
    photometric_mmag: float

    @property
    def purity(self) -> float:
        """Share of reliable alerts that are transients; NaN without any."""
        return 1.0 - self.false / self.reliable if self.reliable else float("nan")

    def completeness(self, low: float, high: float = np.inf) -> float:
        """Return the share found between two S/N that are edges of bins; NaN if nothing was."""
        inside = [b for b in self.bins if b.low >= low and b.high <= high]
        true = sum(b.true for b in inside)
        return sum(b.found for b in inside) / true if true else float("nan")


def compare_with_truth(
    sources: pa.Table, truth: pa.Table, *, match_arcsec: float = MATCH_ARCSEC
) -> Scores:
    """Compare diaSources with what was injected.

    Parameters
    ----------
    sources : pa.Table
        Columns visit, detector, ra, dec, raErr, decErr, psfFlux, psfFluxErr, reliability, as
        detection or a stream's table gives them; rows of several images.
    truth : pa.Table
        With the schema `broker.simulation.truth.TRUTH`.
    match_arcsec : float
        A source and a transient of the same image, nearest and of the same sign, are one if they
        are closer than this, each used once.
    """
    found = {n: sources[n].to_numpy() for n in _SOURCE_COLUMNS}
    true = {n: truth[n].to_numpy(zero_copy_only=False) for n in _TRUTH_COLUMNS}
    match = _match(found, true, match_arcsec)
    snr = np.abs(true["snr"])
    seen = match >= 0
    visible = true["isVisible"].astype(bool)
    bins = tuple(
        Bin(low, high, int(inside.sum()), int((inside & seen).sum()))
        for low, high in pairwise(SNR_EDGES)
        for inside in [visible & (snr >= low) & (snr < high)]
    )
    real = np.zeros(len(found["ra"]), bool)
    real[match[seen]] = True
    reliable = found["reliability"] >= RELIABLE
    strong = np.zeros(len(real), bool)
    strong[match[seen & (snr > 8.0)]] = True
    good = seen & true["isIsolated"].astype(bool)
    d_ra, d_dec, d_flux, flux_pull = _residuals(found, true, match, good)
    rows = match[good]
    enough, bright = snr[good] >= PULL_SNR, snr[good] >= RESIDUAL_SNR
    mags = _mag_residuals(found["psfFlux"][rows], d_flux)
    return Scores(
        bins,
        len(real),
        int(reliable.sum()),
        int((reliable & ~real).sum()),
        int((strong & ~reliable).sum()),
        _rms(flux_pull[enough]),
        _rms((d_ra / found["raErr"][rows])[enough]),
        _rms((d_dec / found["decErr"][rows])[enough]),
        int(enough.sum()),
        _rms(np.concatenate([d_ra[bright], d_dec[bright]]) * ARCSEC_PER_DEG * 1e3),
        _rms(mags[bright] * 1e3),
    )


def matched_sources(
    sources: pa.Table, truth: pa.Table, *, match_arcsec: float = MATCH_ARCSEC
) -> NDArray[np.int64]:
    """Return the row of each transient's diaSource, -1 for none, shape (n_transients,).

    Parameters
    ----------
    sources, truth : pa.Table
        As for `compare_with_truth`; of the sources the columns visit, detector, ra, dec, psfFlux.
    match_arcsec : float
        Largest separation of a pair.
    """
    found = {n: sources[n].to_numpy() for n in ("visit", "detector", "ra", "dec", "psfFlux")}
    true = {n: truth[n].to_numpy(zero_copy_only=False) for n in _TRUTH_COLUMNS}
    return _match(found, true, match_arcsec)


_SOURCE_COLUMNS = (
    "visit",
    "detector",
    "ra",
    "dec",
    "raErr",
    "decErr",
    "psfFlux",
    "psfFluxErr",
    "reliability",
)
_TRUTH_COLUMNS = ("visit", "detector", "ra", "dec", "psfFlux", "snr", "isVisible", "isIsolated")


def _match(found: dict[str, F64], true: dict[str, F64], match_arcsec: float) -> NDArray[np.int64]:
    """Return the source of each transient, -1 for none: pairs by distance, each used once."""
    from scipy.spatial import cKDTree

    match = np.full(len(true["ra"]), -1)
    if len(found["ra"]) == 0 or len(match) == 0:
        return match
    tree = cKDTree(_vectors(found))
    chord = np.radians(match_arcsec / ARCSEC_PER_DEG)
    pairs = []
    places = _vectors(true)
    near_each: Any = tree.query_ball_point(places, chord)
    for t, near in enumerate(near_each):
        for s in near:
            same_image = (
                found["visit"][s] == true["visit"][t]
                and found["detector"][s] == true["detector"][t]
            )
            same_sign = found["psfFlux"][s] * true["psfFlux"][t] > 0.0
            if same_image and same_sign and abs(true["snr"][t]) >= LEAST_TRUE_SNR:
                pairs.append((float(np.linalg.norm(places[t] - tree.data[s])), t, s))
    taken: set[int] = set()
    for _, t, s in sorted(pairs):
        if match[t] < 0 and s not in taken:
            match[t] = s
            taken.add(s)
    return match


def _vectors(columns: dict[str, F64]) -> F64:
    ra, dec = np.radians(columns["ra"]), np.radians(columns["dec"])
    parts = [np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)]
    return np.asarray(np.column_stack(parts), np.float64)


def _residuals(
    found: dict[str, F64], true: dict[str, F64], match: NDArray[np.int64], good: NDArray[np.bool_]
) -> tuple[F64, F64, F64, F64]:
    """Return found minus true on the sky [deg], of the flux [nJy], and the flux's pull."""
    rows = match[good]
    d_ra = (found["ra"][rows] - true["ra"][good] + 180.0) % 360.0 - 180.0
    d_ra *= np.cos(np.radians(true["dec"][good]))
    d_flux = found["psfFlux"][rows].astype(np.float64) - true["psfFlux"][good]
    return d_ra, found["dec"][rows] - true["dec"][good], d_flux, d_flux / found["psfFluxErr"][rows]


def _mag_residuals(flux: F64, d_flux: F64) -> F64:
    size = np.abs(flux.astype(np.float64))
    true = np.maximum(np.abs(flux.astype(np.float64) - d_flux), 1e-9)
    return np.asarray(flux_to_mag(size) - flux_to_mag(true), np.float64)


def _rms(values: F64) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if len(values) else float("nan")

"""How good a score is: purity, completeness, and whether a probability is one."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from broker.imaging.kernels import F64

THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99)
SNR_EDGES = (5.0, 6.0, 7.0, 8.0, 10.0, 20.0, 50.0, np.inf)
N_BINS = 10
"""Of the reliability diagram, each a tenth of the scores wide."""

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Judged:
    """Scored sources and the transients they were to be found for.

    Parameters
    ----------
    score, snr : NDArray[np.float64], shape (n_sources,)
        Of the sources; the S/N measured, absolute.
    is_real : NDArray[np.bool_], shape (n_sources,)
    weight : NDArray[np.float64], shape (n_sources,)
        How many sources each stands for, for the diagram alone.
    true_snr : NDArray[np.float64], shape (n_transients,)
        Of all visible transients, found or not, absolute.
    true_score : NDArray[np.float64], shape (n_transients,)
        That of its source; -1 if it was not detected.
    """

    score: F64
    snr: F64
    is_real: Bools
    weight: F64
    true_snr: F64
    true_score: F64

    def purity(self, threshold: float, low: float = 0.0, high: float = np.inf) -> float:
        """Return the share of real ones among sources of at least a score, between two S/N."""
        chosen = (self.score >= threshold) & (self.snr >= low) & (self.snr < high)
        return _share(self.is_real[chosen])

    def completeness(self, threshold: float, low: float = 0.0, high: float = np.inf) -> float:
        """Return the share of transients that are found with at least a score."""
        there = (self.true_snr >= low) & (self.true_snr < high)
        return _share(self.true_score[there] >= threshold)


@dataclass(frozen=True)
class DiagramBin:
    """Sources of similar scores.

    Parameters
    ----------
    low, high : float
        Edges.
    sources : int
    score, real : float
        Mean score and share of real ones; NaN without sources.
    error : float
        Standard error of the share, of the binomial at the mean score.
    """

    low: float
    high: float
    sources: int
    score: float
    real: float
    error: float


def diagram(judged: Judged) -> tuple[DiagramBin, ...]:
    """Return the reliability diagram (DeGroot & Fienberg 1983): is a score the share of real?"""
    edges = np.linspace(0.0, 1.0, N_BINS + 1)
    place = np.clip(np.digitize(judged.score, edges) - 1, 0, N_BINS - 1)
    bins = []
    for k, (low, high) in enumerate(pairwise(edges)):
        inside = place == k
        weight, n = judged.weight[inside], int(inside.sum())
        total = float(weight.sum())
        score = float(weight @ judged.score[inside]) / total if n else float("nan")
        real = float(weight @ judged.is_real[inside]) / total if n else float("nan")
        spread = max(score * (1.0 - score), 0.0) * float(weight @ weight) if n else float("nan")
        error = float(np.sqrt(spread)) / total if n else float("nan")
        bins.append(DiagramBin(float(low), float(high), n, score, real, error))
    return tuple(bins)


def calibration_error(judged: Judged) -> float:
    """Return the expected calibration error: the mean gap of the diagram, by weight."""
    edges = np.linspace(0.0, 1.0, N_BINS + 1)
    place = np.clip(np.digitize(judged.score, edges) - 1, 0, N_BINS - 1)
    gap = np.bincount(place, judged.weight * (judged.score - judged.is_real), minlength=N_BINS)
    return float(np.abs(gap).sum() / judged.weight.sum()) if judged.score.size else float("nan")


def by_threshold(judged: Judged, *, least_snr: float = 6.0) -> list[dict[str, float | int]]:
    """Return a row a threshold: confusion of all sources, purity and completeness above an S/N."""
    rows: list[dict[str, float | int]] = []
    for threshold in THRESHOLDS:
        kept = judged.score >= threshold
        rows.append(
            {
                "score >=": threshold,
                "real kept": int((kept & judged.is_real).sum()),
                "real lost": int((~kept & judged.is_real).sum()),
                "false kept": int((kept & ~judged.is_real).sum()),
                "false lost": int((~kept & ~judged.is_real).sum()),
                "purity": judged.purity(threshold),
                f"purity S/N>{least_snr:g}": judged.purity(threshold, least_snr),
                f"complete S/N>{least_snr:g}": judged.completeness(threshold, least_snr),
            }
        )
    return rows


def by_snr(judged: Judged, *, threshold: float = 0.5) -> list[dict[str, float | int | str]]:
    """Return a row an S/N bin: purity before and after the cut, completeness after it."""
    rows: list[dict[str, float | int | str]] = []
    for low, high in pairwise(SNR_EDGES):
        inside = (judged.snr >= low) & (judged.snr < high)
        there = (judged.true_snr >= low) & (judged.true_snr < high)
        rows.append(
            {
                "S/N": f"{low:g}-{high:g}" if np.isfinite(high) else f">{low:g}",
                "sources": int(inside.sum()),
                "false": int((inside & ~judged.is_real).sum()),
                "purity before": _share(judged.is_real[inside]),
                "purity": judged.purity(threshold, low, high),
                "transients": int(there.sum()),
                "detected": _share(judged.true_score[there] >= 0.0),
                "complete": judged.completeness(threshold, low, high),
            }
        )
    return rows


def _share(chosen: Bools) -> float:
    return float(chosen.mean()) if chosen.size else float("nan")

"""The difference: false detections, completeness, fluxes, purity, flags and time."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import ndtr

from broker.bench_rows import Row, at_least, at_most
from broker.detection.detect import detect
from broker.detection.dia import DiaSettings, detect_on_difference, difference_and_detect
from broker.detection.differencing.decorrelate import decorrelate
from broker.detection.differencing.difference import Difference, subtract_template
from broker.detection.flags import SourceFlag
from broker.imaging.kernels import F64
from broker.imaging.mask import MaskPlane
from broker.ops.image_bench.difference_scenes import (
    GAIN,
    Look,
    Pair,
    changed_pair,
    draw_pair,
    draw_trail,
)
from broker.ops.image_bench.rows import seconds
from broker.units import mag_to_flux

_NEAR_PX = 8.0
_CLEAR_PX = 12.0
_MATCH_PX = 3.0
_THRESHOLD = 5.0
_DEEP = 4.0
_LEVELS = (5.0, 5.5, 6.0, 6.5, 7.0, 8.0)
_BRIGHT = (10.0, 20.0, 50.0, 100.0, 200.0)

LOOKS = (
    Look(),
    Look(sigma=1.8, template_sigma=2.1),
    Look(sigma=2.0, template_sigma=2.0),
)
"""The template sharper, the exposure sharper, and each of them the sharper one somewhere."""


def rows(side: int, repeats: int) -> list[Row]:
    """Judge differences of images with known truth, and time them."""
    small = min(side, 1024)
    return [
        *_static(small, repeats),
        *_changing(small, repeats),
        *_purity(small, repeats),
        *_dipoles(small),
        *_trails(small, repeats),
        *_speed(side, repeats),
    ]


def _near(places: F64, x: Any, y: Any) -> F64:
    """Return the distance of each place x, y to the nearest of places, shape (n,). [pixel]"""
    from scipy.spatial import cKDTree

    if len(places) == 0:
        return np.full(np.size(x), np.inf)
    distance, _ = cKDTree(places[:, :2]).query(np.column_stack([x, y]))
    return np.asarray(distance, np.float64)


def _static(side: int, repeats: int) -> list[Row]:
    """Count what is found where nothing changed."""
    stars, on_stars, off_stars, expected = 0, 0, 0, 0.0
    for k in range(2 * max(2, repeats)):
        pair = draw_pair(1000 + k, side, LOOKS[k % len(LOOKS)])
        difference = subtract_template(pair.image, pair.template)
        peaks = _peaks(difference, _DEEP)
        near = _near(pair.stars, peaks.x, peaks.y) < _NEAR_PX
        inside = np.all((pair.stars[:, :2] > 5.0) & (pair.stars[:, :2] < side - 5.0), axis=1)
        stars += int(inside.sum())
        on_stars += int(np.sum(near & (np.abs(peaks.snr) >= _THRESHOLD)))
        off_stars += int(np.count_nonzero(~near))
        sky = side**2 - pair.stars.shape[0] * np.pi * _NEAR_PX**2
        expected += 2.0 * sky * _random_peaks(_DEEP, difference.filter_sigma)
    return [
        at_most("false per 1000 static stars", 1000.0 * on_stars / stars, 2.0, "DP1 9 of 10"),
        at_most("off-star false / random peaks", off_stars / expected, 2.0, "theory 1"),
    ]


def _peaks(difference: Difference, threshold: float) -> Any:
    return detect(
        difference.pixels,
        difference.detection_variance,
        psf_sigma=difference.filter_sigma,
        unusable=difference.unusable,
        threshold=threshold,
    )


def _random_peaks(threshold: float, sigma: float) -> float:
    """Return the peaks of one sign above a threshold of filtered noise, a pixel."""
    rate = threshold * np.exp(-0.5 * threshold**2) / ((2.0 * np.pi) ** 1.5 * 2.0 * sigma**2)
    return float(rate)


@dataclass
class _Found:
    """What became of transients, image by image."""

    snr: list[F64] = field(default_factory=list)
    seen: list[Any] = field(default_factory=list)
    pull: list[F64] = field(default_factory=list)
    magnitude: list[F64] = field(default_factory=list)
    chi2: list[F64] = field(default_factory=list)
    dipoles: list[Any] = field(default_factory=list)

    def add(self, pair: Pair, difference: Difference) -> None:
        """Detect, measure, and compare with the truth, away from stars."""
        from scipy.spatial import cKDTree

        sources = detect_on_difference(difference, "bench").sources.to_pandas()
        truth = pair.transients
        others = np.asarray(cKDTree(truth[:, :2]).query(truth[:, :2], k=2)[0])[:, 1]
        clear = (_near(pair.stars, truth[:, 0], truth[:, 1]) > _CLEAR_PX) & (others > 3 * _CLEAR_PX)
        truth = truth[clear]
        tree = cKDTree(sources[["x", "y"]].to_numpy())
        distance, row = (np.asarray(part) for part in tree.query(truth[:, :2]))
        seen = distance < _MATCH_PX
        self.snr.append(truth[:, 3])
        self.seen.append(seen)
        good = seen & (truth[:, 3] >= 10.0)
        matched = sources.iloc[row[good]]
        unit = float(mag_to_flux(pair.image.zero_point))
        flux, error = matched.psfFlux.to_numpy() / unit, matched.psfFluxErr.to_numpy() / unit
        self.pull.append((flux - truth[good, 2]) / error)
        bright = truth[good, 3] >= 50.0
        self.magnitude.append(-2.5 * np.log10((flux / truth[good, 2])[bright]))
        self.chi2.append(matched.psfChi2.to_numpy())
        self.dipoles.append(matched.isDipole.to_numpy())

    def completeness(self) -> float:
        """Return what was found over what a filter at the limit of the noise finds."""
        snr, seen = np.concatenate(self.snr), np.concatenate(self.seen)
        faint = snr <= _LEVELS[-1]
        return float(np.sum(seen[faint]) / np.sum(ndtr(snr[faint] - _THRESHOLD)))

    def rms_pull(self) -> float:
        """Return the root mean square of flux errors in their own unit."""
        return float(np.sqrt(np.mean(np.concatenate(self.pull) ** 2)))


def _changing(side: int, repeats: int) -> list[Row]:
    """Find and measure transients, with and without decorrelation."""
    plain, white = _Found(), _Found()
    n = int(110 * side**2 / 1e6)
    for k in range(3 * max(2, repeats)):
        rng = np.random.default_rng(2000 + k)
        snr = np.where(rng.random(n) < 0.65, rng.choice(_LEVELS, n), rng.choice(_BRIGHT, n))
        pair = draw_pair(2000 + k, side, LOOKS[k % len(LOOKS)], snr=snr)
        difference = subtract_template(pair.image, pair.template)
        plain.add(pair, difference)
        if k % len(LOOKS) == 1:
            white.add(pair, decorrelate(difference))
    bias = abs(float(np.median(np.concatenate(plain.magnitude))))
    pull = plain.rms_pull()
    return [
        at_least("completeness / theory, S/N 5-8", plain.completeness(), 0.97, "DP1 > .95 at 6"),
        Row("pull of fluxes", pull, ".95-1.10", "DP1 < 1.15", bool(0.95 <= pull <= 1.10)),
        at_most("bias of bright transients [mag]", bias, 0.005, "DP1 .002"),
        *_whitened(plain, white),
        at_most("transients flagged as dipoles", _share(plain.dipoles), 0.02, ""),
    ]


def _share(parts: list[Any]) -> float:
    return float(np.mean(np.concatenate(parts)))


def _whitened(plain: _Found, white: _Found) -> list[Row]:
    """Return what decorrelation changes, beside the same images without it."""
    same = slice(1, None, len(LOOKS))
    parts = _Found(plain.snr[same], plain.seen[same], plain.pull[same])
    before, after = (float(np.median(np.concatenate(c))) for c in (plain.chi2[same], white.chi2))
    return [
        Row("decorrelated: completeness / theory", white.completeness(), "",
            f"without {parts.completeness():.3f}", None),
        Row("decorrelated: pull of fluxes", white.rms_pull(), "",
            f"without {parts.rms_pull():.3f}", None),
        Row("decorrelated: chi-square", after, "", f"without {before:.2f}", None),
    ]  # fmt: skip


def _purity(side: int, repeats: int) -> list[Row]:
    """Count real sources among all of a night with everything that goes wrong."""
    real, all_sources = 0, 0
    for k in range(max(2, repeats)):
        look = Look(offset_px=0.1, cosmic_rays_per_mpix=30.0, defects_per_mpix=6.0)
        rng = np.random.default_rng(3000 + k)
        snr = 10 ** rng.uniform(np.log10(5.0), np.log10(200.0), int(40 * side**2 / 1e6))
        pair = draw_pair(3000 + k, side, look, snr=snr)
        sources = difference_and_detect(pair.image, pair.template).sources
        x, y = sources["x"].to_numpy(), sources["y"].to_numpy()
        real += int(np.count_nonzero(_near(pair.transients, x, y) < _MATCH_PX))
        all_sources += sources.num_rows
    purity = real / max(1, all_sources)
    return [at_least("alert purity, no classifier", purity, 0.60, "DP1 .10, DES .75")]


def _dipoles(side: int) -> list[Row]:
    """Move stars by 0.1 to 0.5 pixels and see which of their sources are flagged."""
    flagged, found = 0, 0
    for k in range(3):
        pair = draw_pair(4000 + k, side, Look(moved_share=0.1, sigma=(2.1, 1.8, 2.0)[k]))
        sources = difference_and_detect(pair.image, pair.template).sources.to_pandas()
        moved = _near(pair.stars[pair.has_moved], sources.x, sources.y) < _MATCH_PX * 2.1
        found += int(moved.sum())
        flagged += int(sources.isDipole.to_numpy()[moved].sum())
    share = flagged / max(1, found)
    return [at_least("moved stars' sources flagged dipole", share, 0.90, f"of {found}")]


def _trails(side: int, repeats: int) -> list[Row]:
    """Draw trails, as bright as a source of 6 sigma at every place and brighter."""
    covered, under, flagged, on_trail, false = 0.0, 0.0, 0, 0, 0
    count = 2 * max(2, repeats)
    for k in range(count):
        rng = np.random.default_rng(5000 + k)
        pair = draw_pair(5000 + k, side, LOOKS[0])
        difference = subtract_template(pair.image, pair.template)
        false += int(difference.scorecard["streaks"])
        strength = float(rng.uniform(6.0, 30.0)) * np.sqrt(pair.image.variance[0, 0]) * GAIN
        light, core = draw_trail(rng, side, float(strength), float(rng.uniform(0.15, 1.5)) * side)
        pair = draw_pair(5000 + k, side, LOOKS[0], trail=light)
        difference = subtract_template(pair.image, pair.template)
        marked = difference.science.is_masked(MaskPlane.STREAK)
        covered += float(np.count_nonzero(marked & core))
        under += float(np.count_nonzero(core))
        sources = detect_on_difference(difference, "bench").sources
        x, y = (np.rint(sources[n].to_numpy()).astype(int).clip(0, side - 1) for n in ("x", "y"))
        flags = sources["flags"].to_numpy()[core[y, x]] & int(SourceFlag.STREAK)
        flagged += int(np.count_nonzero(flags))
        on_trail += int(np.count_nonzero(core[y, x]))
    return [
        at_least("trails: share of pixels masked", covered / under, 0.95, "6 sigma and brighter"),
        at_least("trails: sources on them flagged", flagged / max(1, on_trail), 0.95, ""),
        at_most("trails found where none is, an image", false / count, 0.1, f"of {count}"),
    ]


def _speed(side: int, repeats: int) -> list[Row]:
    """Time it from sky subtraction to the cutouts of fifty transients."""
    image, template = changed_pair(side)
    white = DiaSettings(decorrelate=True)
    own, slower = seconds(
        max(3, repeats),
        lambda: difference_and_detect(image, template),
        lambda: difference_and_detect(image, template, settings=white),
    )
    scaled = 2048**2 / side**2
    return [
        at_most("difference, all of it [s per 2048²]", own * scaled, 0.40, "HOTPANTS 7.6"),
        Row("decorrelated: more time [s per 2048²]", (slower - own) * scaled, "", "", None),
    ]

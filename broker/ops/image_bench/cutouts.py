"""Cutouts beside astropy and gzip: time, bytes, and what of a flux is lost."""

import gzip
import io
from typing import Any

import numpy as np

from broker.bench_rows import Row, at_least, at_most
from broker.imaging.cutout import cut, decode_cutout, encode_cutout
from broker.imaging.kernels import F32
from broker.imaging.psf import GaussianPsf
from broker.ops.image_bench.rows import GAIN, READ, SIGMA, SKY, field, make_wcs, seconds
from broker.simulation.kernels import add_gaussians

_CUTOUT = 63
_STAMPS, _STAMP_SNR = 2000, 20.0


def rows(side: int, repeats: int) -> list[Row]:
    """Measure cutting and coding, and read everything back by astropy."""
    from astropy.io import fits

    pixels, x, y, _ = field(min(side, 512))
    # Calibrated pixels are no whole counts any more, and do not compress as such.
    pixels = pixels + np.random.default_rng(9).uniform(-0.5, 0.5, pixels.shape).astype(np.float32)
    wcs = make_wcs(side)
    sigma = float(np.sqrt(SKY / GAIN + (READ / GAIN) ** 2))
    places = [(int(a), int(b)) for a, b in zip(x[:60], y[:60], strict=True)]

    def ours(lossless: bool = False) -> list[bytes]:
        return [
            encode_cutout(
                cut(pixels, a, b, _CUTOUT), wcs=wcs.shifted(a, b), sigma=sigma, lossless=lossless
            )
            for a, b in places
        ]

    def theirs() -> list[bytes]:
        packed = []
        for a, b in places:
            file = io.BytesIO()
            fits.PrimaryHDU(cut(pixels, a, b, _CUTOUT)).writeto(file)
            packed.append(gzip.compress(file.getvalue(), 6))
        return packed

    own, exact, other = seconds(repeats, ours, lambda: ours(lossless=True), theirs)
    size, exact_size, other_size = (
        float(np.mean([len(c) for c in made])) for made in (ours(), ours(True), theirs())
    )
    n = len(places)
    micro = f"astropy + gzip {other / n * 1e6:.0f}"
    originals = [cut(pixels, a, b, _CUTOUT) for a, b in places]
    return [
        at_most("cutout, cut and coded [µs]", own / n * 1e6, 80.0, micro),
        at_most("cutout [bytes]", size, 4200.0, f"astropy + gzip {other_size:.0f}"),
        at_most("cutout, lossless [µs]", exact / n * 1e6, 60.0, micro),
        Row("cutout, lossless [bytes]", exact_size, "", f"astropy + gzip {other_size:.0f}", None),
        at_most("cutout, flux error / sigma", _flux_error(originals, ours(), sigma), 0.04, "0"),
        at_most("cutout, read by astropy and by us [e-]", _disagreement(ours()), 0.0, "0"),
        at_most("cutout, lossless - original [e-]", _change(originals, ours(True)), 0.0, "0"),
        *_searched(repeats),
    ]


def _searched(repeats: int) -> list[Row]:
    """Return how many cutouts a second are searched and their source fitted, and how well.

    Cutouts below one another are one tall image: nothing is copied.
    """
    from broker.detection.detect import detect
    from broker.detection.measure import Noise, fit_sources

    rng = np.random.default_rng(10)
    at = _CUTOUT // 2 + rng.uniform(-0.5, 0.5, (2, _STAMPS))
    electrons, width = np.full(_STAMPS, _STAMP_SNR * _flux_sigma()), np.full(_STAMPS, SIGMA)
    tall = np.full((_STAMPS * _CUTOUT, _CUTOUT), SKY, np.float32)
    below = np.arange(_STAMPS) * _CUTOUT
    add_gaussians(tall, at[0], at[1] + below, electrons, width, width, 0.02)
    spread = np.sqrt(tall + np.float32(READ**2))
    tall += spread * rng.standard_normal(tall.shape, np.float32) - np.float32(SKY)
    variance = np.full(tall.shape, SKY + READ**2, np.float32)
    usable = np.zeros(tall.shape, bool)

    def search() -> Any:
        peaks = detect(tall, variance, psf_sigma=SIGMA, unusable=usable)
        noise = Noise(1.0, SKY + READ**2)
        return fit_sources(
            tall, variance, peaks.x, peaks.y, psf_sigma=SIGMA, noise=noise, unusable=usable
        )

    (own,) = seconds(repeats, search)
    fits = search()
    middle = _CUTOUT // 2
    near = (np.abs(fits.x - middle) < 3.0) & (np.abs(np.mod(fits.y, _CUTOUT) - middle) < 3.0)
    pull = (fits.flux[near] - electrons[0]) / fits.flux_err[near]
    found = np.unique(fits.y[near] // _CUTOUT).size / _STAMPS
    return [
        at_least("cutouts searched and fitted, 1000/s", _STAMPS / own / 1e3, 30.0, ""),
        at_least(f"cutouts' sources found, S/N {_STAMP_SNR:g}", found, 0.999, "1"),
        at_most(
            "cutouts' sources, |pull of fluxes - 1|", abs(float(np.std(pull)) - 1.0), 0.05, "0"
        ),
    ]


def _flux_sigma() -> float:
    """Return the error of a PSF flux on the sky. [e-]"""
    return float(np.sqrt(4.0 * np.pi * (SKY + READ**2)) * SIGMA)


def _flux_error(originals: list[F32], coded: list[bytes], sigma: float) -> float:
    """Return the rms change of a PSF flux at many places of each cutout, in its own sigmas."""
    psf = GaussianPsf(SIGMA).stamp(size=15)
    errors = []
    for original, data in zip(originals, coded, strict=True):
        change = np.nan_to_num(decode_cutout(data) - original)
        for j in range(0, _CUTOUT - 14, 16):
            for i in range(0, _CUTOUT - 14, 16):
                weighed = np.sum(psf * change[j : j + 15, i : i + 15])
                errors.append(weighed / (sigma * np.sqrt(np.sum(psf * psf))))
    return float(np.std(errors))


def _disagreement(coded: list[bytes]) -> float:
    """Return the largest difference between our reading and astropy's; infinite if NaN differs."""
    from astropy.io import fits

    worst = 0.0
    for data in coded:
        with fits.open(io.BytesIO(gzip.decompress(data))) as file:
            theirs: Any = np.asarray(file[0].data, np.float32)
        worst = max(worst, _largest(decode_cutout(data), theirs))
    return worst


def _change(originals: list[F32], coded: list[bytes]) -> float:
    return max(_largest(decode_cutout(c), o) for c, o in zip(coded, originals, strict=True))


def _largest(first: F32, second: F32) -> float:
    if (np.isnan(first) != np.isnan(second)).any():
        return float("inf")
    return float(np.nanmax(np.abs(first - second)))

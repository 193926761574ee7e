"""Cutouts beside astropy and gzip: time, bytes, and what of a flux is lost."""

import gzip
import io
from typing import Any

import numpy as np

from broker.imaging.cutout import cut, decode_cutout, encode_cutout
from broker.imaging.kernels import F32
from broker.imaging.psf import GaussianPsf
from broker.ops.image_bench.rows import (
    GAIN,
    READ,
    SIGMA,
    SKY,
    Row,
    at_most,
    field,
    make_wcs,
    seconds,
)

_CUTOUT = 63


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
    ]


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

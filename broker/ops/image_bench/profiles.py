"""Elliptical Gaussian and aperture fluxes, and stars with an atmosphere's wings."""

from typing import Any

import numpy as np

from broker.bench_rows import Row, at_most
from broker.detection.direct import detect_sources
from broker.detection.galaxies.apertures import measure_places
from broker.detection.galaxies.photometry import Shapes, ellipse_photometry
from broker.imaging.kernels import F64
from broker.imaging.psf import FWHM_PER_SIGMA
from broker.ops.image_bench.photometry import psf_of_stars
from broker.ops.image_bench.rows import SKY
from broker.ops.image_bench.scenes import Scene, lattice, matched, profiles

_SIDE = 800
_PITCH = 80.0
_FLUX = 40_000.0
"""S/N 100 and more. [electron]"""

_MOST_BIAS, _MOST_RMS = 0.02, 0.05
_FWHM, _REACH_SIGMAS = 4.7, 7.0
"""Of Kolmogorov's stars [pixel], and how far out the PSF is known from the stars."""

_MOST_SCATTER = 0.010
_MOST_APERTURE = 1e-3


def rows(side: int, repeats: int) -> list[Row]:
    """Measure fluxes of drawn ellipses against the truth and photutils, and Kolmogorov's stars."""
    del side, repeats
    return [*_ellipses(), *_kolmogorov()]


def _ellipses() -> list[Row]:
    psf = psf_of_stars(_SIDE)
    rng = np.random.default_rng(61)
    x, y = lattice(_SIDE, _PITCH, rng)
    sigma, shear = rng.uniform(2.0, 4.0, x.size), rng.uniform(0.0, 0.25, x.size)
    turn = rng.uniform(0.0, np.pi, x.size)

    def shape(galsim: Any, k: int, _u: float, _v: float) -> Any:
        star = galsim.Moffat(beta=3.5, fwhm=4.7).shear(g1=0.05, g2=0.0)
        drawn = galsim.Gaussian(sigma=sigma[k]).shear(g=shear[k], beta=turn[k] * galsim.radians)
        return galsim.Convolve(drawn, star)

    scene = profiles(_SIDE, x, y, np.full(x.size, _FLUX), shape, 62)
    clean = scene.image.with_arrays(pixels=scene.image.pixels - np.float32(SKY))
    table = measure_places(clean, x, y, psf=psf)
    gauss, kron, petro = (
        -2.5 * np.log10(table[f"{name}Counts"].to_numpy() / scene.flux)
        for name in ("gauss", "kron", "petro")
    )
    known = np.isfinite(gauss)
    noise = float(np.nanmedian(1.0857 * table["gaussCountsErr"].to_numpy() / scene.flux))
    return [
        at_most("elliptical Gaussian, |bias of its flux| [mag]", abs(float(gauss[known].mean())),
                _MOST_BIAS, f"Kron {np.nanmean(kron):+.3f}, Petrosian {np.nanmean(petro):+.3f}"),
        at_most("elliptical Gaussian, rms of its flux [mag]",
                float(np.sqrt(np.mean(gauss[known] ** 2))), _MOST_RMS, f"photon noise {noise:.3f}"),
        at_most("elliptical Gaussian, share without a flux", float(np.mean(~known)), 0.01, "0"),
        at_most("elliptical apertures / photutils' exact ones - 1",
                _against_photutils(scene, table), _MOST_APERTURE, "0"),
    ]  # fmt: skip


def _against_photutils(scene: Scene, table: Any) -> float:
    """Return the largest relative difference of fluxes in ellipses of 2.5 semi-axes."""
    from photutils.aperture import EllipticalAperture, aperture_photometry

    pixels = scene.image.pixels - np.float32(SKY)
    a, b, theta = (table[name].to_numpy().astype(np.float64) for name in ("a", "b", "theta"))
    known = np.isfinite(a)
    shapes = Shapes(a, b, theta)
    ours = ellipse_photometry(
        pixels, scene.image.variance, scene.x, scene.y, shapes, np.full(a.size, 2.5),
        unusable=np.zeros(pixels.shape, bool),
    ).flux  # fmt: skip
    worst = 0.0
    for k in np.flatnonzero(known):
        place = (float(scene.x[k]), float(scene.y[k]))
        aperture = EllipticalAperture(place, 2.5 * a[k], 2.5 * b[k], theta=theta[k])
        theirs = float(aperture_photometry(pixels, aperture, method="exact")["aperture_sum"][0])
        worst = max(worst, abs(float(ours[k]) / theirs - 1.0))
    return worst


def _kolmogorov() -> list[Row]:
    """Measure stars whose wings go on beyond what a fit sees, before and after a zero point.

    Out there stars cannot be told from sky, so what lies there is the most that may be missing.
    """
    rng = np.random.default_rng(63)
    x, y = lattice(_SIDE, 50.0, rng)
    flux: F64 = 10 ** rng.uniform(4.0, 5.2, x.size)
    scene = profiles(_SIDE, x, y, flux, lambda g, *_: g.Kolmogorov(fwhm=_FWHM), 64)
    table = detect_sources(scene.image).sources
    best = matched(scene, table["x"].to_numpy(), table["y"].to_numpy())
    seen = best >= 0
    counts, error = (table[name].to_numpy()[best[seen]] for name in ("counts", "countsErr"))
    off = -2.5 * np.log10(counts / flux[seen])
    bias = float(np.mean(off))
    limit = float(np.sqrt(np.mean((1.0857 * error / counts) ** 2)))
    return [
        at_most("Kolmogorov's stars, |bias| without a zero point [mag]", abs(bias),
                round(_light_beyond(), 4), "its light beyond 7 PSF widths"),
        at_most("Kolmogorov's stars, scatter about their zero point [mag]", float(np.std(off)),
                _MOST_SCATTER, f"photon noise {limit:.4f}"),
    ]  # fmt: skip


def _light_beyond() -> float:
    """Return the light of Kolmogorov's profile beyond the reach of a fit. [mag]"""
    import galsim

    drawn = galsim.Kolmogorov(fwhm=_FWHM).drawImage(nx=401, ny=401, scale=1.0).array
    offset = np.arange(-200, 201)
    inside = np.hypot(offset[:, None], offset) < _REACH_SIGMAS * _FWHM / FWHM_PER_SIGMA
    return float(-2.5 * np.log10(np.sum(drawn[inside], dtype=np.float64)))

"""The PSF of an image, measured from its stars: how wide, and how that varies over the image."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from broker.detection.detect import detect
from broker.detection.measure import moments
from broker.errors import AlertError
from broker.imaging.image import Image
from broker.imaging.kernel_stars import kernel_stars
from broker.imaging.kernels import F64
from broker.imaging.mask import UNUSABLE
from broker.imaging.psf import FWHM_PER_SIGMA, GaussianPsf

LEAST_STARS = 5
_PIXEL_VARIANCE = 1.0 / 12.0
"""What the pixel's square adds to a profile's second moment. [pixel²]"""

_ROUNDS = 4
_CLIP_SIGMAS = 3.0
_WIDEST = 12.0
_WIDTH_NOISE = 1.0
"""Relative error of a width, times the S/N: that of Gaussian-weighted second moments."""

_WIDTH_FLOOR = 0.004


@dataclass(frozen=True)
class PsfModel:
    """A round Gaussian whose width varies linearly over an image.

    Parameters
    ----------
    width : (float, float, float)
        Sigma at the centre, and its change from there to the right and to the upper border. [pixel]
    shape : (int, int)
        Of the image: (ny, nx).
    n_stars : int
    scatter : float
        1-sigma scatter of one star's width about the model. [pixel]
    elongation : float
        Median ratio of the axes: how far from round it is.
    """

    width: tuple[float, float, float]
    shape: tuple[int, int]
    n_stars: int
    scatter: float
    elongation: float

    @property
    def psf(self) -> GaussianPsf:
        """The PSF at the image's centre."""
        return GaussianPsf(self.width[0])

    def sigma_at(self, x: F64, y: F64) -> F64:
        """Return the width at places, shape (n_places,). [pixel]"""
        u, v = _unit(np.asarray(x, float), np.asarray(y, float), self.shape)
        middle, right, up = self.width
        return np.asarray(np.clip(middle + right * u + up * v, 0.3 * middle, 3.0 * middle))


def _unit(x: F64, y: F64, shape: tuple[int, int]) -> tuple[F64, F64]:
    ny, nx = shape
    return (2.0 * x + 1.0) / nx - 1.0, (2.0 * y + 1.0) / ny - 1.0


def fit_psf(image: Image, *, guess: float = 0.0) -> PsfModel:
    """Measure the PSF from isolated, unsaturated stars.

    Parameters
    ----------
    image : Image
        Background-subtracted, with the variance of sky and reading.
    guess : float
        First width; 0 tries several. [pixel]

    Returns
    -------
    PsfModel

    Raises
    ------
    AlertError
        If there are fewer than five stars.

    Notes
    -----
    Each star's width is that of its Gaussian-weighted second moments, the weight as wide as the
    star, with the weight's and the pixel's share taken out. Galaxies are wider: the stars are the
    densest part of the widths, found by the half-sample mode (Robertson & Cryer 1974, JASA 69).
    """
    best: tuple[int, float] = (0, 0.0)
    for first in (guess,) if guess > 0.0 else (1.2, 2.0, 3.5, 6.0):
        sigma = first
        count = 0
        for _ in range(_ROUNDS):
            widths = _widths(image, sigma)[2]
            count = widths.size
            if count < LEAST_STARS:
                break
            sigma = float(np.clip(_half_sample_mode(widths), 0.5, _WIDEST))
        if count > best[0]:
            best = (count, sigma)
    if best[0] < LEAST_STARS:
        raise AlertError(
            f"the image has {best[0]} isolated stars; the PSF needs {LEAST_STARS}",
            nStars=best[0],
        )
    return _fit(image, best[1])


def psf_stars(image: Image, model: PsfModel) -> tuple[F64, F64, F64, F64]:
    """Return the stars that show the PSF.

    Returns
    -------
    x, y, flux : NDArray[np.float64], shape (n_stars,)
        Isolated, unsaturated, as wide as the model says.
    others : NDArray[np.float64], shape (n_sources, 2)
        x and y of everything that was detected, these too.
    """
    sigma = model.psf.sigma
    x, y, widths, _, error = _widths(image, sigma)
    wanted = model.sigma_at(x, y)
    scale = max(model.scatter / float(np.median(error) * sigma), 1.0) if x.size else 1.0
    good = np.abs(widths / wanted - 1.0) < np.minimum(_CLIP_SIGMAS * scale * error + 0.02, 0.3)
    found = detect(
        image.pixels, image.variance, psf_sigma=sigma, unusable=image.is_masked(UNUSABLE),
        negative=False,
    )  # fmt: skip
    i, j = np.rint(x[good]).astype(np.int64), np.rint(y[good]).astype(np.int64)
    flux = image.pixels[j, i].astype(np.float64) * 2.0 * np.pi * (sigma**2 + _PIXEL_VARIANCE)
    others = np.column_stack([found.x, found.y]).astype(np.float64)
    return x[good], y[good], flux, others


def _widths(image: Image, sigma: float) -> tuple[F64, F64, F64, F64, F64]:
    """Return x, y, width, elongation and the width's relative error of isolated sources."""
    unusable = image.is_masked(UNUSABLE)
    peaks = detect(
        image.pixels,
        image.variance,
        psf_sigma=sigma,
        unusable=unusable,
        threshold=10.0,
        negative=False,
    )
    chosen = kernel_stars(peaks.x, peaks.y, peaks.snr, unusable, most=3000.0, limit=300, margin=16)
    x, y = _centres(image, peaks.x[chosen], peaks.y[chosen], sigma)
    fwhm, elongation = moments(
        image.pixels, x, y, np.ones(x.size), psf_sigma=float(np.hypot(sigma, 0.29)),
        unusable=unusable,
    )  # fmt: skip
    square = (fwhm / FWHM_PER_SIGMA) ** 2 - _PIXEL_VARIANCE
    good = np.isfinite(square) & (square > 0.1)
    error = np.hypot(_WIDTH_NOISE / peaks.snr[chosen][good], _WIDTH_FLOOR)
    return x[good], y[good], np.sqrt(square[good]), elongation[good], error


def _centres(
    image: Image, x: NDArray[np.int32], y: NDArray[np.int32], sigma: float
) -> tuple[F64, F64]:
    from broker.detection.measure import Noise, fit_sources

    fits = fit_sources(
        image.pixels,
        image.variance,
        x,
        y,
        psf_sigma=sigma,
        noise=Noise(image.gain, float(np.median(image.variance))),
        unusable=image.is_masked(UNUSABLE),
    )
    return fits.x, fits.y


def _half_sample_mode(values: F64) -> float:
    """Return the middle of the densest part of values: halved again and again."""
    sample = np.sort(values)
    while sample.size > 3:
        half = (sample.size + 1) // 2
        start = int(np.argmin(sample[half - 1 :] - sample[: sample.size - half + 1]))
        sample = sample[start : start + half]
    return float(np.mean(sample))


def _fit(image: Image, sigma: float) -> PsfModel:
    x, y, widths, elongation, error = _widths(image, sigma)
    u, v = _unit(x, y, image.shape)
    mode = _half_sample_mode(widths)
    keep = np.abs(widths - mode) < np.hypot(0.1 * mode, _CLIP_SIGMAS * error * mode)
    keep &= np.abs(widths - mode) < 0.3 * mode
    solution = np.array([mode, 0.0, 0.0])
    rest = widths - mode
    for _ in range(2 * _ROUNDS):
        # Bright stars first: their widths are known best, and few galaxies are as bright.
        varies = keep.sum() >= 4 * LEAST_STARS
        design = np.column_stack([np.ones(u.size), u, v]) if varies else np.ones((u.size, 1))
        weighted = design[keep] / error[keep, None]
        found = np.linalg.lstsq(weighted, widths[keep] / error[keep], rcond=None)[0]
        solution = np.append(found, [0.0, 0.0])[:3]
        rest = widths - design @ found
        pull = rest / (error * mode)
        spread = 1.4826 * float(np.median(np.abs(pull[keep])))
        new = np.abs(pull) < _CLIP_SIGMAS * max(spread, 1.0)
        if new.sum() < LEAST_STARS or np.array_equal(new, keep):
            break
        keep = new
    middle, right, up = (float(value) for value in solution)
    return PsfModel(
        (middle, right, up),
        image.shape,
        int(keep.sum()),
        1.4826 * float(np.median(np.abs(rest[keep]))),
        float(np.median(elongation[keep])),
    )

"""How wide point sources are, place by place: a smooth map, measured from an image's stars."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.detection.measure import Noise, fit_sources, moments
from broker.imaging.image import Image
from broker.imaging.kernels import F32, F64, Bools
from broker.imaging.psf import FWHM_PER_SIGMA
from broker.imaging.subtract import polynomials

STEP = 0.004
"""Sources whose PSFs differ by less than this share are measured with one width: a PSF flux is
wrong by the share that its width is."""

_LEAST_STARS = 4
_STARS_A_TERM = 3
_ROUNDS = 6
_CLIP_SIGMAS = 3.0
_FLOOR = 0.004
_RANGE = 1.7
_PIXEL_VARIANCE = 1.0 / 12.0
_TERMS = (1, 3, 6)
"""Terms of the polynomials of degree 0, 1 and 2."""


@dataclass(frozen=True)
class WidthMap:
    """A round Gaussian's width over an image, a polynomial of at most second degree.

    Parameters
    ----------
    terms : NDArray[np.float64], shape (6,)
        Of 1, x, y, x², xy, y² in coordinates from -1 to 1. [pixel]
    shape : (int, int)
        Of the image: (ny, nx).
    limits : (float, float)
        No place is narrower or wider. [pixel]
    n_stars : int
        Stars it was fitted to; 0 if it is a constant that was given.
    scatter : float
        1-sigma scatter of a star about the map. [pixel]
    """

    terms: F64
    shape: tuple[int, int]
    limits: tuple[float, float]
    n_stars: int = 0
    scatter: float = 0.0

    def at(self, x: Any, y: Any) -> F64:
        """Return the width at places, of their shape. [pixel]"""
        powers = polynomials(np.asarray(x, float), np.asarray(y, float), self.shape)
        return np.clip(np.einsum("p,p...->...", self.terms, powers), *self.limits)

    @property
    def grid(self) -> F64:
        """The width at 5 x 5 places spread over the image. [pixel]"""
        return self.at(*grid_places(self.shape))

    @property
    def typical(self) -> float:
        """Root mean square of the width over the image. [pixel]"""
        return float(np.sqrt(np.mean(np.square(self.grid))))

    @property
    def spread(self) -> float:
        """Largest over smallest width on the image, less 1."""
        return float(self.grid.max() / self.grid.min() - 1.0)

    def broadened(self, sigma: float) -> "WidthMap":
        """Return the widths after a convolution with a Gaussian: nearly a polynomial as well."""
        if sigma == 0.0:
            return self
        x, y = grid_places(self.shape)
        square = np.square(self.at(x, y)) + sigma**2
        powers = polynomials(x.ravel(), y.ravel(), self.shape).T
        terms = np.linalg.lstsq(powers, np.sqrt(square).ravel(), rcond=None)[0]
        low, high = (float(np.hypot(limit, sigma)) for limit in self.limits)
        return replace(self, terms=np.asarray(terms, np.float64), limits=(low, high))

    def groups(self, x: Any, y: Any) -> Iterator[tuple[float, NDArray[np.intp]]]:
        """Yield widths [pixel] and the places that have them, to within `STEP`."""
        steps = np.rint(np.log(self.at(x, y)) / STEP).astype(np.int64)
        for step in np.unique(steps):
            yield float(np.exp(step * STEP)), np.flatnonzero(steps == step)


def by_width(
    widths: WidthMap, x: Any, y: Any, measure: Callable[[float, Any], Sequence[Any]]
) -> list[Any]:
    """Measure sources group by group, each with the width that the PSF has there.

    Parameters
    ----------
    widths : WidthMap
    x, y : array_like, shape (n_sources,)
    measure : callable
        Gets a width and the indices of the sources that have it, and returns arrays of their
        number; it is called once with no source if there is none.

    Returns
    -------
    list of NDArray, shape (n_sources,) each
        Put together again, in the order of the sources.
    """
    places = np.asarray(x)
    groups = list(widths.groups(places, y)) or [(widths.typical, np.arange(0))]
    parts = [measure(width, members) for width, members in groups]
    back = np.argsort(np.concatenate([members for _, members in groups]))
    return [np.concatenate(columns)[back] for columns in zip(*parts, strict=True)]


def grid_places(shape: tuple[int, int]) -> tuple[F64, F64]:
    """Return x and y of 5 x 5 places spread evenly over an image, shape (5, 5). [pixel]"""
    ny, nx = shape
    part = (np.arange(5) + 0.5) / 5.0
    x, y = np.meshgrid(part * nx - 0.5, part * ny - 0.5)
    return x, y


def constant_width(sigma: float, shape: tuple[int, int]) -> WidthMap:
    """Return the map of a PSF that is the same everywhere. `sigma` in pixels."""
    return WidthMap(np.array([sigma, 0.0, 0.0, 0.0, 0.0, 0.0]), shape, (sigma, sigma))


def measure_widths(
    image: Image, x: NDArray[Any], y: NDArray[Any], *, unusable: Bools, variance: F32 | None = None
) -> WidthMap:
    """Fit the map to stars.

    Parameters
    ----------
    image : Image
        Without its sky; the width of its PSF is the first guess.
    x, y : NDArray of int, shape (n_stars,)
        Isolated stars; galaxies among them are found by their width and left out.
    unusable : NDArray[np.bool_], shape (ny, nx)
    variance : NDArray[np.float32], shape (ny, nx), optional
        If not that of the image.

    Returns
    -------
    WidthMap
        Constant, of the image's PSF, with fewer than four stars.

    Notes
    -----
    A star's width is that of its Gaussian-weighted second moments, with the weight's share taken
    out (Bernstein & Jarvis 2002, AJ 123 583, section 3). The degree is that of the least Bayesian
    information criterion.
    """
    guess = image.psf.sigma
    plane = image.variance if variance is None else variance
    for _ in range(2):
        places, widths, error = _widths(image, plane, x, y, guess, unusable)
        if widths.size < _LEAST_STARS:
            return constant_width(image.psf.sigma, image.shape)
        guess = float(np.median(widths))
    mode = _mode(widths)
    keep = np.abs(widths - mode) < mode * (0.1 + _CLIP_SIGMAS * error)
    best = constant_width(image.psf.sigma, image.shape)
    for _ in range(_ROUNDS):
        if keep.sum() < _LEAST_STARS:
            break
        best, rest = _fit(places, widths, error * mode, keep, image.shape)
        new = np.abs(rest) < _CLIP_SIGMAS * np.maximum(error * mode, best.scatter)
        if np.array_equal(new, keep):
            break
        keep = new
    if not 1.0 / _RANGE < best.typical / image.psf.sigma < _RANGE:
        return constant_width(image.psf.sigma, image.shape)
    return best


def _widths(
    image: Image, variance: F32, x: NDArray[Any], y: NDArray[Any], sigma: float, unusable: Bools
) -> tuple[F64, F64, F64]:
    """Return places, shape (2, n), widths and their relative errors of what could be measured."""
    floor = float(np.median(variance[::8, ::8]))
    fits = fit_sources(
        image.pixels,
        variance,
        x,
        y,
        psf_sigma=sigma,
        noise=Noise(image.gain, floor if floor > 0.0 else 1e-30),
        unusable=unusable,
    )
    weight = float(np.sqrt(sigma**2 + _PIXEL_VARIANCE))
    fwhm, _ = moments(
        image.pixels, fits.x, fits.y, np.sign(fits.flux), psf_sigma=weight, unusable=unusable
    )
    square = np.square(fwhm / FWHM_PER_SIGMA) - _PIXEL_VARIANCE
    good = np.isfinite(square) & (square > 0.1) & ~fits.failed & (fits.flux > 0.0)
    snr = fits.flux[good] / fits.flux_err[good]
    places = np.stack([fits.x[good], fits.y[good]])
    return places, np.sqrt(square[good]), np.hypot(1.0 / np.maximum(snr, 1.0), _FLOOR)


def _mode(values: F64) -> float:
    """Return the middle of the densest part of values: halved again and again."""
    sample = np.sort(values)
    while sample.size > 3:
        half = (sample.size + 1) // 2
        start = int(np.argmin(sample[half - 1 :] - sample[: sample.size - half + 1]))
        sample = sample[start : start + half]
    return float(np.mean(sample))


def _fit(
    places: F64, widths: F64, error: F64, keep: Bools, shape: tuple[int, int]
) -> tuple[WidthMap, F64]:
    design = polynomials(places[0], places[1], shape).T
    best: tuple[float, F64] = (np.inf, np.zeros(6))
    n = int(keep.sum())
    for n_terms in _TERMS:
        if n < _STARS_A_TERM * n_terms:
            break
        rows = design[keep, :n_terms] / error[keep, None]
        found = np.linalg.lstsq(rows, widths[keep] / error[keep], rcond=None)[0]
        chi2 = float(np.sum((widths[keep] / error[keep] - rows @ found) ** 2))
        criterion = chi2 + n_terms * np.log(n)
        if criterion < best[0]:
            best = (criterion, np.append(found, np.zeros(6 - n_terms)))
    rest = widths - design @ best[1]
    scatter = 1.4826 * float(np.median(np.abs(rest[keep])))
    reach = widths[keep].max() - widths[keep].min()
    limits = (
        max(0.5 * float(widths[keep].min()), float(widths[keep].min() - 0.5 * reach)),
        float(widths[keep].max() + 0.5 * reach),
    )
    return WidthMap(best[1], shape, limits, n, scatter), rest

"""Difference of two images whose seeing differs: the Alard-Lupton method.

A kernel, a sum of Gaussians times polynomials whose coefficients vary over the image, is fitted
so that the sharper image, convolved, equals the other (Alard & Lupton 1998, ApJ 503 325; Alard
2000, A&AS 144 363). The kernel's sum is the ratio of the flux scales and the same everywhere. Of
several orders and bases, the one with the least Akaike information criterion is taken: few stars,
or a PSF that does not vary, must not buy noise with freedom. (The Bayesian criterion keeps to first
order where the second leaves fewer false detections at the corners.)
"""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.errors import AlertError
from broker.imaging.kernels import F32, RUN_PX, Bools, convolve_squares, convolve_varying

F64 = NDArray[np.float64]

STAMP_HALF = 9
REJECT_CHI2 = 2.5
"""A star whose chi-square per pixel is this many times the median's is left out."""

REJECT_SIGMAS = 3.0
"""So is one whose flux changed by this many sigma against the median star's: a variable."""

LEAST_CHANGE = 0.003
"""Relative change of flux that is no change: what flat fields and interpolation do to a star."""

_MAX_ORDER = 2
_ROUNDS = 8
_LEAST_STARS = 3
_PIXELS_A_COLUMN = 60
_DIRECT_TAPS = 13
"""Up to this many, the whole kernel at once is faster than filter by filter."""
_RADII = (4, 6, 8, 10, 13, 20, 30)
_WIDEST_FITTED = 13
_CONDITION = 1e-9
_LEAST_SIGMA = 0.7
_WIDE = 1.7


@dataclass(frozen=True)
class Basis:
    """The terms that a kernel is made of; term t is the product of one filter along each axis.

    Parameters
    ----------
    filters : NDArray[np.float64], shape (n_filters, 2 radius + 1)
        One-dimensional filters.
    along_y, along_x : tuple of int, length n_terms
        Which filter each term has along each axis. Term 0 sums to 1.
    level : tuple of int, length n_terms
        The term belongs to the bases of this level and above.
    """

    filters: F64
    along_y: tuple[int, ...]
    along_x: tuple[int, ...]
    level: tuple[int, ...]

    @property
    def radius(self) -> int:
        """Half width of the kernel. [pixel]"""
        return int(self.filters.shape[1] // 2)

    @property
    def sums(self) -> F64:
        """Sum of each term, shape (n_terms,)."""
        one = self.filters.sum(axis=1)
        return one[list(self.along_y)] * one[list(self.along_x)]


def _round_up(reach: float) -> int:
    """Return a kernel's radius, one of few: each is compiled for itself."""
    return next((radius for radius in _RADII if radius >= reach), _RADII[-1])


def make_basis(broadening: float) -> Basis:
    """Return a basis for a kernel of a given width.

    Parameters
    ----------
    broadening : float
        Width of the Gaussian that turns the one PSF into the other. [pixel]
    """
    main = max(_LEAST_SIGMA, broadening)
    radius = _round_up(min(3.5 * main, _WIDEST_FITTED))
    u = np.arange(-radius, radius + 1, dtype=np.float64)
    filters: list[F64] = []
    along_y: list[int] = []
    along_x: list[int] = []
    level: list[int] = []
    # The Gaussian that would do if both PSFs were Gaussians carries the flux; the others, made to
    # sum to 0, correct its shape.
    for number, sigma in enumerate((main, _WIDE * main)):
        first = len(filters)
        gauss = np.exp(-0.5 * (u / sigma) ** 2)
        filters += [(u / sigma) ** p * gauss / gauss.sum() for p in range(3)]
        for p, q in product(range(3), repeat=2):
            if p + q <= 2:
                along_y.append(first + p)
                along_x.append(first + q)
                level.append(number)
    along_y.append(len(filters))
    along_x.append(len(filters))
    level.append(0)
    filters.append(np.where(u == 0.0, 1.0, 0.0))
    return Basis(np.array(filters), tuple(along_y), tuple(along_x), tuple(level))


@dataclass(frozen=True)
class Kernel:
    """A matching kernel that varies over the image, and a differential background.

    Parameters
    ----------
    basis : Basis
    terms : NDArray[np.float64], shape (n_terms, 6)
        Polynomial of each term: 1, x, y, x², xy, y² in coordinates from -1 to 1.
    background : NDArray[np.float64], shape (3,)
        Polynomial 1, x, y of target minus convolved source.
    shape : (int, int)
        Of the image: (ny, nx).
    scale : float
        Its sum: counts of the target for one count of the source.
    scale_err : float
        1-sigma error of `scale`.
    n_stars : int
        Stars that it was fitted to.
    chi2 : float
        Chi-square per pixel of the fit.
    order : int
        Degree of the spatial variation that was chosen.
    """

    basis: Basis
    terms: F64
    background: F64
    shape: tuple[int, int]
    scale: float
    scale_err: float
    n_stars: int
    chi2: float
    order: int

    def convolve(self, image: F32, *, margin: int = 0) -> F32:
        """Return an image convolved with the kernel, without the differential background.

        Parameters
        ----------
        image : NDArray[np.float32], shape (ny + 2 margin, nx + 2 margin)
            Beyond it there is no light.
        margin : int
            How far the image reaches beyond the result on all sides. [pixel]
        """
        filters = self.basis.filters
        n_taps = filters.shape[1]
        used = {b for t, b in enumerate(self.basis.along_y) if np.any(self.terms[t])}
        if n_taps <= _DIRECT_TAPS and len(used) > 1:
            turned = np.ascontiguousarray(self._squares()[:, :, ::-1, ::-1], np.float32)
            return convolve_squares(np.ascontiguousarray(image), turned, (0,) * n_taps, margin)
        values = self._values(margin)
        downs, taps = [], []
        for b in sorted(used):
            mine = [t for t, k in enumerate(self.basis.along_y) if k == b]
            along_x = filters[[self.basis.along_x[t] for t in mine]]
            downs.append(filters[b])
            taps.append(np.einsum("tyx,tu->yxu", values[mine], along_x))
        along_y, along_x = np.array(downs, np.float32), np.array(taps, np.float32)
        out = convolve_varying(np.ascontiguousarray(image), along_y, along_x, (0,) * n_taps)
        ny, nx = self.shape
        return np.ascontiguousarray(out[margin : margin + ny, margin : margin + nx])

    def _values(self, margin: int) -> F64:
        """Return the terms in each square of `RUN_PX`, from the margin on."""
        ny, nx = self.shape
        y, x = (np.arange(0, n + 2 * margin, RUN_PX) + RUN_PX / 2.0 - margin for n in (ny, nx))
        xx, yy = np.meshgrid(x, y)
        return np.einsum("tp,pyx->tyx", self.terms, polynomials(xx, yy, self.shape))

    def _squares(self) -> F64:
        """Return the kernel in each square of `RUN_PX`."""
        downs = self.basis.filters[list(self.basis.along_y), :, None]
        rights = self.basis.filters[list(self.basis.along_x), None, :]
        return np.asarray(np.tensordot(self._values(0), downs * rights, (0, 0)), np.float64)

    def at(self, x: float, y: float) -> F64:
        """Return the kernel at a place as an image, shape (2 radius + 1, 2 radius + 1)."""
        values = self.terms @ polynomials(np.array(x), np.array(y), self.shape)
        filters = self.basis.filters
        downs, rights = filters[list(self.basis.along_y)], filters[list(self.basis.along_x)]
        return np.asarray(np.einsum("t,ty,tx->yx", values, downs, rights), np.float64)

    def background_lines(self) -> tuple[F32, F32]:
        """Return what the differential background is the sum of: along y and along x."""
        ny, nx = self.shape
        x, y = ((2.0 * np.arange(n) + 1.0) / n - 1.0 for n in (nx, ny))
        a, b, c = self.background
        return (a + c * y).astype(np.float32), (b * x).astype(np.float32)

    def background_plane(self) -> F32:
        """Return the differential background, shape (ny, nx)."""
        along_y, along_x = self.background_lines()
        return along_y[:, None] + along_x

    def second_moment(self) -> float:
        """Return the kernel's mean second moment along an axis, at the image's centre. [pixel²]"""
        u = np.arange(-self.basis.radius, self.basis.radius + 1, dtype=np.float64)
        zero, two = self.basis.filters.sum(axis=1), (self.basis.filters * u**2).sum(axis=1)
        y, x = list(self.basis.along_y), list(self.basis.along_x)
        moments = 0.5 * (two[y] * zero[x] + zero[y] * two[x])
        return float(moments @ self.terms[:, 0] / self.scale)


def polynomials(x: F64, y: F64, shape: tuple[int, int]) -> F64:
    """Return 1, x, y, x², xy, y² with x and y from -1 to 1 over the image, on a new first axis."""
    ny, nx = shape
    u, v = (2.0 * x + 1.0) / nx - 1.0, (2.0 * y + 1.0) / ny - 1.0
    return np.stack([np.ones_like(u), u, v, u * u, u * v, v * v])


_DEGREE = np.array([0, 1, 1, 2, 2, 2])


def fit_kernel(
    source: F32, target: F32, variance: F32, x: NDArray[Any], y: NDArray[Any], broadening: float
) -> Kernel:
    """Fit the kernel that turns the source image into the target, on stamps of stars.

    Parameters
    ----------
    source, target : NDArray[np.float32], shape (ny, nx)
        The sharper image and the other, background-subtracted, on the same pixels.
    variance : NDArray[np.float32], shape (ny, nx) or (n_stars, 19, 19)
        Of target minus convolved source, from a model: a plane, or the stamps of the stars.
    x, y : NDArray of int, shape (n_stars,)
        Pixels of the stars, at least the stamp and the kernel away from the border.
    broadening : float
        Expected width of the kernel. [pixel]

    Raises
    ------
    AlertError
        If there is no star, or no kernel with a positive sum fits.
    """
    if len(x) == 0:
        raise AlertError("the image has no star to match the template to")
    basis = make_basis(broadening)
    design = _design(source, basis, x, y, (source.shape[0], source.shape[1]))
    stamps = cut_stamps(target, x, y, STAMP_HALF).reshape(len(x), -1).astype(np.float64)
    noise = variance if variance.ndim == 3 else cut_stamps(variance, x, y, STAMP_HALF)
    weight = 1.0 / np.sqrt(noise.reshape(len(x), -1))
    design *= weight[:, None, :]
    stamps *= weight
    # Per star, so that leaving one out costs nothing.
    normal = design @ np.swapaxes(design, 1, 2)
    right = (design @ stamps[:, :, None])[:, :, 0]
    power = np.sum(stamps**2, axis=1)
    keep = np.ones(len(x), bool)
    for _ in range(_ROUNDS):
        n_pixels = int(keep.sum()) * stamps.shape[1]
        sums = normal[keep].sum(axis=0), right[keep].sum(axis=0)
        best = _choose(*sums, float(power[keep].sum()), n_pixels, basis)
        good, chi2 = _constant(design, stamps, best[1])
        if good.sum() < _LEAST_STARS or np.array_equal(good, keep):
            break
        keep = good
    return _kernel(best, basis, source.shape, int(keep.sum()), float(np.mean(chi2[keep])))


def _constant(design: F64, stamps: F64, solution: F64) -> tuple[Bools, F64]:
    """Return which stars fit and did not vary, and the chi-square per pixel of each."""
    background, model = solution[-3:] @ design[:, -3:], solution[:-3] @ design[:, :-3]
    rest = stamps - background - model
    chi2 = np.mean(rest**2, axis=1)
    power = np.maximum(np.sum(model**2, axis=1), 1e-30)
    change = np.sum(rest * model, axis=1) / power
    # The median star is constant, even if the variables have pulled the fit.
    change -= np.median(change)
    tolerance = REJECT_SIGMAS * np.sqrt(1.0 / power + LEAST_CHANGE**2)
    good = (np.abs(change) <= tolerance) & (chi2 <= REJECT_CHI2 * float(np.median(chi2)))
    return np.asarray(good, bool), np.asarray(chi2, np.float64)


def cut_stamps(image: F32, x: NDArray[Any], y: NDArray[Any], half: int) -> F32:
    """Return squares of 2 half + 1 pixels around pixels well inside an image."""
    return np.stack(
        [image[j - half : j + half + 1, i - half : i + half + 1] for i, j in zip(x, y, strict=True)]
    )


def _columns(basis: Basis) -> NDArray[np.int64]:
    """Return (term, polynomial) of each column of the design matrix but the background's."""
    varying = [(t, p) for t in range(1, len(basis.along_y)) for p in range(6)]
    return np.array([(0, 0), *varying])


def _design(
    source: F32, basis: Basis, x: NDArray[Any], y: NDArray[Any], shape: tuple[int, int]
) -> F64:
    """Return the design matrix, shape (n_stars, n_columns, n_pixels)."""
    side = 2 * STAMP_HALF + 1
    patches = cut_stamps(source, x, y, STAMP_HALF + basis.radius).astype(np.float64)
    n_taps = basis.filters.shape[1]
    bands = np.zeros((len(basis.filters), side, side + n_taps - 1))
    for row in range(side):
        bands[:, row, row : row + n_taps] = basis.filters[:, ::-1]
    columns = [bands[k] @ patches for k in range(len(bands))]
    terms = np.stack(
        [columns[a] @ bands[b].T for a, b in zip(basis.along_y, basis.along_x, strict=True)], axis=1
    )
    terms[:, 1:] -= basis.sums[None, 1:, None, None] * terms[:, :1]
    offset = np.arange(-STAMP_HALF, STAMP_HALF + 1)
    yy = np.asarray(y)[:, None, None] + offset[None, :, None] + np.zeros((1, 1, side))
    xx = np.asarray(x)[:, None, None] + offset[None, None, :] + np.zeros((1, side, 1))
    poly = polynomials(xx.astype(np.float64), yy.astype(np.float64), shape)
    index = _columns(basis)
    design = np.empty((len(patches), len(index) + 3, side, side))
    for column, (t, p) in enumerate(index):
        np.multiply(terms[:, t], poly[p], out=design[:, column])
    design[:, -3:] = np.swapaxes(poly[:3], 0, 1)
    return design.reshape(len(patches), len(index) + 3, side * side)


def _choose(
    normal: F64, right: F64, power: float, n_pixels: int, basis: Basis
) -> tuple[float, F64, F64, int]:
    """Return criterion, coefficients, their variances and order of the best of all fits."""
    index = _columns(basis)
    level, degree = np.array(basis.level)[index[:, 0]], _DEGREE[index[:, 1]]
    fits = []
    for order, top in product(range(_MAX_ORDER + 1), range(2)):
        used = np.append((level <= top) & (degree <= order), [True, True, True])
        if used.sum() * _PIXELS_A_COLUMN <= n_pixels:
            fits.append(_fit(normal, right, power, used, order))
    if not fits:
        used = np.zeros(right.size, bool)
        used[[0, -3]] = True
        fits.append(_fit(normal, right, power, used, 0))
    return min(fits, key=lambda fit: fit[0])


def _fit(
    normal: F64, right: F64, power: float, used: Bools, order: int
) -> tuple[float, F64, F64, int]:
    solution, errors = _solve(normal[np.ix_(used, used)], right[used])
    chi2 = power - float(solution @ right[used])
    full, variances = np.zeros(used.size), np.zeros(used.size)
    full[used], variances[used] = solution, errors
    return chi2 + 2.0 * float(used.sum()), full, variances, order


def _solve(normal: F64, right: F64) -> tuple[F64, F64]:
    """Return the solution and its variances, of a scaled normal matrix with a small ridge."""
    scale = 1.0 / np.sqrt(np.maximum(np.diag(normal), 1e-30))
    scaled = normal * scale[:, None] * scale[None, :]
    scaled[np.diag_indices_from(scaled)] += _CONDITION
    inverse = np.linalg.inv(scaled)
    return inverse @ (right * scale) * scale, np.diag(inverse) * scale**2


def _kernel(
    best: tuple[float, F64, F64, int], basis: Basis, shape: Any, n_stars: int, chi2: float
) -> Kernel:
    _, solution, variances, order = best
    scale = float(solution[0])
    if not (np.isfinite(solution).all() and scale > 0.0):
        raise AlertError(f"the template cannot be matched: the kernel's sum is {scale:.3g}")
    terms = np.zeros((len(basis.along_y), 6))
    for (t, p), value in zip(_columns(basis), solution, strict=False):
        terms[t, p] = value
    terms[0] -= basis.sums[1:] @ terms[1:]
    return Kernel(
        basis,
        terms,
        solution[-3:],
        (int(shape[0]), int(shape[1])),
        scale,
        float(np.sqrt(variances[0])),
        n_stars,
        chi2,
        order,
    )


def gaussian_kernel(broadening: float, shape: tuple[int, int]) -> Kernel:
    """Return the kernel of a given width and sum 1: for an image with too few stars for a fit."""
    sigma = max(broadening, 0.05)
    radius = _round_up(4.0 * sigma)
    u = np.arange(-radius, radius + 1, dtype=np.float64)
    filters = np.exp(-0.5 * (u / sigma) ** 2)[None]
    terms = np.zeros((1, 6))
    terms[0, 0] = 1.0
    basis = Basis(filters / filters.sum(), (0,), (0,), (0,))
    return Kernel(basis, terms, np.zeros(3), shape, 1.0, float("inf"), 0, float("nan"), 0)

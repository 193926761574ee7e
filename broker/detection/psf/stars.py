"""The PSF of an image as its stars show it: elliptical, with wings, changing over the image.

The profile is a sum of Gaussians of one shape and many widths, with shares that are not negative,
so it may have any core and wings (Moffat, Kolmogorov) and is analytic. Its shape, the matrix of
second moments, is a polynomial in the place. All stars are fitted at once, each with its own flux
and place; these are eliminated star by star (Schur complement), so the equations stay small.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.detection.psf.stars_loops import PIXEL, shape_sums, share_sums
from broker.detection.psf.tables import PsfTables, table_size
from broker.detection.psf.width import PsfModel, psf_stars
from broker.errors import AlertError
from broker.imaging.image import Image
from broker.imaging.kernels import F64
from broker.imaging.mask import UNUSABLE

LEAST_STARS = 5
WIDTHS = (0.6, 0.8, 1.0, 1.3, 1.7, 2.4, 3.6)
"""Widths of the Gaussians over that of the round one that fits best."""

_ROUNDS = 8
_WINDOW_SIGMAS = 6.5
_WORST = 3.0
_NODES = 5
_SETTLED = 3e-4


@dataclass(frozen=True)
class StarPsf:
    """A PSF as a sum of elliptical Gaussians.

    Parameters
    ----------
    widths, shares : tuple of float
        Of each Gaussian: its width over that of the shape, its share of the light.
    shape_terms : NDArray[np.float64], shape (n_terms, 3)
        Second moments xx, xy, yy as polynomials 1, u, v, u², uv, v² of the place, from -1 at the
        first to 1 at the last border; 1, 3 or 6 terms. [pixel²]
    image_shape : (int, int)
        (ny, nx).
    sigma : float
        Width of the round Gaussian that is most like it, at the centre. [pixel]
    n_stars : int
    chi2 : float
        Median over the stars, per degree of freedom.
    """

    widths: tuple[float, ...]
    shares: tuple[float, ...]
    shape_terms: F64
    image_shape: tuple[int, int]
    sigma: float
    n_stars: int
    chi2: float

    def moments_at(self, x: Any, y: Any) -> F64:
        """Return the shape's xx, xy and yy at places, shape (n_places, 3). [pixel²]"""
        phi = _terms(np.atleast_1d(x), np.atleast_1d(y), self.image_shape, len(self.shape_terms))
        return np.asarray(phi @ self.shape_terms)

    def gaussians_at(self, x: float, y: float) -> F64:
        """Return share, xx, xy and yy of each Gaussian at a place, shape (n_gaussians, 4)."""
        square = np.square(self.widths)[:, None] * self.moments_at(x, y)
        return np.column_stack([self.shares, square])

    @property
    def elongation(self) -> float:
        """Ratio of the axes at the centre."""
        xx, xy, yy = self.shape_terms[0]
        mean, gap = 0.5 * (xx + yy), float(np.hypot(0.5 * (xx - yy), xy))
        return float(np.sqrt((mean + gap) / (mean - gap)))

    def light_within(self, radius: float, x: float, y: float) -> float:
        """Return the share of the light within a circle about a source. [pixel]"""
        angle = (np.arange(64) + 0.5) * np.pi / 64.0
        total = 0.0
        for share, xx, xy, yy in self.gaussians_at(x, y):
            xx, yy = xx + PIXEL, yy + PIXEL
            det = xx * yy - xy * xy
            cos, sin = np.cos(angle), np.sin(angle)
            inverse = (yy * cos**2 - 2.0 * xy * cos * sin + xx * sin**2) / det
            # ∫ r dr of the Gaussian along each direction, in closed form.
            part = (1.0 - np.exp(-0.5 * radius**2 * inverse)) / inverse
            total += share * float(np.mean(part)) / np.sqrt(det)
        return total

    def tables(self) -> PsfTables:
        """Return the PSF as tables, 5 × 5 over the image if it varies."""
        over, half, side = table_size(self.sigma)
        ny, nx = self.image_shape
        nodes = 1 if len(self.shape_terms) == 1 else _NODES
        at_x, at_y = np.linspace(0, nx - 1, nodes), np.linspace(0, ny - 1, nodes)
        if nodes == 1:
            at_x, at_y = np.array([(nx - 1) / 2.0]), np.array([(ny - 1) / 2.0])
        offset = (np.arange(side) - side // 2) / over
        values = np.empty((nodes, nodes, side, side), np.float32)
        for j in range(nodes):
            for i in range(nodes):
                table = np.zeros((side, side))
                for share, xx, xy, yy in self.gaussians_at(at_x[i], at_y[j]):
                    table += share * _gaussian(offset, xx + PIXEL, xy, yy + PIXEL)
                values[j, i] = table
        return PsfTables(values, over, half, self.image_shape, self.sigma)


def _gaussian(offset: F64, xx: float, xy: float, yy: float) -> F64:
    det = xx * yy - xy * xy
    x, y = offset[None, :], offset[:, None]
    square = (yy * x * x - 2.0 * xy * x * y + xx * y * y) / det
    return np.asarray(np.exp(-0.5 * square) / (2.0 * np.pi * np.sqrt(det)))


def _terms(x: F64, y: F64, shape: tuple[int, int], n: int) -> F64:
    u, v = (2.0 * x + 1.0) / shape[1] - 1.0, (2.0 * y + 1.0) / shape[0] - 1.0
    return np.column_stack([np.ones(u.size), u, v, u * u, u * v, v * v][:n])


@dataclass
class _Stars:
    """Stars while they are fitted: arrays of shape (n_stars,) and (n_stars, n_pixels)."""

    x: F64
    y: F64
    flux: F64
    phi: F64
    at_x: F64
    at_y: F64
    data: F64
    variance: F64
    usable: NDArray[np.bool_]

    def keep(self, rows: Any) -> "_Stars":
        return _Stars(*(value[rows] for value in vars(self).values()))


def measure_psf(image: Image, model: PsfModel) -> StarPsf:
    """Fit the profile and the shape of the PSF to an image's stars.

    Parameters
    ----------
    image : Image
        Background-subtracted, with the variance of sky and reading.
    model : PsfModel
        The round Gaussian of `fit_psf`.

    Raises
    ------
    AlertError
        If fewer than five stars are left.

    Notes
    -----
    Sums of Gaussians for PSFs: Hogg & Lang 2013, PASP 125 719.
    """
    stars = _cut_out(image, model)
    sigma = model.psf.sigma
    widths = np.array(WIDTHS)
    shares = np.where(widths == 1.0, 1.0, 0.0)
    terms = np.zeros((stars.phi.shape[1], 3))
    terms[0] = sigma**2, 0.0, sigma**2
    worth = np.ones(stars.x.size)
    for turn in range(_ROUNDS):
        before = terms
        step, worth = _shape_step(stars, widths, shares, terms, image.gain)
        terms = _positive(terms, step)
        shares = _new_shares(stars, widths, shares, terms, image.gain)
        if turn in (3, 5):
            good = worth < _WORST * max(float(np.median(worth)), 1.0)
            stars, worth = stars.keep(good), worth[good]
            if good.sum() < LEAST_STARS:
                raise AlertError(f"{good.sum()} stars have one profile; {LEAST_STARS} are needed")
        elif turn > 5 and np.abs(terms - before).max() < _SETTLED * sigma**2:
            break
    used = shares > 0.0
    return StarPsf(
        tuple(widths[used].tolist()), tuple(shares[used].tolist()), terms, image.shape, sigma,
        int(stars.x.size), float(np.median(worth)),
    )  # fmt: skip


def _cut_out(image: Image, model: PsfModel) -> _Stars:
    """Return the stars' pixels, without those that are nearer to another source."""
    x, y, flux, others = psf_stars(image, model)
    sigma = model.psf.sigma
    half = int(np.ceil(_WINDOW_SIGMAS * sigma))
    ny, nx = image.shape
    cx, cy = np.rint(x).astype(np.int64), np.rint(y).astype(np.int64)
    whole = (cx >= half) & (cx < nx - half) & (cy >= half) & (cy < ny - half)
    x, y, flux, cx, cy = x[whole], y[whole], flux[whole], cx[whole], cy[whole]
    if x.size < LEAST_STARS:
        raise AlertError(f"{x.size} stars lie wholly on the image; {LEAST_STARS} are needed")
    offset = np.arange(-half, half + 1)
    dj, di = (g.ravel() for g in np.meshgrid(offset, offset, indexing="ij"))
    rows, columns = cy[:, None] + dj, cx[:, None] + di
    usable = ~image.is_masked(UNUSABLE)[rows, columns]
    usable &= di**2 + dj**2 <= half**2
    usable &= ~_near_others(rows, columns, x, y, others, sigma)
    n_terms = 6 if x.size >= 60 else 3 if x.size >= 20 else 1
    return _Stars(
        x, y, flux, _terms(x, y, image.shape, n_terms), columns.astype(float), rows.astype(float),
        image.pixels[rows, columns].astype(float), image.variance[rows, columns].astype(float),
        usable,
    )  # fmt: skip


def _near_others(
    rows: Any, columns: Any, x: F64, y: F64, others: F64, sigma: float
) -> NDArray[np.bool_]:
    from scipy.spatial import cKDTree

    out = np.zeros(rows.shape, bool)
    if len(others) == 0:
        return out
    reach = float(np.sqrt(2.0)) * (rows[0].max() - rows[0].min())
    near: Any = cKDTree(others).query_ball_point(np.column_stack([x, y]), reach)
    for k, found in enumerate(near):
        for m in found:
            ox, oy = others[m]
            if np.hypot(ox - x[k], oy - y[k]) < sigma:
                continue
            out[k] |= np.hypot(columns[k] - ox, rows[k] - oy) < 3.5 * sigma
    return out


def _sums_of(stars: _Stars, widths: F64, shares: F64, terms: F64, gain: float) -> tuple[Any, ...]:
    """Return what the sums over the stars' pixels are made of."""
    return (
        stars.data, stars.variance, stars.usable, stars.at_x, stars.at_y, stars.x, stars.y,
        stars.flux, np.ascontiguousarray(stars.phi @ terms), widths, shares, gain,
    )  # fmt: skip


def _shape_step(
    stars: _Stars, widths: F64, shares: F64, terms: F64, gain: float
) -> tuple[F64, F64]:
    """Move the stars' fluxes and places; return the step of the shape and each star's chi²."""
    used = shares > 0.0
    normal, right, chi2, count = shape_sums(
        *_sums_of(stars, widths[used], shares[used], terms, gain)
    )
    worth = chi2 / np.maximum(count - 3.0, 1.0)
    own, cross = normal[:, :3, :3] + 1e-12 * np.eye(3), normal[:, :3, 3:]
    solved = np.linalg.solve(own, np.concatenate([cross, right[:, :3, None]], axis=2))
    schur = normal[:, 3:, 3:] - cross.transpose(0, 2, 1) @ solved[:, :, :3]
    rhs = right[:, 3:] - np.einsum("nij,ni->nj", cross, solved[:, :, 3])
    # A star that fits badly, a blend or a galaxy, says little.
    trust = 1.0 / np.maximum(worth / max(float(np.median(worth)), 1.0), 1.0) ** 2
    t = stars.phi.shape[1]
    big = np.einsum("n,na,nb,nij->aibj", trust, stars.phi, stars.phi, schur).reshape(3 * t, 3 * t)
    big += 1e-9 * np.trace(big) / (3 * t) * np.eye(3 * t)
    step = np.linalg.solve(big, np.einsum("n,na,ni->ai", trust, stars.phi, rhs).ravel())
    step = step.reshape(t, 3)
    change = np.einsum("ni,nij->nj", stars.phi @ step, solved[:, :, :3].transpose(0, 2, 1))
    move = solved[:, :, 3] - change
    stars.flux = stars.flux + move[:, 0]
    stars.x = stars.x + np.clip(move[:, 1], -0.5, 0.5)
    stars.y = stars.y + np.clip(move[:, 2], -0.5, 0.5)
    return step, worth


def _positive(terms: F64, step: F64) -> F64:
    """Return the shape after a step that is made shorter where it would leave no ellipse."""
    corners = np.array([[1.0, u, v, u * u, u * v, v * v] for u in (-1, 0, 1) for v in (-1, 0, 1)])
    phi = corners[:, : len(terms)]
    least = 0.2 * terms[0, 0]
    for _ in range(8):
        xx, xy, yy = (phi @ (terms + step)).T
        if (xx > least).all() and (yy > least).all() and (xx * yy - xy * xy > least**2).all():
            return np.asarray(terms + step)
        step = 0.5 * step
    return terms


def _new_shares(stars: _Stars, widths: F64, shares: F64, terms: F64, gain: float) -> F64:
    """Return the shares that fit best and are not negative; the stars' fluxes follow."""
    from scipy.optimize import nnls

    normal, right = share_sums(*_sums_of(stars, widths, shares, terms, gain))
    root = np.linalg.cholesky(normal + 1e-10 * np.trace(normal) * np.eye(widths.size))
    found = np.asarray(nnls(root.T, np.linalg.solve(root, right))[0])
    total = float(found.sum())
    if not total > 0.0:
        return shares
    stars.flux = stars.flux * total
    return np.asarray(found / total)


def round_psf(model: PsfModel) -> StarPsf:
    """Return the round Gaussian of `fit_psf`, for an image with too few stars for more."""
    middle, right, up = model.width
    one = np.array([1.0, 0.0, 1.0])
    square = np.array(
        [middle**2, 2 * middle * right, 2 * middle * up, right**2, 2 * right * up, up**2]
    )
    terms = square[:, None] * one
    if right == up == 0.0:
        terms = terms[:1]
    return StarPsf((1.0,), (1.0,), terms, model.shape, middle, model.n_stars, 1.0)

"""What telescope and air do to light on its way to a detector: PSF, drift, clouds, vignetting."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.simulation.contract import FloatArray
from broker.simulation.faults import NO_FAULTS, Faults
from broker.simulation.kernels import add_ellipses, add_gaussians
from broker.simulation.settings import Camera

FLOOR_ELECTRONS = 0.02
"""An object is drawn out to pixels of this expectation: a thousandth of the sky's noise. [e-]"""

_TRAIL_STEP = 0.7
"""A trail is drawn as points this far apart, in sigma of the PSF: it is even to 1e-4."""

_N_DUST = 6


@dataclass(frozen=True)
class Optics:
    """The PSF over a detector, and what moves or dims the light in one exposure.

    Parameters
    ----------
    sigma : float
        Standard deviation of the PSF, its mean over the detector. [px]
    side : int
        Of the detector. [px]
    variation : float
        The PSF's sigma changes over the detector by this share of it in all.
    ellipticity : float
        Largest ellipticity (a² - b²) / (a² + b²) of the PSF on the detector.
    angle : float
        Where on the detector the PSF is worst. [rad]
    faults : Faults
    """

    sigma: float
    side: int
    variation: float = 0.0
    ellipticity: float = 0.0
    angle: float = 0.0
    faults: Faults = NO_FAULTS

    def widths(self, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the PSF's second moments xx, xy, yy at places. [px²]"""
        u, v = (np.clip(2.0 * p / max(self.side - 1, 1) - 1.0, -1.2, 1.2) for p in (x, y))
        c, s = np.cos(self.angle), np.sin(self.angle)
        slope = (u * c + v * s) / (abs(c) + abs(s))
        bowl = (u * u + v * v) / 2.0
        # From 0 to 1 over the detector, and about a half on average.
        shape = 0.3 * (1.0 + slope) + 0.4 * bowl
        square = (self.sigma * (1.0 + self.variation * (shape - 0.5))) ** 2
        # Astigmatism: it grows outwards and turns with the direction, as r² exp(2i φ).
        e1 = 0.5 * self.ellipticity * (u * u - v * v + c * c - s * s)
        e2 = 0.5 * self.ellipticity * (2.0 * u * v + 2.0 * c * s)
        return square * (1.0 + e1), square * e2, square * (1.0 - e1)

    def draw(
        self,
        image: NDArray[np.float32],
        places: tuple[FloatArray, FloatArray],
        electrons: FloatArray,
        shape: tuple[FloatArray, FloatArray, FloatArray] | None = None,
        trail: tuple[FloatArray, FloatArray] | None = None,
    ) -> None:
        """Add objects to an image, in place.

        Parameters
        ----------
        image : NDArray[np.float32], shape (ny, nx)
            [e-]
        places : (x, y), shape (n,) each
            [px]
        electrons : NDArray[np.float64], shape (n,)
            Total of each; may be negative.
        shape : (xx, xy, yy), shape (n,) each, optional
            Second moments of the objects before the PSF; without them they are points. [px²]
        trail : (dx, dy), shape (n,) each, optional
            How far each moves during the exposure, whose middle it is at `places` in. [px]
        """
        x, y = places
        drift = self.faults.drift
        dx, dy = (
            np.full(x.size, d) + (0.0 if trail is None else trail[k]) for k, d in enumerate(drift)
        )
        n = int(np.ceil(np.hypot(dx, dy).max(initial=0.0) / (_TRAIL_STEP * self.sigma)))
        for part in (np.arange(n) + 0.5) / n - 0.5 if n > 1 else (0.0,):
            place = (x + part * dx, y + part * dy)
            self._draw_still(image, place, electrons / max(n, 1), shape)

    def _draw_still(
        self,
        image: NDArray[np.float32],
        places: tuple[FloatArray, FloatArray],
        electrons: FloatArray,
        shape: tuple[FloatArray, FloatArray, FloatArray] | None,
    ) -> None:
        x, y = places
        xx, xy, yy = self.widths(x, y)
        if shape is not None:
            xx, xy, yy = xx + shape[0], xy + shape[1], yy + shape[2]
        if not xy.any():
            root = np.sqrt(xx), np.sqrt(yy)
            add_gaussians(image, x, y, electrons, *root, FLOOR_ELECTRONS)
            return
        straight = xy == 0.0
        turned = ~straight
        add_gaussians(
            image,
            x[straight],
            y[straight],
            electrons[straight],
            np.sqrt(xx[straight]),
            np.sqrt(yy[straight]),
            FLOOR_ELECTRONS,
        )
        moments = (m[turned] for m in (xx, xy, yy))
        add_ellipses(image, x[turned], y[turned], electrons[turned], *moments, FLOOR_ELECTRONS)


def make_optics(
    sigma: float, side: int, camera: Camera, angle: float, faults: Faults = NO_FAULTS
) -> Optics:
    """Return the optics of one exposure of a camera."""
    return Optics(
        sigma,
        side,
        camera.psf_variation,
        camera.psf_ellipticity,
        angle if _turns(camera) else 0.0,
        faults,
    )


def _turns(camera: Camera) -> bool:
    return camera.psf_variation > 0.0 or camera.psf_ellipticity > 0.0


def transparency(faults: Faults, side: int) -> NDArray[np.float32]:
    """Return the share of objects' light that clouds let through, one number a column."""
    across = (np.arange(side) + 0.5) / side - 0.5
    mag = faults.clouds_mag * (1.0 + faults.cloud_slope * across)
    return np.power(10.0, -0.4 * mag).astype(np.float32)


def uneven(rng: np.random.Generator, side: int, *, vignetting: float, dust: float) -> Any:
    """Return how evenly a detector is lit: 1 in the median, less at the corners and under dust.

    Parameters
    ----------
    rng : Generator
    side : int
        Of the detector. [px]
    vignetting : float
        Light that is lost in the corner that is farthest from the axis, as a share.
    dust : float
        Light that is lost in the shadow of a grain: rings, since they are out of focus.

    Returns
    -------
    NDArray[np.float32], shape (side, side)
    """
    axis = (rng.uniform(-0.5, 0.5, 2) + 0.5) * side
    grains = rng.uniform(0.0, side, (_N_DUST, 2))
    radii = rng.uniform(0.02, 0.05, _N_DUST) * side
    line = np.arange(side, dtype=np.float32)
    far = max(np.hypot(axis[0] - x, axis[1] - y) for x in (0, side) for y in (0, side))
    r2 = ((line - axis[0]) ** 2 + ((line - axis[1]) ** 2)[:, None]) / far**2
    lit = 1.0 - vignetting * r2
    for (x, y), radius in zip(grains, radii, strict=True):
        r = np.sqrt((line - x) ** 2 + ((line - y) ** 2)[:, None]) / radius
        lit -= dust * np.exp(-(((r - 0.7) / 0.25) ** 2))
    return (lit / np.median(lit)).astype(np.float32)

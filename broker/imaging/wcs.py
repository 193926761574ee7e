"""World coordinates: the gnomonic (TAN) projection between pixels and the sky.

Formulae: Calabretta & Greisen 2002, A&A 395 1077, sections 2 and 5.1.3. Pixels count from 0,
their centres are at whole numbers, x along a row; a FITS header counts from 1.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from broker.errors import AlertError
from broker.units import ARCSEC_PER_DEG

FloatArray = NDArray[np.float64]
_LONPOLE = 180.0
"""North is up, also where the projection touches a pole; there the standard's default is 0."""

_SMALLEST_ARCSEC, _LARGEST_ARCSEC = 1e-3, 120.0
_FURTHEST_DEG = 60.0

Matrix = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class Wcs:
    """The map between the pixels of one image and the sky.

    Parameters
    ----------
    crval_ra, crval_dec : float
        Where the projection touches the sphere. [deg]
    crpix_x, crpix_y : float
        That point in pixels, counted from 0.
    cd : pair of pairs of float
        Rows: eastward (xi) and northward (eta) offset for a step of a pixel in x and in y. [deg]

    Raises
    ------
    AlertError
        If a number is not finite, the declination is beyond a pole, or the matrix is singular.
    """

    crval_ra: float
    crval_dec: float
    crpix_x: float
    crpix_y: float
    cd: Matrix

    def __post_init__(self) -> None:
        (a, b), (c, d) = self.cd
        numbers = (self.crval_ra, self.crval_dec, self.crpix_x, self.crpix_y, a, b, c, d)
        if not all(map(math.isfinite, numbers)):
            raise AlertError(f"the WCS has a number that is not finite: {numbers}")
        if abs(self.crval_dec) > 90.0:
            raise AlertError(f"the WCS's declination is {self.crval_dec}, beyond a pole")
        if a * d - b * c == 0.0:
            raise AlertError(f"the WCS's matrix {self.cd} is singular")

    @classmethod
    def from_scale(
        cls, ra: float, dec: float, *, scale_arcsec: float, crpix: tuple[float, float]
    ) -> "Wcs":
        """Return a WCS with north up and east to the left, `crpix` at (ra, dec)."""
        step = scale_arcsec / ARCSEC_PER_DEG
        return cls(ra, dec, crpix[0], crpix[1], ((-step, 0.0), (0.0, step)))

    @property
    def scale_arcsec(self) -> float:
        """Side of a square pixel of the same area. [arcsec]"""
        (a, b), (c, d) = self.cd
        return float(np.sqrt(abs(a * d - b * c)) * ARCSEC_PER_DEG)

    def pixel_to_sky(self, x: ArrayLike, y: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return the positions of pixels.

        Parameters
        ----------
        x, y : array_like, same shape
            Pixels, counted from 0.

        Returns
        -------
        ra, dec : NDArray[np.float64], shape of x
            ra in [0, 360). [deg]
        """
        dx = np.asarray(x, dtype=np.float64) - self.crpix_x
        dy = np.asarray(y, dtype=np.float64) - self.crpix_y
        (a, b), (c, d) = self.cd
        xi = np.radians(a * dx + b * dy)
        eta = np.radians(c * dx + d * dy)
        sin0, cos0 = np.sin(np.radians(self.crval_dec)), np.cos(np.radians(self.crval_dec))
        along = cos0 - eta * sin0
        ra = self.crval_ra + np.degrees(np.arctan2(xi, along))
        dec = np.degrees(np.arctan2(sin0 + eta * cos0, np.hypot(xi, along)))
        return _wrap(ra), dec

    def sky_to_pixel(self, ra: ArrayLike, dec: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return the pixels of positions; NaN where a position is on the other half of the sky.

        Parameters
        ----------
        ra, dec : array_like, same shape
            Positions. [deg]

        Returns
        -------
        x, y : NDArray[np.float64], shape of ra
            Pixels, counted from 0.
        """
        d_ra = np.radians(np.asarray(ra, dtype=np.float64) - self.crval_ra)
        dec = np.radians(np.asarray(dec, dtype=np.float64))
        sin0, cos0 = np.sin(np.radians(self.crval_dec)), np.cos(np.radians(self.crval_dec))
        along = sin0 * np.sin(dec) + cos0 * np.cos(dec) * np.cos(d_ra)
        along = np.where(along > 1e-9, along, np.nan)
        xi = np.degrees(np.cos(dec) * np.sin(d_ra) / along)
        eta = np.degrees((cos0 * np.sin(dec) - sin0 * np.cos(dec) * np.cos(d_ra)) / along)
        (a, b), (c, d) = self.cd
        det = a * d - b * c
        return (
            (d * xi - b * eta) / det + self.crpix_x,
            (a * eta - c * xi) / det + self.crpix_y,
        )

    def corners(self, shape: tuple[int, int]) -> tuple[FloatArray, FloatArray]:
        """Return ra, dec of the four outer corners of an image of shape (ny, nx). [deg]"""
        ny, nx = shape
        return self.pixel_to_sky(
            np.array([-0.5, nx - 0.5, nx - 0.5, -0.5]), np.array([-0.5, -0.5, ny - 0.5, ny - 0.5])
        )

    def require_image(self, shape: tuple[int, int]) -> None:
        """Raise unless an image of shape (ny, nx) can lie so on the sky.

        Raises
        ------
        AlertError
            If a pixel is smaller or larger than any camera's, or a corner lies more than 60° from
            where the projection touches the sphere.
        """
        steps = np.linalg.svd(np.array(self.cd), compute_uv=False) * ARCSEC_PER_DEG
        if steps[0] > _LARGEST_ARCSEC or steps[-1] < _SMALLEST_ARCSEC:
            raise AlertError(
                f"the WCS has pixels of {steps[0]:.3g}″ × {steps[-1]:.3g}″; "
                f"{_SMALLEST_ARCSEC:g}″ to {_LARGEST_ARCSEC:g}″ are possible"
            )
        ny, nx = shape
        dx = max(abs(-0.5 - self.crpix_x), abs(nx - 0.5 - self.crpix_x))
        dy = max(abs(-0.5 - self.crpix_y), abs(ny - 0.5 - self.crpix_y))
        angle = math.degrees(
            math.atan(math.radians(steps[0] / ARCSEC_PER_DEG * math.hypot(dx, dy)))
        )
        if angle > _FURTHEST_DEG:
            raise AlertError(
                f"the WCS puts the image up to {angle:.0f}° from its reference point; "
                f"{_FURTHEST_DEG:g}° are possible"
            )

    def shifted(self, dx: float, dy: float) -> "Wcs":
        """Return the WCS of an image whose pixel (0, 0) is this one's pixel (dx, dy)."""
        return Wcs(self.crval_ra, self.crval_dec, self.crpix_x - dx, self.crpix_y - dy, self.cd)

    def header(self) -> dict[str, Any]:
        """Return the FITS keywords of this WCS; pixels count from 1 there."""
        (a, b), (c, d) = self.cd
        return {
            "CTYPE1": "RA---TAN",
            "CTYPE2": "DEC--TAN",
            "CUNIT1": "deg",
            "CUNIT2": "deg",
            "RADESYS": "ICRS",
            "LONPOLE": _LONPOLE,
            "CRVAL1": self.crval_ra,
            "CRVAL2": self.crval_dec,
            "CRPIX1": self.crpix_x + 1.0,
            "CRPIX2": self.crpix_y + 1.0,
            "CD1_1": a,
            "CD1_2": b,
            "CD2_1": c,
            "CD2_2": d,
        }

    @classmethod
    def from_header(cls, header: Mapping[str, Any]) -> "Wcs":
        """Return the WCS of FITS keywords.

        Raises
        ------
        AlertError
            If the projection is not TAN with north up, or a keyword is absent or no number.
        """
        kind = (header.get("CTYPE1"), header.get("CTYPE2"))
        if kind != ("RA---TAN", "DEC--TAN"):
            raise AlertError(f"the header's projection is {kind}; only RA---TAN, DEC--TAN is read")
        try:
            default = 0.0 if float(header["CRVAL2"]) == 90.0 else _LONPOLE
            if float(header.get("LONPOLE", default)) != _LONPOLE:
                raise AlertError("the header's LONPOLE is not 180; no other is read")
            return cls(
                float(header["CRVAL1"]),
                float(header["CRVAL2"]),
                float(header["CRPIX1"]) - 1.0,
                float(header["CRPIX2"]) - 1.0,
                (
                    (float(header["CD1_1"]), float(header["CD1_2"])),
                    (float(header["CD2_1"]), float(header["CD2_2"])),
                ),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise AlertError(f"the header's WCS cannot be read: {error!r}") from error


def _wrap(ra: FloatArray) -> FloatArray:
    """Return angles in [0, 360); the modulo of a tiny negative number is 360 itself."""
    ra = np.mod(ra, 360.0)
    return np.where(ra >= 360.0, 0.0, ra)

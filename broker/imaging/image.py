"""An image: pixels with their variance, mask, position on the sky, PSF and calibration."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from broker.errors import AlertError
from broker.imaging.mask import MaskArray, MaskPlane, is_set
from broker.imaging.psf import GaussianPsf
from broker.imaging.wcs import Wcs
from broker.units import mag_to_flux

if TYPE_CHECKING:
    from broker.imaging.isr import Layout

MAX_VISIT = 2**31 - 1
MAX_DETECTOR = 2**8 - 1
MAX_PIXELS = 2**24
"""Limits set by the diaSource's identifier: visit, detector and pixel in 31, 8 and 24 bits."""

PixelArray = NDArray[np.float32]


@dataclass(frozen=True)
class Calibration:
    """What turns counts into light, and what an exposure was; the part of an image without arrays.

    Parameters
    ----------
    visit, detector : int
        Which exposure, which CCD; visit 0 is no exposure but made from several.
    band : str
        One of u g r i z y.
    midpoint_mjd_tai : float
        Middle of the exposure, MJD, TAI. [d]
    exposure_s : float
        Time the shutter was open. [s]
    zero_point : float
        AB magnitude of one count (ADU) in the exposure. [mag]
    gain : float
        Electrons of one count. [e-]
    read_noise : float
        1-sigma noise of reading a pixel. [e-]
    saturation : float
        Counts above the bias at which a pixel is full. [ADU]
    """

    visit: int
    detector: int
    band: str
    midpoint_mjd_tai: float
    exposure_s: float
    zero_point: float
    gain: float
    read_noise: float
    saturation: float


@dataclass(frozen=True)
class Image:
    """Pixels with all that is needed to use them.

    Parameters
    ----------
    pixels : NDArray[np.float32], shape (ny, nx)
        Counts above the bias; the sky is in them until a background is subtracted. [ADU]
    variance : NDArray[np.float32], shape (ny, nx)
        Their variance, from a model, never from the pixel's own value. [ADU²]
    mask : NDArray[np.uint16], shape (ny, nx)
        Planes of `MaskPlane`.
    wcs : Wcs
    psf : GaussianPsf
    calibration : Calibration
        Its fields are also attributes of the image.
    meta : dict
        Anything else worth keeping: numbers and text only.
    """

    pixels: PixelArray
    variance: PixelArray
    mask: MaskArray
    wcs: Wcs
    psf: GaussianPsf
    calibration: Calibration
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shapes = {self.pixels.shape, self.variance.shape, self.mask.shape}
        if len(shapes) != 1 or self.pixels.ndim != 2:
            raise AlertError(
                f"pixels {self.pixels.shape}, variance {self.variance.shape} and mask "
                f"{self.mask.shape} must have one two-dimensional shape"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns: (ny, nx)."""
        ny, nx = self.pixels.shape
        return ny, nx

    @property
    def visit(self) -> int:
        """Identifier of the visit."""
        return self.calibration.visit

    @property
    def detector(self) -> int:
        """Number of the detector."""
        return self.calibration.detector

    @property
    def band(self) -> str:
        """Passband: u g r i z y."""
        return self.calibration.band

    @property
    def midpoint_mjd_tai(self) -> float:
        """Middle of the exposure, MJD, TAI. [d]"""
        return self.calibration.midpoint_mjd_tai

    @property
    def exposure_s(self) -> float:
        """Exposure time. [s]"""
        return self.calibration.exposure_s

    @property
    def zero_point(self) -> float:
        """AB magnitude of one count in the exposure. [mag]"""
        return self.calibration.zero_point

    @property
    def gain(self) -> float:
        """Electrons of one count. [e-]"""
        return self.calibration.gain

    @property
    def read_noise(self) -> float:
        """Read noise. [e-]"""
        return self.calibration.read_noise

    @property
    def saturation(self) -> float:
        """Counts above the bias at which a pixel is full. [ADU]"""
        return self.calibration.saturation

    @property
    def flux_per_count(self) -> float:
        """Flux of one count. [nJy]"""
        return float(mag_to_flux(self.zero_point))

    @property
    def fwhm_arcsec(self) -> float:
        """Full width at half maximum of the PSF. [arcsec]"""
        return self.psf.fwhm * self.wcs.scale_arcsec

    def is_masked(self, planes: MaskPlane) -> NDArray[np.bool_]:
        """Return where any of the planes is set, shape (ny, nx)."""
        return is_set(self.mask, planes)

    def with_arrays(
        self,
        *,
        pixels: PixelArray | None = None,
        variance: PixelArray | None = None,
        mask: MaskArray | None = None,
    ) -> "Image":
        """Return this image with other arrays."""
        return replace(
            self,
            pixels=self.pixels if pixels is None else pixels,
            variance=self.variance if variance is None else variance,
            mask=self.mask if mask is None else mask,
        )


@dataclass(frozen=True)
class RawExposure:
    """One detector of one visit as it was read out.

    Parameters
    ----------
    pixels : NDArray[np.uint16], shape (ny, nx)
        Counts with the bias; 0 is a dead pixel. With a layout this is the raw plane, overscan and
        all. [ADU]
    wcs : Wcs
        Of the assembled detector.
    psf : GaussianPsf
    calibration : Calibration
        `saturation` here as everywhere in counts above the bias. With a layout gain, read noise
        and saturation are those of the amplifiers together, and zero point and exposure time those
        of all snaps together.
    bias_level : float
        Counts of a pixel that got no light. [ADU]
    layout : Layout, optional
        The detector's amplifiers, if its signature is still in the pixels.
    second : NDArray[np.uint16], shape (ny, nx), optional
        The raw plane of the second snap.
    calibration_set : str
        Name of the master calibrations that take the signature out; empty if none are needed.
    """

    pixels: NDArray[np.uint16]
    wcs: Wcs
    psf: GaussianPsf
    calibration: Calibration
    bias_level: float
    layout: "Layout | None" = None
    second: NDArray[np.uint16] | None = None
    calibration_set: str = ""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the detector, without overscan: (ny, nx)."""
        if self.layout is not None:
            return self.layout.shape
        ny, nx = self.pixels.shape
        return ny, nx

    @property
    def snaps(self) -> tuple[NDArray[np.uint16], ...]:
        """The raw planes, one a snap."""
        return (self.pixels,) if self.second is None else (self.pixels, self.second)

"""White noise for a difference image: what the matching kernel correlated, undone.

The noise of a difference is that of one image and that of the other convolved with the kernel. A
filter that divides by the root of their joint power makes it white again and leaves a source's
total flux as it is (Reiss & Lupton 2016, DMTN-021; Zackay, Ofek & Gal-Yam 2016, ApJ 830 27).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from broker.errors import AlertError
from broker.imaging.kernels import F32, F64
from broker.imaging.psf import GaussianPsf

_SMALL = 96
"""Side of the image on which the new PSF is worked out: many times its width. [pixel]"""


@dataclass(frozen=True)
class Whitening:
    """A filter that makes noise white.

    Parameters
    ----------
    kernel : NDArray[np.float64], shape (n, n)
        What some of the noise was convolved with, made to sum to 1.
    plain, convolved : float
        Variance of a pixel, in the difference's unit: of the noise that was not convolved, and,
        before that, of the noise that was.
    """

    kernel: F64
    plain: float
    convolved: float

    def response(self, shape: tuple[int, int]) -> F32:
        """Return the filter's real Fourier transform, shape (ny, nx // 2 + 1); 1 at 0."""
        radius = self.kernel.shape[0] // 2
        offset = np.arange(-radius, radius + 1)
        ky, kx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[:, None]
        wave_y = np.exp(-2j * np.pi * ky * offset).astype(np.complex64)
        wave_x = np.exp(-2j * np.pi * kx * offset).astype(np.complex64)
        transform = wave_y @ self.kernel.astype(np.complex64) @ wave_x.T
        power = np.square(transform.real) + np.square(transform.imag)
        power *= np.float32(self.convolved)
        power += np.float32(self.plain)
        np.divide(np.float32(self.plain + self.convolved), power, out=power)
        return np.asarray(np.sqrt(power, out=power), np.float32)

    def apply(self, pixels: F32) -> F32:
        """Return an image after the filter; it is taken to go on at the opposite border.

        Parameters
        ----------
        pixels : NDArray[np.float32], shape (ny, nx)
            Finite everywhere.
        """
        from scipy import fft

        shape = (fft.next_fast_len(pixels.shape[0], True), fft.next_fast_len(pixels.shape[1], True))
        waves = fft.rfft2(pixels, shape, workers=1)
        waves *= self.response(shape)
        out = fft.irfft2(waves, shape, overwrite_x=True, workers=1)
        return np.ascontiguousarray(out[: pixels.shape[0], : pixels.shape[1]], np.float32)

    def psf(self, sigma: float) -> NDArray[np.float64]:
        """Return what becomes of a point source of a Gaussian PSF, shape (97, 97), sum 1."""
        size = _SMALL + 1
        stamp = GaussianPsf(sigma).stamp(size=size).astype(np.float32)
        return np.asarray(self.apply(stamp), np.float64)

    def width(self, sigma: float) -> float:
        """Return the width of the Gaussian that measures the new PSF's flux without bias. [pixel]

        Parameters
        ----------
        sigma : float
            Of the PSF before the filter. [pixel]
        """
        star = self.psf(sigma)

        def measured(width: float) -> float:
            model = GaussianPsf(width).stamp(size=star.shape[0])
            return float(np.sum(star * model) / np.sum(model**2))

        low, high = 0.3 * sigma, 2.0 * sigma
        for _ in range(40):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if measured(middle) < 1.0 else (low, middle)
        return 0.5 * (low + high)


def make_whitening(kernel: F64, *, plain: float, convolved: float) -> Whitening:
    """Return the filter that makes the noise of a difference white.

    Parameters
    ----------
    kernel : NDArray[np.float64], shape (n, n)
        The matching kernel; n is odd.
    plain, convolved : float
        See `Whitening`.

    Raises
    ------
    AlertError
        If the kernel's sum or one of the variances is not positive: there is nothing to go by.
    """
    total = float(kernel.sum())
    if not (np.isfinite(total) and total > 0.0 and plain > 0.0 and convolved >= 0.0):
        raise AlertError(
            f"noise cannot be made white: kernel sum {total:.3g}, variances {plain:.3g} and "
            f"{convolved:.3g}"
        )
    return Whitening(np.asarray(kernel / total, np.float64), plain, convolved)

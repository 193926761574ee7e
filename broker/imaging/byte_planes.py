"""The low and the high bytes of 16-bit pixels apart, and together again."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.imaging.kernels import compiled

Bytes = NDArray[np.uint8]


@compiled
def split_bytes(pixels: NDArray[np.uint16], offset: Any) -> Bytes:
    """Return low and high bytes of pixels less an offset, shape (2, n): modulo 2^16.

    Parameters
    ----------
    pixels : NDArray[np.uint16], shape (ny, nx)
    offset : np.uint16
    """
    ny, nx = pixels.shape
    out = np.empty((2, ny * nx), np.uint8)
    for y in range(ny):
        row, low, high = pixels[y], out[0, y * nx : (y + 1) * nx], out[1, y * nx : (y + 1) * nx]
        for x in range(nx):
            moved = np.uint16(row[x] - offset)
            low[x] = np.uint8(moved & np.uint16(0xFF))
            high[x] = np.uint8(moved >> np.uint16(8))
    return out


@compiled
def join_bytes(low: Bytes, high: Bytes, offset: Any) -> NDArray[np.uint16]:
    """Return the pixels of low and high bytes plus an offset, shape (n,): modulo 2^16."""
    out = np.empty(low.size, np.uint16)
    for i in range(low.size):
        out[i] = np.uint16((np.uint16(high[i]) << np.uint16(8)) + np.uint16(low[i]) + offset)
    return out

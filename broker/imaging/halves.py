"""32-bit floats as 16-bit ones, scaled and cut off in the same pass."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.imaging.kernels import F32, Bools, compiled

LARGEST = 65_000.0
"""Values are brought to at most this, about the largest 16-bit float."""

_EXPONENTS = float(2.0**-112)
"""The difference of the two kinds' smallest exponents: values times this have the bits of the
16-bit float above thirteen that are rounded off, denormal ones too."""
_ROUNDED = 13
_NOT_A_NUMBER = 0x7E00


def as_halves(values: F32, *, scale: float, unknown: Bools | None = None) -> NDArray[np.float16]:
    """Return values times a scale as 16-bit floats, rounded to the nearest, ties to even.

    Below 2^-14 they may be the next to the nearest.

    Parameters
    ----------
    values : NDArray[np.float32], shape (ny, nx)
        Finite, but where unknown.
    scale : float
    unknown : NDArray[np.bool_], shape (ny, nx), optional
        Where the result is NaN.
    """
    none = np.zeros((1, 1), np.bool_)
    words: NDArray[Any] = _converted(
        values, np.float32(scale), none if unknown is None else unknown, unknown is not None
    )
    return words.view(np.float16)


@compiled
def _converted(values: F32, scale: float, unknown: Bools, has_unknown: bool) -> Any:
    ny, nx = values.shape
    out = np.empty((ny, nx), np.uint16)
    row = np.empty(nx, np.float32)
    bits = row.view(np.uint32)
    most, small = np.float32(LARGEST), np.float32(_EXPONENTS)
    one, half, shift = np.uint32(1), np.uint32((1 << (_ROUNDED - 1)) - 1), np.uint32(_ROUNDED)
    for y in range(ny):
        for x in range(nx):
            row[x] = max(min(values[y, x] * scale, most), -most) * small
        for x in range(nx):
            size = bits[x] & np.uint32(0x7FFFFFFF)
            sign = (bits[x] >> np.uint32(16)) & np.uint32(0x8000)
            out[y, x] = np.uint16(((size + half + ((size >> shift) & one)) >> shift) | sign)
        if has_unknown:
            for x in range(nx):
                out[y, x] = np.uint16(_NOT_A_NUMBER) if unknown[y, x] else out[y, x]
    return out

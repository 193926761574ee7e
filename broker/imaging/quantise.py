"""Pixels as 16-bit integers in the order of bytes that FITS wants, in one compiled pass."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.imaging.kernels import F32, compiled, select

_BLANK = 0x0080
"""The bytes of -32768, which stands for a pixel without a value."""

STEPS_PER_SIGMA = 8.0

_SKY_AT = 128
_MAX_STEPS = 32000
_SAMPLE = 256
_EXPONENT = 0x7F800000
"""The bits of a float32 that are all set where it is not finite."""


def quantise(pixels: F32, sigma: float | None) -> tuple[NDArray[np.uint16], float, float]:
    """Return integers, step and zero; the sky lies at 128, so its high bytes are all 0.

    Parameters
    ----------
    pixels : NDArray[np.float32], shape (ny, nx)
        NaN where there is no value.
    sigma : float, optional
        Noise of a pixel; measured if not given.

    Returns
    -------
    words : NDArray[np.uint16], shape (ny * nx,)
        The bytes of big-endian signed integers; -32768 where there is no value.
    scale, zero : float
        A value is scale * integer + zero. The step is an eighth of sigma, or more where the range
        would not fit into 16 bits.
    """
    flat = np.ascontiguousarray(pixels, np.float32).reshape(-1)
    words, scale, zero = _quantise(flat, flat.view(np.uint32), -1.0 if sigma is None else sigma)
    return words, float(scale), float(zero)


@compiled
def _sampled(values: F32, bits: Any) -> tuple[F32, int, Any, Any]:
    """Return some of the finite values, how many, and the least and largest of all."""
    count = np.float32(0.0)
    low, high = np.float32(3e38), np.float32(-3e38)
    exponent = np.uint32(_EXPONENT)
    for i in range(values.size):
        is_known = (bits[i] & exponent) != exponent
        low = min(low, values[i] if is_known else low)
        high = max(high, values[i] if is_known else high)
        count += np.float32(1.0) if is_known else np.float32(0.0)
    known = int(count)
    every = max(1, known // _SAMPLE)
    sample = np.empty(known // every + 1, np.float32)
    seen, n = 0, 0
    if known == values.size:
        for i in range(0, known, every):
            sample[n] = values[i]
            n += 1
        return sample, n, low, high
    for i in range(values.size):
        if (bits[i] & exponent) != exponent:
            if seen % every == 0:
                sample[n] = values[i]
                n += 1
            seen += 1
    return sample, n, low, high


@compiled
def _median(values: F32, n: int) -> Any:
    half = np.float32(0.5)
    return half * (select(values, n, (n - 1) // 2) + select(values, n, n // 2))


@compiled
def _quantise(values: F32, bits: Any, sigma: float) -> tuple[Any, Any, Any]:
    words = np.empty(values.size, np.uint16)
    blank = np.uint16(_BLANK)
    sample, n, low, high = _sampled(values, bits)
    if n == 0:
        words[:] = blank
        return words, np.float32(1.0), np.float32(0.0)
    middle = _median(sample, n)
    if sigma < 0.0:
        for i in range(n):
            sample[i] = abs(sample[i] - middle)
        sigma = 1.4826 * _median(sample, n)
    reach = max(high - middle, middle - low)
    scale = np.float32(max(sigma / STEPS_PER_SIGMA, reach / _MAX_STEPS))
    if scale == 0.0:
        scale = np.float32(1.0)
    zero = np.float32(middle - np.float32(_SKY_AT) * scale)
    inverse = np.float32(1.0) / scale
    exponent = np.uint32(_EXPONENT)
    for i in range(values.size):
        is_known = (bits[i] & exponent) != exponent
        step = np.rint(((values[i] if is_known else zero) - zero) * inverse)
        word = np.uint16(np.int32(step) & 0xFFFF)
        swapped = np.uint16((word << 8) | (word >> 8))
        words[i] = swapped if is_known else blank
    return words, scale, zero

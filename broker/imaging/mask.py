"""Mask planes: what is known about a pixel, a bit each."""

from enum import IntFlag

import numpy as np
from numpy.typing import NDArray

MaskArray = NDArray[np.uint16]


class MaskPlane(IntFlag):
    """The planes of a mask; a pixel may be in several.

    A plane is added at the end with the next free bit, so that masks already written keep their
    meaning. At most 16.
    """

    BAD = 1 << 0
    """A defect of the detector: no light was measured."""
    SATURATED = 1 << 1
    """At or above the level where charge is lost."""
    COSMIC_RAY = 1 << 2
    """Charge that did not come through the optics."""
    EDGE = 1 << 3
    """Too near the border of the image for a full PSF."""
    NO_DATA = 1 << 4
    """Nothing is known here: outside the template, or outside a warped image."""
    DETECTED = 1 << 5
    """Belongs to a detected source."""
    INTERPOLATED = 1 << 6
    """Made from its neighbours."""
    STREAK = 1 << 7
    """Under the trail of a satellite, an aeroplane or a near asteroid."""


EDGE_PX = 8
"""Width of the border of an exposure that is `EDGE`: about four sigma of an ordinary PSF. [px]"""

UNUSABLE = MaskPlane.BAD | MaskPlane.SATURATED | MaskPlane.COSMIC_RAY | MaskPlane.NO_DATA
"""Pixels whose value says nothing about the sky."""


def empty_mask(shape: tuple[int, int]) -> MaskArray:
    """Return a mask with no plane set, shape (ny, nx)."""
    return np.zeros(shape, dtype=np.uint16)


def set_plane(mask: MaskArray, plane: MaskPlane, where: NDArray[np.bool_]) -> None:
    """Set a plane of a mask, in place, where a condition of the same shape holds."""
    np.bitwise_or(mask, np.uint16(plane), out=mask, where=where)


def is_set(mask: MaskArray, planes: MaskPlane) -> NDArray[np.bool_]:
    """Return where any of the planes is set, in the mask's shape."""
    result: NDArray[np.bool_] = (mask & np.uint16(planes)) != 0
    return result


def set_edge(mask: MaskArray, width_px: int) -> None:
    """Set `EDGE`, in place, on a border of that many pixels."""
    if width_px <= 0:
        return
    bit = np.uint16(MaskPlane.EDGE)
    mask[:width_px] |= bit
    mask[-width_px:] |= bit
    mask[:, :width_px] |= bit
    mask[:, -width_px:] |= bit

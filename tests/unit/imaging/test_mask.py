"""Mask planes and images."""

import numpy as np
import pytest

from broker.errors import AlertError
from broker.imaging.image import Calibration, Image
from broker.imaging.mask import MaskPlane, empty_mask, is_set, set_edge, set_plane
from broker.imaging.psf import GaussianPsf
from broker.imaging.wcs import Wcs


def test_planes_are_single_bits_of_sixteen():
    bits = [plane.value for plane in MaskPlane]

    assert all(bit.bit_count() == 1 and bit < 2**16 for bit in bits)
    assert len(set(bits)) == len(bits)


def test_setting_a_plane_keeps_the_others():
    mask = empty_mask((3, 4))
    where = np.zeros((3, 4), dtype=bool)
    where[1, 2] = True

    set_plane(mask, MaskPlane.BAD, where)
    set_plane(mask, MaskPlane.SATURATED, where)

    assert mask[1, 2] == MaskPlane.BAD | MaskPlane.SATURATED
    assert is_set(mask, MaskPlane.BAD).sum() == 1
    assert not is_set(mask, MaskPlane.COSMIC_RAY).any()


def test_the_edge_is_a_border_of_its_width():
    mask = empty_mask((10, 12))

    set_edge(mask, 2)

    assert is_set(mask, MaskPlane.EDGE).sum() == 10 * 12 - 6 * 8


def test_arrays_of_different_shapes_are_refused():
    with pytest.raises(AlertError, match="one two-dimensional shape"):
        Image(
            pixels=np.zeros((3, 4), dtype=np.float32),
            variance=np.zeros((4, 3), dtype=np.float32),
            mask=empty_mask((3, 4)),
            wcs=Wcs.from_scale(0.0, 0.0, scale_arcsec=0.25, crpix=(1.0, 1.0)),
            psf=GaussianPsf(1.5),
            calibration=Calibration(1, 0, "r", 60_000.0, 30.0, 28.0, 1.5, 6.0, 60_000.0),
        )

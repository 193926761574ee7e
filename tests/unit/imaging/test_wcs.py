"""Pixels and the sky, against astropy."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import AlertError
from broker.imaging.wcs import Wcs
from broker.units import separation_arcsec

ANGLES = st.floats(-180.0, 180.0)


def rotated(ra, dec, angle, scale_arcsec=0.25):
    step, a = scale_arcsec / 3600.0, np.radians(angle)
    return Wcs(
        ra,
        dec,
        500.3,
        480.1,
        (
            (float(-step * np.cos(a)), float(step * np.sin(a))),
            (float(step * np.sin(a)), float(step * np.cos(a))),
        ),
    )


@given(ra=st.floats(0.0, 360.0), dec=st.floats(-90.0, 90.0), angle=ANGLES)
def test_the_sky_agrees_with_astropy(ra, dec, angle):
    wcs = rotated(ra, dec, angle)
    oracle = WCS(fits.Header(wcs.header()))
    x, y = np.meshgrid(np.linspace(-50.0, 4_000.0, 7), np.linspace(-50.0, 4_000.0, 7))

    ours = wcs.pixel_to_sky(x, y)
    theirs = oracle.all_pix2world(x, y, 0)

    assert np.max(separation_arcsec(*ours, *theirs)) / 3600.0 < 1e-9
    assert np.all((ours[0] >= 0.0) & (ours[0] < 360.0))


@given(ra=st.floats(0.0, 360.0), dec=st.floats(-90.0, 90.0), angle=ANGLES)
def test_there_and_back_is_the_same_pixel(ra, dec, angle):
    wcs = rotated(ra, dec, angle)
    x, y = np.meshgrid(np.linspace(-50.0, 4_000.0, 7), np.linspace(-50.0, 4_000.0, 7))

    back_x, back_y = wcs.sky_to_pixel(*wcs.pixel_to_sky(x, y))

    # 1e-13 rad, the float error of an angle near 360 degrees, is 1e-7 px of 0.25 arcsec.
    np.testing.assert_allclose(back_x, x, atol=1e-6)
    np.testing.assert_allclose(back_y, y, atol=1e-6)


def test_the_other_half_of_the_sky_has_no_pixel():
    x, y = rotated(10.0, 0.0, 0.0).sky_to_pixel(190.0, 0.0)

    assert np.isnan(x)
    assert np.isnan(y)


def test_a_header_gives_the_wcs_back():
    wcs = rotated(359.9, -45.0, 33.0)

    assert Wcs.from_header(wcs.header()) == wcs


def test_a_header_of_another_projection_is_refused():
    header = rotated(10.0, 0.0, 0.0).header() | {"CTYPE1": "RA---SIN"}

    with pytest.raises(AlertError, match="only RA---TAN"):
        Wcs.from_header(header)


def test_a_header_turned_about_the_pole_is_refused():
    header = rotated(10.0, 0.0, 0.0).header() | {"LONPOLE": 0.0}

    with pytest.raises(AlertError, match="LONPOLE"):
        Wcs.from_header(header)


def test_a_header_without_a_keyword_is_refused():
    header = rotated(10.0, 0.0, 0.0).header()
    del header["CD1_1"]

    with pytest.raises(AlertError, match="CD1_1"):
        Wcs.from_header(header)


def test_a_shifted_wcs_sees_the_same_sky():
    wcs = rotated(80.0, 30.0, 12.0)

    np.testing.assert_allclose(
        wcs.shifted(100.0, -7.0).pixel_to_sky(3.0, 4.0), wcs.pixel_to_sky(103.0, -3.0), rtol=1e-14
    )


def test_the_scale_is_that_of_a_pixel():
    assert rotated(80.0, 30.0, 12.0, scale_arcsec=0.2).scale_arcsec == pytest.approx(0.2)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_refused(bad):
    with pytest.raises(AlertError, match="not finite"):
        Wcs(bad, 0.0, 0.0, 0.0, ((1.0, 0.0), (0.0, 1.0)))

"""From exposures to diaSources: what is found, how well, and what is not made up."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy.spatial import cKDTree

from broker.detection.columns import (
    DIA_SOURCES_WITH_CUTOUTS,
    dia_source_ids,
    unpack_dia_source_ids,
)
from broker.detection.dia import DiaSettings, difference_and_detect
from broker.detection.differencing.difference import without_sky
from broker.detection.flags import DOCS, SourceFlag, names
from broker.errors import AlertError
from broker.imaging.cutout import decode_cutout
from broker.imaging.mask import MaskPlane
from broker.imaging.templates import Template

_spec = importlib.util.spec_from_file_location("harness", Path(__file__).parent / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
harness = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(harness)


def observe(field, seed, sigma, snrs, *, sign=1.0, sharper=0.0, shift=(5.3, -4.7)):
    """Return an exposure of the field with transients, and these."""
    wcs = field.wcs.shifted(*shift)
    transients = harness.lattice(wcs, field.side, sigma, snrs, seed)
    transients[:, 2] *= sign
    objects = np.vstack([field.stars, transients[:, :3]])
    image = harness.draw(seed, wcs, field.side, sigma, objects, visit=9, sharper=sharper)
    return image, transients


def clear_of_stars(field, image, transients, reach=14.0):
    x, y = image.wcs.sky_to_pixel(field.stars[:, 0], field.stars[:, 1])
    distance, _ = cKDTree(np.column_stack([x, y])).query(transients[:, 3:5])
    return distance > reach


def matched(result, transients):
    """Return the row of each transient's source, -1 for none, and the rows of no transient."""
    sources = result.sources
    places = np.column_stack([sources["x"].to_numpy(), sources["y"].to_numpy()])
    if len(places) == 0:
        return np.full(len(transients), -1), np.zeros(0, np.int64)
    distance, row = cKDTree(places).query(transients[:, 3:5])
    row = np.where(distance < 3.0, row, -1)
    return row, np.setdiff1d(np.arange(len(places)), row)


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [1.6, 1.9, 2.4])
def test_transients_are_found_and_measured_with_honest_errors_in_any_seeing(field, sigma):
    found, truth, false, n_alerts = [], [], 0, 0
    for seed in range(4):
        image, transients = observe(field, 10 + seed, sigma, [5.5, 9.0, 20.0, 60.0])
        result = difference_and_detect(image, field.template)
        row, extra = matched(result, transients)
        reliable = result.sources["reliability"].to_numpy() >= 0.5
        n_alerts += int(reliable.sum())
        false += int(reliable[extra].sum())
        clear = clear_of_stars(field, image, transients)
        found.append(result.sources.to_pandas().iloc[row[clear]].assign(row=row[clear]))
        truth.append(transients[clear])
    import pandas as pd

    sources, true = pd.concat(found), np.concatenate(truth)
    seen = sources["row"].to_numpy() >= 0
    snr = true[:, 5]

    assert seen[snr > 8.0].mean() >= 0.98
    assert seen[snr < 6.0].mean() >= 0.5
    assert false <= 0.03 * n_alerts
    good = seen & (snr > 8.0)
    flux = (sources["psfFlux"] - true[:, 2])[good] / sources["psfFluxErr"][good]
    ra = ((sources["ra"] - true[:, 0]) * np.cos(np.radians(2.0)))[good] / sources["raErr"][good]
    dec = (sources["dec"] - true[:, 1])[good] / sources["decErr"][good]
    margin = 3.0 / np.sqrt(2 * good.sum())
    for pull in (flux, ra, dec):
        assert 0.9 - margin < np.sqrt(np.mean(pull**2)) < 1.1 + margin
    assert abs(flux.mean()) < 0.15 + 3.0 / np.sqrt(good.sum())
    # Transients on blank sky: the template has no flux there, the science image theirs.
    assert np.median(np.abs(sources["templateFlux"][good] / sources["templateFluxErr"][good])) < 1.5
    ratio = (sources["scienceFlux"] / true[:, 2])[good & (snr > 30)]
    assert ratio.median() == pytest.approx(1.0, abs=0.02)


def test_what_fades_is_found_with_a_negative_flux(field):
    # The stars' own light is missing in the exposure: each is a negative source.
    wcs = field.wcs.shifted(3.0, 2.0)
    faded = field.stars.copy()
    x, y = wcs.sky_to_pixel(faded[:, 0], faded[:, 1])
    inside = (x > 30) & (x < field.side - 30) & (y > 30) & (y < field.side - 30)
    gone = np.flatnonzero(inside)[:6]
    kept = np.delete(faded, gone, axis=0)
    image = harness.draw(77, wcs, field.side, 2.0, kept, visit=9)

    result = difference_and_detect(image, field.template)

    places = np.column_stack([result.sources["x"].to_numpy(), result.sources["y"].to_numpy()])
    distance, row = cKDTree(places).query(np.column_stack([x[gone], y[gone]]))
    assert (distance < 2.0).all()
    sources = result.sources.to_pandas().iloc[row]
    assert sources["isNegative"].all()
    pull = (sources["psfFlux"].to_numpy() + faded[gone, 2]) / sources["psfFluxErr"].to_numpy()
    assert np.abs(pull).max() < 4.5


@pytest.mark.slow
def test_static_stars_leave_nothing_when_the_psf_varies_over_the_image(field):
    extra = 0
    for seed in range(3):
        wcs = field.wcs.shifted(1.2, 3.4)
        image = harness.draw(200 + seed, wcs, field.side, 2.4, field.stars, visit=9, sharper=0.12)
        result = difference_and_detect(image, field.template)
        extra += int((result.sources["reliability"].to_numpy() >= 0.5).sum())

    # 360 star images and 0.8 megapixels of sky: some 0.3 are expected of pure noise.
    assert extra <= 3


def test_a_misregistered_exposure_is_matched_all_the_same(field):
    wcs = field.wcs.shifted(1.0, 1.0)
    image = harness.draw(300, wcs, field.side, 2.1, field.stars, visit=9)
    off = replace(image, wcs=wcs.shifted(0.15, -0.1))

    result = difference_and_detect(off, field.template)

    assert int((result.sources["reliability"].to_numpy() >= 0.5).sum()) <= 1


def test_with_a_psf_that_varies_bright_fluxes_are_right_on_both_sides_of_the_image(field):
    image, transients = observe(field, 310, 2.3, [60.0, 120.0], sharper=0.12)

    result = difference_and_detect(image, field.template)

    row, _ = matched(result, transients)
    clear = clear_of_stars(field, image, transients) & (row >= 0)
    ratio = result.sources["psfFlux"].to_numpy()[row[clear]] / transients[clear, 2]
    left = transients[clear, 3] < field.side / 2
    # Some 25 sources of 1.2 % each on a side; with one width the sides would differ by 6 %.
    assert ratio[left].mean() == pytest.approx(1.0, abs=0.012)
    assert ratio[~left].mean() == pytest.approx(1.0, abs=0.012)
    assert result.scorecard["psfStars"] > 20
    assert result.scorecard["psfSpread"] == pytest.approx(0.10, abs=0.04)


def test_an_exposure_that_is_the_sharper_one_only_in_places_is_smoothed_and_matched(field):
    sigma = field.template.image.psf.sigma
    extra = 0
    for seed in range(3):
        wcs = field.wcs.shifted(2.2, 0.4)
        image = harness.draw(320 + seed, wcs, field.side, sigma * 1.06, field.stars, sharper=0.16)
        result = difference_and_detect(
            replace(image, calibration=replace(image.calibration, visit=320 + seed)), field.template
        )
        assert result.scorecard["smoothing"] > 0.0
        extra += result.sources.num_rows

    # 360 stars and 0.8 megapixels of sky.
    assert extra <= 3


def test_stars_that_reach_over_the_border_leave_nothing(field):
    x = np.linspace(20.0, field.side - 20.0, 12)
    ra, dec = field.wcs.pixel_to_sky(x, np.full(12, 1.0))
    stars = np.vstack([field.stars, np.column_stack([ra, dec, np.full(12, 4e4)])])
    image = harness.draw(330, field.wcs, field.side, 2.4, stars, visit=9)
    deep = harness.draw(331, field.wcs.shifted(-24, -24), field.side + 48, 1.8, stars, visit=8)
    template = without_sky(deep)[0]

    result = difference_and_detect(image, Template(template, "v1"))

    assert (result.sources["y"].to_numpy() > 12.0).all()


def test_white_noise_keeps_sources_and_their_errors_honest(field):
    image, transients = observe(field, 340, 1.6, [20.0, 40.0])

    result = difference_and_detect(image, field.template, settings=DiaSettings(decorrelate=True))

    row, _ = matched(result, transients)
    clear = clear_of_stars(field, image, transients) & (row >= 0)
    sources = result.sources.to_pandas().iloc[row[clear]]
    pull = (sources["psfFlux"] - transients[clear, 2]) / sources["psfFluxErr"]
    assert (row >= 0).mean() > 0.97
    # Some 50 sources: the root mean square is known to 10 %.
    assert 0.7 < float(np.sqrt(np.mean(pull**2))) < 1.35
    assert result.scorecard["decorrelated"] == 1


def test_a_template_that_contains_the_exposure_is_refused(field):
    image, _ = observe(field, 350, 2.0, [10.0])
    inside = replace(image, calibration=replace(image.calibration, visit=1))

    with pytest.raises(AlertError, match="contains visit 1"):
        difference_and_detect(inside, field.template)


def test_a_trail_is_masked_and_its_sources_are_flagged(field):
    image, transients = observe(field, 360, 2.0, [30.0])
    y, x = np.mgrid[: field.side, : field.side]
    across = (y - 0.6 * x - 60.0) / np.hypot(1.0, 0.6)
    image.pixels[:] += (400.0 * np.exp(-0.5 * (across / 2.0) ** 2)).astype(np.float32)

    result = difference_and_detect(image, field.template)

    sources = result.sources.to_pandas()
    far = np.abs(sources["y"] - 0.6 * sources["x"] - 60.0) / np.hypot(1.0, 0.6)
    streak = (sources["flags"].to_numpy() & int(SourceFlag.STREAK)) > 0
    assert result.scorecard["streaks"] == 1
    assert streak[far < 4.0].mean() > 0.95
    assert not streak[far > 20.0].any()
    assert len(transients)


def test_cosmic_rays_are_masked_and_no_star_is_taken_for_one(field):
    image, transients = observe(field, 400, 1.9, [30.0])
    rng = np.random.default_rng(401)
    for _ in range(12):
        x, y = rng.integers(30, field.side - 40, 2)
        for k in range(rng.integers(1, 9)):
            image.pixels[y + k, x + k // 2] += 1500.0

    result = difference_and_detect(image, field.template)

    row, extra = matched(result, transients)
    assert (row >= 0).mean() > 0.97
    assert (result.sources["reliability"].to_numpy()[extra] >= 0.5).sum() <= 1
    assert 12 <= result.scorecard["cosmicRayPixels"] <= 1200


def test_the_same_input_gives_the_same_bytes(field):
    image, _ = observe(field, 500, 2.0, [12.0])

    first = difference_and_detect(image, field.template).sources
    again = difference_and_detect(image, replace(field.template, coefficients=None)).sources

    assert first.equals(again)
    assert first.schema.equals(DIA_SOURCES_WITH_CUTOUTS)
    ids = first["diaSourceId"].to_numpy()
    assert (np.diff(ids) > 0).all()


def test_cutouts_are_centred_on_the_source_and_show_it(field):
    image, _ = observe(field, 501, 2.0, [60.0])

    result = difference_and_detect(image, field.template, settings=DiaSettings(cutout_px=31))

    # The template is smooth to a tenth of the science image's noise.
    for row in result.sources.slice(0, 5).to_pylist():
        science = decode_cutout(row["cutoutScience"])
        difference = decode_cutout(row["cutoutDifference"])
        template = decode_cutout(row["cutoutTemplate"])
        assert science.shape == difference.shape == template.shape == (31, 31)
        sign = -1.0 if row["isNegative"] else 1.0
        peak = np.unravel_index(np.nanargmax(sign * difference), difference.shape)
        assert max(abs(peak[0] - 15), abs(peak[1] - 15)) <= 3
        if row["templateFlux"] < 5 * row["templateFluxErr"]:
            assert np.nanstd(science - difference) < 0.3 * np.nanstd(science)


def test_an_all_masked_exposure_is_refused_with_its_reason(field):
    image, _ = observe(field, 502, 2.0, [10.0])
    image.mask[:] = MaskPlane.BAD

    with pytest.raises(AlertError, match="masked"):
        difference_and_detect(image, field.template)


def test_a_template_of_another_place_or_band_is_refused(field):
    image, _ = observe(field, 503, 2.0, [10.0])
    elsewhere = replace(image, wcs=replace(image.wcs, crval_dec=-60.0))
    other_band = replace(image, calibration=replace(image.calibration, band="g"))

    with pytest.raises(AlertError, match="does not lie on"):
        difference_and_detect(elsewhere, field.template)
    with pytest.raises(AlertError, match="band g"):
        difference_and_detect(other_band, field.template)


def test_a_template_that_is_masked_or_not_finite_is_refused(field):
    image, _ = observe(field, 507, 2.0, [10.0])
    deep = field.template.image
    broken = deep.pixels.copy()
    broken[200, 200] = np.nan

    with pytest.raises(AlertError, match="template has pixels that are not finite"):
        difference_and_detect(image, Template(deep.with_arrays(pixels=broken), "v1"))
    masked = deep.with_arrays(mask=np.full_like(deep.mask, np.uint16(MaskPlane.BAD)))
    with pytest.raises(AlertError, match="template is masked"):
        difference_and_detect(image, Template(masked, "v1"))


def test_values_that_are_not_finite_are_refused(field):
    image, _ = observe(field, 504, 2.0, [10.0])
    image.pixels[40, 40] = np.nan

    with pytest.raises(AlertError, match="not finite"):
        difference_and_detect(image, field.template)


def test_an_exposure_without_stars_is_subtracted_by_its_metadata_and_flagged(field):
    empty = harness.make_field(5, side=256, n_stars=0, visits=3)
    image, transients = observe(empty, 505, 2.2, [20.0])

    result = difference_and_detect(image, empty.template)

    row, _ = matched(result, transients)
    assert (row >= 0).all()
    assert result.scorecard["kernelStars"] == 0
    flags = result.sources["flags"].to_numpy()
    assert (flags & int(SourceFlag.POOR_SUBTRACTION) > 0).all()


@pytest.mark.parametrize(
    ("factors", "shift"),
    [((-1.0, 1.0), 0.0), ((1.2, 1.2), 0.0), ((1.0, 1.0), 40.0)],
    ids=["mirrored", "a fifth too large", "shifted"],
)
def test_an_exposure_whose_stars_are_elsewhere_is_refused(field, factors, shift):
    image, _ = observe(field, 507, 2.0, [10.0])
    right = difference_and_detect(image, field.template)
    cd = np.array(image.wcs.cd) * factors
    turned = replace(image.wcs, cd=tuple(map(tuple, cd.tolist()))).shifted(shift, 0.0)

    assert right.scorecard["kernelStars"] >= 4
    with pytest.raises(AlertError, match="stars of the template are on the exposure"):
        difference_and_detect(replace(image, wcs=turned), field.template)


def test_a_template_that_does_not_match_is_refused_rather_than_flooding_the_stream(field):
    image = harness.draw(506, field.wcs, field.side, 2.0, field.stars, visit=9)
    scrambled = field.template.image.with_arrays(pixels=field.template.image.pixels[::-1].copy())

    with pytest.raises(AlertError, match=r"sources, more than|flux scale|stars of the template"):
        difference_and_detect(
            image, Template(scrambled, "v1"), settings=DiaSettings(max_sources_per_mpix=10.0)
        )


def test_identifiers_pack_visit_detector_and_pixel_without_loss():
    pixels = np.array([0, 1, 2**24 - 1])

    ids = dia_source_ids(2**31 - 1, 255, pixels)

    visit, detector, pixel = unpack_dia_source_ids(ids)
    assert (ids > 0).all()
    assert int(ids[-1]) == 2**63 - 1
    assert (visit == 2**31 - 1).all()
    assert (detector == 255).all()
    np.testing.assert_array_equal(pixel, pixels)
    for bad in ((2**31, 0, [0]), (0, 256, [0]), (0, 0, [2**24]), (-1, 0, [0]), (0, 0, [-1])):
        with pytest.raises(AlertError, match="out of range"):
            dia_source_ids(*bad)


def test_every_flag_is_one_bit_of_its_own_with_a_meaning():
    assert set(DOCS) == set(SourceFlag)
    assert all(int(flag).bit_count() == 1 for flag in SourceFlag)
    assert names(int(SourceFlag.EDGE | SourceFlag.DIPOLE)) == ["EDGE", "DIPOLE"]
    assert pa.int64().bit_width > max(int(flag).bit_length() for flag in SourceFlag)

"""A night: its visits, its truth, its templates and its catalogue."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from broker.catalog.registry import Catalogs, install_catalog
from broker.errors import ConfigError
from broker.imaging.mask import UNUSABLE
from broker.imaging.message import decode_image
from broker.imaging.templates import TemplateStore
from broker.simulation.cadence import detector_wcs, field_wcs, night_visits, template_visits
from broker.simulation.frames import write_science
from broker.simulation.observatory import (
    CATALOG,
    build_templates,
    count_templates,
    reference_catalog,
    simulate_night,
    write_truth,
)
from broker.simulation.settings import DEMO, IDEAL_CAMERA, TEST, Camera, Settings
from broker.simulation.truth import TRUTH, truth_of
from broker.types import night_of

SEED = 3
SMALL = dataclasses.replace(TEST, template_visits=2)


@pytest.fixture(scope="module")
def truth() -> pa.Table:
    night = simulate_night(seed=SEED)
    return pa.concat_tables([night.exposure(v, 0).truth for v in night.visits[:3]])


def test_visits_ascend_with_time_and_fit_into_31_bits():
    visits = night_visits(1, DEMO, 0) + night_visits(1, DEMO, 1)
    numbers = [v.visit for v in visits]
    times = [v.midpoint_mjd_tai for v in visits]

    assert numbers == sorted(set(numbers))
    assert times == sorted(set(times))
    assert min(numbers) > 0
    assert max(numbers) < 2**31


def test_a_night_has_all_bands_and_fields_and_one_label():
    visits = night_visits(1, DEMO, 0)

    for field in range(len(DEMO.fields)):
        for band in DEMO.bands:
            here = [v for v in visits if (v.field, v.band) == (field, band)]
            assert len(here) == DEMO.visits_per_band
    assert len({night_of(v.midpoint_mjd_tai) for v in visits}) == 1
    assert simulate_night(seed=1, night_index=1).night > simulate_night(seed=1).night


def test_template_visits_are_before_the_night_and_sharper():
    night = night_visits(1, DEMO, 0)
    for band in DEMO.bands:
        before = template_visits(1, DEMO, 1, band)
        assert len({v.visit for v in before}) == DEMO.template_visits
        assert max(v.visit for v in before) < night[0].visit
        assert max(v.seeing_arcsec for v in before) < min(v.seeing_arcsec for v in night)


def test_a_dithered_detector_lies_within_its_template():
    margin = DEMO.template_margin_px
    for visit in (*night_visits(2, DEMO, 0), *template_visits(2, DEMO, 0, "r")):
        for detector in range(DEMO.detectors):
            shape = (DEMO.detector_px, DEMO.detector_px)
            corners = detector_wcs(DEMO, visit, detector).corners(shape)
            x, y = field_wcs(DEMO, visit.field, detector).sky_to_pixel(*corners)
            inside = DEMO.detector_px + margin - 4.0
            assert x.min() > -margin + 4.0
            assert y.min() > -margin + 4.0
            assert x.max() < inside
            assert y.max() < inside


def test_detectors_do_not_overlap():
    shape = (DEMO.detector_px, DEMO.detector_px)
    first = field_wcs(DEMO, 0, 0)
    x, _ = first.sky_to_pixel(*field_wcs(DEMO, 0, 1).corners(shape))

    assert x.max() < 0.0 or x.min() > DEMO.detector_px


def test_the_truth_has_a_row_for_each_transient_on_the_image(truth):
    rows = truth.to_pandas()

    assert truth.schema == TRUTH
    assert not rows.duplicated(["transientId", "visit", "detector"]).any()
    assert rows[["x", "y"]].to_numpy().min() >= -0.5
    assert rows[["x", "y"]].to_numpy().max() < DEMO.detector_px - 0.5
    np.testing.assert_allclose(rows["psfFlux"], rows["scienceFlux"] - rows["templateFlux"])
    assert np.isfinite(rows["snr"]).all()
    assert not (rows["isIsolated"] & ~rows["isVisible"]).any()
    assert rows["isIsolated"].mean() > 0.3


def test_isolated_transients_have_no_neighbour(truth):
    rows = truth.to_pandas()
    for _, image in rows.groupby("visit"):
        seen = image[image["snr"].abs() > 0.5]
        for _, row in image[image["isIsolated"]].iterrows():
            others = seen[seen["transientId"] != row["transientId"]]
            assert np.hypot(others["x"] - row["x"], others["y"] - row["y"]).min() >= 10.0


def test_the_signal_to_noise_is_that_of_a_filter_on_the_pixels():
    """Filter exposures from which the expected light is known: residuals are normal."""
    settings = dataclasses.replace(DEMO, camera=IDEAL_CAMERA)
    night = simulate_night(seed=SEED, settings=settings)
    pulls = []
    for visit in night.visits[:6]:
        drawn = night.draw(visit, 1)
        raw, calibration = drawn.raw, drawn.raw.calibration
        residual = (raw.pixels - raw.bias_level) * calibration.gain - drawn.static
        truth = truth_of(SEED, settings, drawn).to_pandas()
        faint = truth["isIsolated"] & truth["snr"].abs().between(1e-3, 8.0)
        for _, row in truth[faint].iterrows():
            i, j = round(row["x"]), round(row["y"])
            psf = raw.psf.stamp(row["x"] - i, row["y"] - j, 17)
            stamp = residual[j - 8 : j + 9, i - 8 : i + 9]
            flux = np.sum(psf * stamp) / np.sum(psf**2) * visit.flux_per_electron
            pulls.append((flux - row["psfFlux"]) * row["snr"] / row["psfFlux"])
    pulls = np.array(pulls)

    # The residual has no template's noise, which is an eighth of the variance at most, and has
    # the transient's own, up to a tenth of it.
    assert abs(pulls.mean()) < 4.0 / np.sqrt(pulls.size)
    assert 0.88 - 3.0 / np.sqrt(2 * pulls.size) < pulls.std() < 1.05 + 3.0 / np.sqrt(2 * pulls.size)


def test_transients_differ_from_night_to_night_but_the_sky_does_not():
    first, second = (simulate_night(seed=SEED, night_index=i) for i in (0, 1))
    one = first.exposure(first.visits[0], 0).truth.to_pandas().set_index("transientId")
    other = second.exposure(second.visits[0], 0).truth.to_pandas().set_index("transientId")
    both = one.index.intersection(other.index)

    assert len(both) > 0.8 * len(one)
    np.testing.assert_allclose(one.loc[both, "ra"], other.loc[both, "ra"])
    np.testing.assert_allclose(one.loc[both, "templateFlux"], other.loc[both, "templateFlux"])
    assert (one.loc[both, "scienceFlux"] != other.loc[both, "scienceFlux"]).any()


def test_templates_cover_every_exposure_and_have_their_depth(tmp_path):
    store = TemplateStore(tmp_path)

    version = build_templates(SEED, SMALL, store)

    night = simulate_night(seed=SEED, settings=SMALL)
    assert version == night.night
    image = decode_image(next(night.exposures()).message.value)
    centre = image.wcs.pixel_to_sky(127.5, 127.5)
    template = store.find(float(centre[0]), float(centre[1]), "r", version)
    assert template is not None
    assert template.image.shape == (320, 320)
    # Deeper than the exposure by the number of visits, but for seeing, sky and clouds.
    scale = (template.image.flux_per_count / image.flux_per_count) ** 2
    ratio = float(np.median(image.variance)) / (np.median(template.image.variance) * scale)
    assert ratio == pytest.approx(2.0, rel=0.4)
    assert template.image.is_masked(UNUSABLE)[60:-60, 60:-60].mean() < 0.01


def test_templates_that_are_there_are_not_made_again(tmp_path):
    store = TemplateStore(tmp_path)
    made = []
    build_templates(SEED, SMALL, store, advance=made.append)

    build_templates(SEED, SMALL, store, advance=made.append)

    assert len(made) == count_templates(SMALL) == 1


def test_templates_of_another_survey_are_not_used(tmp_path):
    store = TemplateStore(tmp_path)
    build_templates(SEED, SMALL, store)

    with pytest.raises(ConfigError, match=r"another simulated survey \(seed 3.*not seed 4"):
        build_templates(SEED + 1, SMALL, store)


def test_the_reference_catalogue_finds_stars_hosts_and_variables(tmp_path):
    rows = reference_catalog(SEED, DEMO)
    install_catalog(tmp_path, CATALOG, rows, "1")
    truth = next(simulate_night(seed=SEED).exposures()).truth.to_pandas()
    # What moves is in no catalogue.
    truth = truth[truth["class"] != "moving-object"]

    matched = Catalogs(tmp_path).match(truth["ra"].to_numpy(), truth["dec"].to_numpy()).to_pandas()

    found = matched["referenceMatch"].to_numpy() == 1
    assert found.all()
    classes = matched["referenceClass"].to_numpy()
    assert np.mean(classes[truth["class"] == "variable-star"] == "variable") > 0.95
    assert np.mean(classes[truth["class"] == "flare-star"] == "star") > 0.9
    assert np.mean(classes[truth["class"] == "agn"] == "galaxy") > 0.95
    assert np.mean(classes[truth["class"] == "supernova-ia"] == "galaxy") > 0.9
    assert len(set(rows["id"].to_pylist())) == len(rows)


def test_the_truth_is_written_a_file_a_night(tmp_path, truth):
    file = write_truth(tmp_path / "truth", "20251110", [truth])

    assert file.name == "20251110.parquet"
    assert pa.parquet.read_table(file).equals(truth)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bands": ("r", "K")}, "not a choice of u g r i z y"),
        ({"bands": ()}, "not a choice of"),
        ({"visits_per_band": 0}, "visits_per_band is 0"),
        ({"fields": ()}, "no field"),
        ({"dither_px": 40.0}, "need a margin"),
    ],
)
def test_a_survey_that_cannot_be_is_refused(change, reason):
    with pytest.raises(ConfigError, match=reason):
        Settings(**change)


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="must not be negative"):
        simulate_night(seed=-1)


def test_more_exposures_than_a_night_has_are_of_the_nights_after_it(tmp_path):
    settings = dataclasses.replace(TEST, camera=Camera(overscan_px=16, snaps=2))
    night = simulate_night(seed=SEED, settings=settings)
    wanted = len(night) + 1

    truth = write_science(tmp_path, night, wanted)

    light = sorted(p.stem for p in (tmp_path / "light").iterdir())
    assert len(light) == wanted
    assert len({name.rsplit("-", 1)[1] for name in light}) == wanted  # each its own visit
    snaps = [f"{name}-snap{k}.fits" for name in light for k in (0, 1)]
    assert sorted(p.name for p in (tmp_path / "science").iterdir()) == snaps
    assert set(truth["visit"].to_pylist()) <= {int(n.rsplit("-", 1)[1]) for n in light}

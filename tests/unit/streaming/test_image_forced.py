"""Forced fluxes: what they are, as of when they are told, and that no order changes them."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.alerts.columns import CUTOUTS
from broker.alerts.packet import decode_sim
from broker.detection.columns import DIA_SOURCES, dia_source_ids
from broker.detection.forced import forced_flux
from broker.errors import ServiceError
from broker.store.forced import ForcedStore
from broker.store.memory import MemoryTables
from broker.store.objects import DONE, AssociationStore
from broker.store.tables import create_tables
from broker.streaming.image_alerts import alert_messages, associate_images
from broker.streaming.image_differences import DifferenceFiles
from broker.streaming.image_forced import ForcedPhotometry
from broker.streaming.image_steps import Footprint, ImageOutcome
from broker.types import Coordinate, Run
from broker.units import separation_arcsec

RUN = Run("test")
ARCSEC = 1.0 / 3600.0
EQUATOR, EDGE, POLE = (10.0, -5.0), (0.0, 40.0), (123.0, 90.0 - 0.5 * ARCSEC)


def on_sky(centre, east, north):
    """Positions at offsets in arcsec, exact over RA 0 and at a pole: by rotation of vectors."""
    ra, dec = np.radians(centre)
    east_, north_ = np.radians(np.asarray(east) * ARCSEC), np.radians(np.asarray(north) * ARCSEC)
    here = np.array([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
    to_east = np.array([-np.sin(ra), np.cos(ra), 0.0])
    to_north = np.cross(here, to_east)
    v = here + east_[:, None] * to_east + north_[:, None] * to_north
    v /= np.linalg.norm(v, axis=1)[:, None]
    return np.degrees(np.arctan2(v[:, 1], v[:, 0])) % 360.0, np.degrees(np.arcsin(v[:, 2]))


def outcome(visit, detector, places, *, centre=EQUATOR, time=None):
    """An image with diaSources at offsets (east, north) in arcsec from a place."""
    n = len(places)
    east, north = np.array(places, float).reshape(n, 2).T
    ra, dec = on_sky(centre, east, north)
    # The shutter reaches one detector a little later than another.
    time = 61000.0 + visit + 1e-7 * detector if time is None else time
    values = {
        "diaSourceId": dia_source_ids(visit, detector, np.arange(n)),
        "visit": [visit] * n,
        "detector": [detector] * n,
        "band": ["r"] * n,
        "midpointMjdTai": [time] * n,
        "ra": ra,
        "dec": dec,
        "raErr": [0.1 * ARCSEC] * n,
        "decErr": [0.1 * ARCSEC] * n,
        "templateVersion": ["v1"] * n,
    }
    blank = {"bool": False, "float": 1.0, "double": 1.0, "string": ""}
    columns = [
        pa.array(values.get(f.name, [blank.get(str(f.type), 0)] * n), f.type) for f in DIA_SOURCES
    ]
    return ImageOutcome(
        Coordinate("ccd-images", 0, 100 * visit + detector),
        1_000_000 + visit,
        DONE,
        "",
        Footprint(visit, detector, "r", time, *centre, 0.01),
        "v1",
        pa.Table.from_arrays(columns, schema=DIA_SOURCES),
        pa.table(
            {name: [f"{visit} {detector} {k}".encode() for k in range(n)] for name in CUTOUTS}
        ),
    )


class Sky:
    """Difference images on which every place has its flux, but those in the west have none."""

    def __init__(self, centre=EQUATOR):
        self.centre, self.measured = centre, 0

    def measure(self, coordinate, ra, dec):
        self.measured += len(ra)
        away = separation_arcsec(*self.centre, ra, dec)
        flux = 100.0 * coordinate.offset + away
        return np.where(away < 6.0, flux, np.nan), np.ones(len(ra))

    def drop(self, coordinate):
        pass


def publish(batches, *, centre=EQUATOR, tables=None, sky=None):
    """What batches of outcomes publish, by diaSource, and the tables after."""
    if tables is None:
        tables = MemoryTables()
        create_tables(tables, RUN)
    forced = ForcedPhotometry(ForcedStore(tables, RUN), sky or Sky(centre))
    sent = {}
    for batch in batches:
        cutouts = {o.coordinate: o.cutouts for o in batch}
        store = AssociationStore(tables, RUN)
        for one in associate_images(batch, store=store, forced=forced):
            for message in alert_messages(one, cutouts[one.coordinate]):
                sent[decode_sim(message.value)["diaSourceId"]] = message.value
    return sent, tables


def kept(tables, centre=EQUATOR):
    """All that is stored: diaSources with objects, and forced fluxes."""
    stored = AssociationStore(tables, RUN).around(*centre, 0.02)
    names = ("diaObjectId", "objectPixel")
    pairs = set(zip(*(stored[n].to_pylist() for n in names), strict=True)) if stored else ()
    return stored, ForcedStore(tables, RUN).of_objects(sorted(pairs))


def test_every_visit_has_a_flux_at_every_object_whether_it_found_it_or_not():
    visits = [outcome(1, 0, [(0, 0), (3, 0)]), outcome(2, 0, [(0.1, 0)]), outcome(3, 0, [])]

    _, tables = publish([visits])

    _, fluxes = kept(tables)
    got = sorted(zip(fluxes["visit"].to_pylist(), fluxes["diaObjectId"].to_pylist(), strict=True))
    a, b = dia_source_ids(1, 0, [0, 1]).tolist()
    assert got == [(1, a), (1, b), (2, a), (2, b), (3, a), (3, b)]
    assert len(set(fluxes["diaForcedSourceId"].to_pylist())) == 6
    assert fluxes["band"].to_pylist() == ["r"] * 6


def test_a_packet_tells_the_forced_fluxes_of_visits_before_it_and_no_other():
    batch = [outcome(v, 0, [(0, 0)] if v in (1, 4) else []) for v in range(1, 7)]

    sent, tables = publish([batch])

    first, last = (decode_sim(sent[n]) for n in sorted(sent))
    assert first["prvDiaForcedSources"] == []
    assert [f["visit"] for f in last["prvDiaForcedSources"]] == [1, 2, 3]
    assert all(
        f["midpointMjdTai"] < last["diaSource"]["midpointMjdTai"]
        for f in last["prvDiaForcedSources"]
    )
    _, fluxes = kept(tables)
    assert fluxes["visit"].to_pylist() == [1, 2, 3, 4, 5, 6]


def test_forced_fluxes_of_more_than_a_year_ago_are_not_sent():
    batch = [outcome(v, 0, [(0, 0)], time=t) for v, t in ((1, 60000.0), (2, 60500.0), (3, 60600.0))]

    sent, _ = publish([batch])

    last = decode_sim(sent[max(sent)])
    assert [f["visit"] for f in last["prvDiaForcedSources"]] == [2]


def test_visits_before_a_discovery_have_its_flux_once_they_are_processed_again():
    before = [outcome(v, 0, []) for v in (1, 2)]
    _, tables = publish([before, [outcome(3, 0, [(0, 0)])]])
    assert kept(tables)[1]["visit"].to_pylist() == [3]

    publish([before], tables=tables)

    fluxes = kept(tables)[1]
    assert fluxes["visit"].to_pylist() == [1, 2, 3]
    assert set(fluxes["diaObjectId"].to_pylist()) == set(dia_source_ids(3, 0, [0]).tolist())


def test_a_flux_that_is_recorded_stays_as_it_is():
    sky = Sky()
    one, two = outcome(1, 0, [(0, 0)]), outcome(3, 0, [(0.4, 0)])
    _, tables = publish([[one, two]], sky=sky)
    before = kept(tables)[1]

    # A late visit moves the object's place as of visit 3; then everything comes once more.
    publish([[outcome(2, 0, [(0.9, 0)])], [one], [two]], tables=tables, sky=sky)

    after = kept(tables)[1]
    assert after.filter(pa.array([v != 2 for v in after["visit"].to_pylist()])).equals(before)
    assert sky.measured > before.num_rows


def test_the_same_thing_on_two_detectors_of_a_visit_becomes_one_object():
    first = [outcome(1, d, [(0.1 * d, 0)]) for d in (2, 5)]

    sent, tables = publish([first, [outcome(2, 3, [(0, 0)])]])

    a, b = (dia_source_ids(1, d, [0])[0] for d in (2, 5))
    assert {decode_sim(sent[n])["diaObject"]["diaObjectId"] for n in (a, b)} == {a, b}
    last = decode_sim(sent[max(sent)])
    assert last["diaObject"]["diaObjectId"] == a
    assert [s["diaSourceId"] for s in last["prvDiaSources"]] == [a, b]
    assert {s["diaObjectId"] for s in last["prvDiaSources"]} == {a}
    assert last["diaObject"]["nDiaSources"] == 3
    fluxes = kept(tables)[1]
    assert fluxes.filter(pa.array([v == 2 for v in fluxes["visit"].to_pylist()])).num_rows == 1


# Offsets on uneven steps: no two separations are equal by chance.
spots = st.lists(
    st.tuples(st.integers(-2000, 2000), st.integers(-2000, 2000)).map(
        lambda p: (p[0] * 1.0007e-3, p[1] * 1.0013e-3)
    ),
    max_size=4,
)
night = st.lists(st.lists(spots, min_size=1, max_size=3), min_size=1, max_size=3)


@pytest.mark.parametrize("centre", [EQUATOR, EDGE, POLE], ids=["equator", "ra-0", "pole"])
@settings(max_examples=15)
@given(visits=night, data=st.data())
def test_the_order_of_detectors_and_the_cuts_of_batches_change_nothing(centre, visits, data):
    """Detectors of a visit overlap wholly here; visits stay in the order of time."""
    by_visit = [
        [outcome(v, d, places, centre=centre) for d, places in enumerate(detectors)]
        for v, detectors in enumerate(visits, 1)
    ]
    expected, tables = publish([[o for detectors in by_visit for o in detectors]], centre=centre)

    shuffled = [o for detectors in by_visit for o in data.draw(st.permutations(detectors))]
    cuts = sorted({0, len(shuffled), *data.draw(st.lists(st.integers(0, len(shuffled))))})
    got, others = publish([shuffled[a:b] for a, b in pairwise(cuts)], centre=centre)

    assert got == expected
    for mine, theirs in zip(kept(others, centre), kept(tables, centre), strict=True):
        assert mine.equals(theirs)


@settings(max_examples=15)
@given(visits=night, cut=st.integers(0, 9), stored=st.integers(0, 9))
def test_a_batch_that_was_killed_anywhere_publishes_the_same_bytes(visits, cut, stored):
    images = [
        outcome(v, d, places)
        for v, detectors in enumerate(visits, 1)
        for d, places in enumerate(detectors)
    ]
    before, batch = images[:cut], images[cut:]
    expected, tables = publish([before, batch])

    got, others = publish([before, batch[:stored], batch])

    assert got == expected
    assert kept(others)[1].equals(kept(tables)[1])


def test_what_is_measured_on_a_kept_difference_is_what_is_on_it(difference, tmp_path):
    at, files = Coordinate("ccd-images", 0, 5), DifferenceFiles(tmp_path)
    ny, nx = difference.pixels.shape
    x = np.array([nx / 2 + 0.3, 12.25, 0.0, nx - 1.2, nx + 3.0, 40.5, 70.0])
    y = np.array([ny / 2 - 0.4, 40.5, 0.4, ny - 0.6, 10.0, ny - 3.3, 80.0])
    science = difference.science

    files.put(at, difference)
    flux, error = files.measure(at, *science.wcs.pixel_to_sky(x, y))

    counts, noise = forced_flux(
        difference.pixels,
        difference.variance,
        x,
        y,
        psf_sigma=difference.psf_sigma,
        unusable=difference.unusable,
    )
    counts[4] = noise[4] = np.nan  # not on the image
    own = 4.0 / 3.0 * np.maximum(counts, 0.0) * difference.poisson_share / science.gain
    # 16-bit floats are rounded to 2^-12 of their value.
    np.testing.assert_allclose(
        flux, counts * science.flux_per_count, atol=2e-3 * np.nanmax(noise) * science.flux_per_count
    )
    np.testing.assert_allclose(error, np.sqrt(noise**2 + own) * science.flux_per_count, rtol=1e-3)
    assert np.isfinite(flux).sum() >= 4


def test_a_difference_written_over_another_is_only_itself(difference, tmp_path):
    files, first, second = (
        DifferenceFiles(tmp_path),
        *(Coordinate("ccd-images", 0, k) for k in (5, 6)),
    )
    half = replace(difference, pixels=difference.pixels * np.float32(0.5))
    files.put(first, difference)
    ra, dec = difference.science.wcs.pixel_to_sky(np.array([40.5]), np.array([60.5]))
    (flux,), _ = files.measure(first, ra, dec)

    files.drop(first)
    files.put(second, half)

    (other,), _ = files.measure(second, ra, dec)
    np.testing.assert_allclose(other, 0.5 * flux, rtol=1e-3)
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(ServiceError):
        files.measure(first, ra, dec)


def test_a_difference_that_is_gone_is_an_error_with_its_folder(difference, tmp_path):
    at, files = Coordinate("ccd-images", 0, 5), DifferenceFiles(tmp_path / "kept")
    files.drop(at)
    files.clear()
    files.put(at, difference)
    files.put(at, difference)

    files.clear()

    with pytest.raises(ServiceError, match="must see the same folder"):
        files.measure(at, np.array([1.0]), np.array([1.0]))

"""Association, against brute force, and the laws that a repeat and an order must obey."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.detection.associate import associate
from broker.errors import AlertError
from broker.units import ARCSEC_PER_DEG, separation_arcsec

SECOND = 1.0 / ARCSEC_PER_DEG
NAMES = ("diaSourceId", "visit", "midpointMjdTai", "ra", "dec", "raErr", "decErr")


def table(rows, objects=None):
    """Rows of (visit, number, ra, dec); the time is the visit's."""
    columns = {
        "diaSourceId": [visit * 1000 + number for visit, number, _, _ in rows],
        "visit": [visit for visit, _, _, _ in rows],
        "midpointMjdTai": [61000.0 + visit for visit, _, _, _ in rows],
        "ra": [ra for _, _, ra, _ in rows],
        "dec": [dec for _, _, _, dec in rows],
        "raErr": [0.1 * SECOND] * len(rows),
        "decErr": [0.1 * SECOND] * len(rows),
    }
    types = [pa.int64(), pa.int64()] + [pa.float64()] * 3 + [pa.float32()] * 2
    made = pa.table({n: pa.array(columns[n], t) for n, t in zip(NAMES, types, strict=True)})
    if objects is not None:
        made = made.append_column("diaObjectId", pa.array(objects, pa.int64()))
    return made


NOTHING = table([], [])


def known(sources, got):
    return sources.append_column("diaObjectId", pa.array(got.dia_object_id, pa.int64()))


@pytest.mark.parametrize(
    ("ra", "dec"), [(150.0, 2.0), (0.0, 0.0), (359.99999, -45.0), (10.0, 90.0)]
)
def test_the_radius_is_exact_everywhere_on_the_sky(ra, dec):
    sources = []
    for number, (angle, radius) in enumerate([(0.3, 0.999), (2.0, 1.001), (4.0, 0.5), (5.5, 3.0)]):
        at_dec = dec - abs(np.cos(angle)) * radius * SECOND
        across = np.sqrt(max(radius**2 - ((dec - at_dec) / SECOND) ** 2, 0.0)) * SECOND
        at_ra = (ra + across / max(np.cos(np.radians(at_dec)), 1e-12)) % 360.0
        sources.append((2 + number, 0, at_ra, at_dec))
    first = table([(1, 0, ra, dec)], [77])

    for row in sources:
        got = associate(table([row]), first)

        separation = float(separation_arcsec(ra, dec, row[2], row[3]))
        assert bool(got.is_new[0]) == (separation > 1.0)
        if separation <= 1.0:
            assert got.separation_arcsec[0] == pytest.approx(separation, abs=1e-6)


def test_a_new_object_has_the_identifier_of_its_first_source():
    got = associate(table([(1, 5, 10.0, 0.0), (2, 3, 10.0, 0.1 * SECOND)]), NOTHING)

    assert got.dia_object_id.tolist() == [1005, 1005]
    assert got.is_new.tolist() == [True, False]


def test_sources_of_one_visit_never_share_an_object():
    rows = [(1, k, 10.0, 0.1 * k * SECOND) for k in range(5)]

    got = associate(table(rows), NOTHING)

    assert len(set(got.dia_object_id.tolist())) == 5


def test_the_nearest_pair_is_taken_first_and_ties_by_identifier():
    past = table([(1, 0, 10.0, 0.0), (1, 1, 10.0, 1.0 * SECOND)], [1000, 1001])
    new = [(2, 0, 10.0, 0.4 * SECOND), (2, 1, 10.0, 0.1 * SECOND)]

    got = associate(table(new), past)
    # Source 1 is nearest to object 1000; source 0 then takes the other, 0.6 arcsec away.
    assert got.dia_object_id.tolist() == [1001, 1000]

    tie = associate(table([(2, 7, 10.0, 0.0), (2, 4, 10.0, 0.0)]), table([(1, 0, 10.0, 0.0)], [1]))
    assert tie.dia_object_id.tolist() == [2007, 1]


def test_an_objects_place_is_the_weighted_mean_of_its_sources_before():
    past = table(
        [(1, 0, 10.0, 0.0), (2, 0, 10.0, 1.0 * SECOND), (9, 0, 10.0, 5.0 * SECOND)], [1] * 3
    )
    past = past.set_column(5, "raErr", pa.array([0.1 * SECOND, 0.2 * SECOND, 0.1 * SECOND]))
    past = past.set_column(6, "decErr", pa.array([0.1 * SECOND, 0.2 * SECOND, 0.1 * SECOND]))

    got = associate(table([(3, 0, 10.0, 1.0 * SECOND)]), past)

    # Weights 4 to 1: the mean is at 0.2 arcsec; the source of visit 9 is not yet.
    assert got.separation_arcsec[0] == pytest.approx(0.8, abs=1e-6)
    assert got.is_late[0]


def test_a_late_visit_joins_what_later_visits_began():
    past = table([(5, 0, 10.0, 0.0)], [5000])

    got = associate(table([(3, 0, 10.0, 0.2 * SECOND)]), past)

    assert got.dia_object_id.tolist() == [5000]
    assert got.is_late.tolist() == [True]
    assert got.is_new.tolist() == [False]


def test_one_identifier_twice_is_refused():
    with pytest.raises(AlertError, match="twice"):
        associate(table([(1, 1, 0.0, 0.0), (1, 1, 1.0, 0.0)]), NOTHING)


def brute_force(rows):
    """Plain Python, object by object."""
    objects, answer = {}, {}
    for visit in sorted({v for v, _, _, _ in rows}):
        mine = sorted(r for r in rows if r[0] == visit)
        pairs = []
        for row in mine:
            for name, members in objects.items():
                ra, dec = np.mean([m[2] for m in members]), np.mean([m[3] for m in members])
                separation = float(separation_arcsec(ra, dec, row[2], row[3]))
                if separation <= 1.0:
                    pairs.append((separation, row[0] * 1000 + row[1], name))
        used_rows, used_objects = set(), set()
        for _, identifier, name in sorted(pairs):
            if identifier not in used_rows and name not in used_objects:
                used_rows.add(identifier)
                used_objects.add(name)
                answer[identifier] = name
        for row in mine:
            identifier = row[0] * 1000 + row[1]
            answer.setdefault(identifier, identifier)
            objects.setdefault(answer[identifier], []).append(row)
    return answer


# Places on a grid of uneven steps near the equator: no two separations are equal by chance.
places = st.tuples(st.integers(1, 4), st.integers(0, 4000), st.integers(0, 4000))


@pytest.mark.slow
@settings(max_examples=40)
@given(st.lists(places, min_size=1, max_size=14, unique=True), st.randoms())
def test_any_order_and_any_repeat_give_what_brute_force_gives(drawn, random):
    rows = [
        (visit, number, 10.0 + x * 1.0007e-3 * SECOND, y * 1.0013e-3 * SECOND)
        for number, (visit, x, y) in enumerate(drawn)
    ]
    shuffled = random.sample(rows, len(rows))
    sources = table(shuffled)

    got = associate(sources, NOTHING)
    repeated = associate(sources, known(sources, got))
    # A crash may have left any part of the batch stored.
    part = known(sources, got).take(
        pa.array(random.sample(range(len(rows)), len(rows) // 2), pa.int64())
    )
    resumed = associate(sources, part)

    ids = sources["diaSourceId"].to_pylist()
    assert dict(zip(ids, got.dia_object_id.tolist(), strict=True)) == brute_force(rows)
    for again in (repeated, resumed):
        assert again.dia_object_id.tolist() == got.dia_object_id.tolist()
        assert again.is_new.tolist() == got.is_new.tolist()
        assert again.is_late.tolist() == got.is_late.tolist()
        np.testing.assert_array_equal(again.separation_arcsec, got.separation_arcsec)


@settings(max_examples=25)
@given(st.lists(places, min_size=1, max_size=12, unique=True))
def test_visit_by_visit_is_the_same_as_all_at_once(drawn):
    rows = [
        (visit, number, 10.0 + x * 1.0007e-3 * SECOND, y * 1.0013e-3 * SECOND)
        for number, (visit, x, y) in enumerate(drawn)
    ]
    past, answer = NOTHING, {}
    for visit in sorted({row[0] for row in rows}):
        part = table([row for row in rows if row[0] == visit])
        got = associate(part, past)
        answer |= dict(
            zip(part["diaSourceId"].to_pylist(), got.dia_object_id.tolist(), strict=True)
        )
        past = pa.concat_tables([past, known(part, got)])

    whole = table(rows)
    together = associate(whole, NOTHING)

    ids = whole["diaSourceId"].to_pylist()
    assert dict(zip(ids, together.dia_object_id.tolist(), strict=True)) == answer

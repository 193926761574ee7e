"""What people type is understood, limits hold, pages make the whole, and serving starts cleanly."""

import socket
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.api.errors import ApiError
from broker.api.limits import TokenBuckets
from broker.api.pages import decode_cursor, encode_cursor, page_of
from broker.api.resolve import HELP, galactic, notations, parse_night, parse_question
from broker.api.rows import iso_utc
from broker.cli.serve import _check_run
from broker.errors import ConfigError
from broker.types import Run

SURVEYS = ("lsst", "sim", "ztf")


@pytest.mark.parametrize(
    "text",
    [
        "150.116292 -2.201194",
        "150.116292, -2.201194",
        "150.116292,-2.201194",
        "  150.116292   -2.201194 ",
        "150.116292d -2.201194d",
        "10:00:27.91 -02:12:04.3",
        "10 00 27.91 -02 12 04.3",
        "10h00m27.91s -02d12m04.3s",
        "10:00:27.91 −02:12:04.3",
        "J100027.91-021204.3",
        "SDSS J100027.91-021204.3",
    ],
)
def test_a_place_is_understood_in_all_its_notations(text):
    asked = parse_question(text)

    assert asked.kind == "place"
    assert asked.ra == pytest.approx(150.1162917, abs=1e-6)
    assert asked.dec == pytest.approx(-2.2011944, abs=1e-6)
    assert asked.radius_arcsec == 10.0


@pytest.mark.parametrize(
    ("text", "arcsec"),
    [
        ("10 20 30", 30.0),
        ("10 20 30s", 30.0),
        ('10 20 30"', 30.0),
        ("10 20 2m", 120.0),
        ("10 20 0.5d", 1800.0),
        ("10 20 r=5", 5.0),
        ("10:00:00 +20:00:00 1.5m", 90.0),
    ],
)
def test_a_radius_stands_behind_a_place(text, arcsec):
    assert parse_question(text).radius_arcsec == pytest.approx(arcsec)


@pytest.mark.parametrize(
    "text",
    ["", "  ", "361 0", "0 91", "0 0 0", "0 0 2d", "25:00:00 +10:00:00", "10:61:00 +10:00:00"],
)
def test_a_place_that_is_not_on_the_sky_is_refused(text):
    with pytest.raises(ApiError) as refused:
        parse_question(text)

    assert refused.value.status == 400
    assert refused.value.allowed


@pytest.mark.parametrize(
    ("text", "kind", "rest"),
    [
        ("ZTF18abcdefg", "name", ("ZTF18abcdefg", None)),
        ("91955254103259883", "name", ("91955254103259883", None)),
        ("ztf:ZTF18abcdefg", "name", ("ZTF18abcdefg", "ztf")),
        ("ss:433", "name", ("ss:433", None)),
        ("topic: young-supernova", "topic", ("young-supernova", None)),
        ("night:2025-11-10", "night", ("20251110", None)),
        ("class: SNIa", "class", ("SNIa", None)),
    ],
)
def test_names_topics_and_nights_are_told_apart(text, kind, rest):
    asked = parse_question(text, SURVEYS)

    assert (asked.kind, (asked.text, asked.survey)) == (kind, rest)


def test_every_example_of_the_help_is_understood_as_its_kind():
    kinds = {kind: parse_question(example, SURVEYS).kind for kind, example, _ in HELP}

    assert kinds == {
        "id": "name",
        "survey": "name",
        "degrees": "place",
        "sexagesimal": "place",
        "name": "place",
        "topic": "topic",
        "class": "class",
        "night": "night",
    }


@pytest.mark.parametrize("text", ["2025", "20251301", "2025-02-30", "2025-0101", "tonight"])
def test_what_is_no_night_is_refused(text):
    with pytest.raises(ApiError, match="is no night"):
        parse_night(text)


@given(ra=st.floats(0.0, 360.0), dec=st.floats(-90.0, 90.0))
def test_a_place_written_in_each_notation_is_the_same_place(ra, dec):
    written = notations(ra, dec)

    for name in ("degrees", "sexagesimal"):
        asked = parse_question(written[name])
        d_ra = (asked.ra - ra + 180.0) % 360.0 - 180.0
        assert abs(d_ra) <= 1.1e-5  # half of 0.001 s of time, 7.5 mas, in degrees
        assert abs(asked.dec - dec) <= 2e-6


def test_galactic_coordinates_agree_with_astropy():
    from astropy.coordinates import SkyCoord

    rng = np.random.default_rng(5)
    ra, dec = rng.uniform(0.0, 360.0, 50), np.degrees(np.arcsin(rng.uniform(-1.0, 1.0, 50)))

    ours = SkyCoord(
        *np.transpose([galactic(*one) for one in zip(ra, dec, strict=True)]), unit="deg"
    )

    truth = SkyCoord(ra, dec, unit="deg", frame="icrs").galactic
    apart = ours.separation(SkyCoord(truth.l.deg, truth.b.deg, unit="deg")).arcsec
    assert apart.max() < 0.05  # the page shows 1e-5 deg


def test_a_time_is_written_in_utc():
    assert iso_utc(60000.0) == "2023-02-24T23:59:23.000Z"
    assert iso_utc(None) is None
    assert iso_utc(float("nan")) is None


@given(st.lists(st.tuples(st.integers(0, 50), st.text(max_size=3)), unique=True), st.integers(1, 9))
def test_pages_make_the_whole_even_when_rows_come_while_they_are_turned(rows, limit):
    there = sorted(rows)
    rows, read, cursor = there, [], None
    while True:
        page = page_of(rows, key=lambda row: row, limit=limit, cursor=cursor)
        read += page.rows
        if page.cursor is None:
            break
        cursor = page.cursor
        rows = sorted([*rows, (-1 - len(read), "early")])  # sorts before all that was read

    assert read == there
    assert len(read) == len(set(read))


def test_a_cursor_of_another_question_is_refused():
    with pytest.raises(ApiError, match="belongs to another question"):
        page_of([(1, "a")], key=lambda row: row, limit=1, cursor=encode_cursor({"a": 1}))
    with pytest.raises(ApiError, match="not one that an answer gave"):
        decode_cursor("%%%")


def test_a_client_that_waited_as_told_is_answered():
    now = [0.0]
    buckets = TokenBuckets(per_s=2.0, burst=3, clock=lambda: now[0])

    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 1]
    assert buckets.take("b") == 0  # another client has a bucket of its own
    now[0] += 1.0
    assert [buckets.take("a") for _ in range(3)] == [0, 0, 1]
    now[0] += 1000.0
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 1]  # no more than a bucket holds


def test_a_port_that_is_taken_is_one_clear_line():
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        done = subprocess.run(
            [sys.executable, "-m", "broker.cli", "serve", "--port", str(port)],
            capture_output=True,
            text=True,
            check=False,
        )

    assert done.returncode == 21
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        f"broker: cannot listen on 127.0.0.1:{port}: Address already in use; choose another with "
        "--port or BROKER_SERVE__PORT"
    ]


def test_a_run_without_tables_is_one_clear_line():
    names = ["a.alert", "a.ledger", "b.alert"]

    with pytest.raises(
        ConfigError, match=r"run live has no alerts to serve \(runs with alerts: a, b\)"
    ):
        _check_run(Run("live"), names)
    _check_run(Run("a"), names)

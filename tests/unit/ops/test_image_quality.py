"""Scorecards of many images become rows, a table and a page."""

import json

import numpy as np
import pytest
from astropy.table import Table
from click.testing import CliRunner

from broker.cli.main import cli
from broker.detection.quality.image_flags import ImageFlag
from broker.imaging.fits import write_image
from broker.imaging.message import to_image
from broker.ops.image_bench.quality import SETTINGS
from broker.ops.image_quality import held_against_each_other, rows_of, table_of
from broker.ops.image_quality_page import quality_page
from broker.ops.svg import ticks
from broker.simulation.exposure import draw_exposure
from broker.simulation.faults import NO_FAULTS, Faults
from broker.simulation.observatory import simulate_night


def card(**values):
    good = {"image": "a.fits", "visit": 1, "detector": 2, "band": "r", "midpointMjdTai": 61000.2}
    numbers = {"seeing": 1.0, "limitingMag": 24.0, "background": 500.0, "ellipticity": 0.01}
    return good | numbers | values


def test_an_image_much_worse_than_the_others_of_its_band_is_flagged():
    cards = [card() for _ in range(6)] + [card(seeing=2.0), card(band="g", seeing=2.0)]
    flags = [row["flags"] for row in rows_of(held_against_each_other(cards))]
    assert flags == [[]] * 6 + [["POOR_SEEING"], []]


def test_the_table_has_nulls_where_nothing_is_known():
    table = table_of(held_against_each_other([card(), {"image": "b.fits", "failure": "no image"}]))
    assert table["seeing"].to_pylist() == [1.0, None]
    assert table["flags"].to_pylist() == [0, int(ImageFlag.FAILED)]
    assert table["flagNames"].to_pylist() == ["", "FAILED"]
    assert table["failure"].to_pylist() == ["", "no image"]


def test_the_page_plots_every_image_and_says_why_one_is_flagged():
    cards = held_against_each_other([card(), card(), card(image="<odd>", ellipticity=0.4)])
    page = quality_page(cards, "A night")
    assert "3 images, 1 with a flag" in page
    assert page.count('fill="#d55e00"') >= 3 * 4
    assert "LOST_GUIDING: ellipticity 0.4, limit 0.07" in page
    assert "&lt;odd&gt;" in page
    assert "<odd>" not in page
    assert "src=" not in page
    assert "<script" not in page


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    folder = tmp_path_factory.mktemp("night")
    visits = simulate_night(seed=5, settings=SETTINGS).visits
    for name, faults in (("good", NO_FAULTS), ("trailed", Faults(guiding_px=7.0))):
        raw = draw_exposure(5, SETTINGS, visits[0], 0, faults=faults).raw
        write_image(folder / f"{name}.fits", to_image(raw))
    (folder / "words.fits").write_text("no image at all")
    return folder


def test_files_are_scored_and_written_as_table_and_page(night, tmp_path):
    files = [str(night / "good.fits"), str(night / "trailed.fits")]
    table, page = tmp_path / "q.vot", tmp_path / "deep" / "q.html"
    arguments = ["image", "quality", *files, "--json", "--out", str(table), "--page", str(page)]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert [row["flags"] for row in rows] == [[], ["LOST_GUIDING"]]
    read = Table.read(table)
    assert list(read["image"]) == ["good.fits", "trailed.fits"]
    np.testing.assert_allclose(read["seeing"], [row["seeing"] for row in rows])
    assert str(read["seeing"].unit) == "arcsec"
    assert "2 images, 1 with a flag" in page.read_text()


def test_a_file_that_is_no_image_is_named_and_the_others_are_scored(night):
    files = [str(night / "words.fits"), str(night / "good.fits")]
    done = CliRunner().invoke(cli, ["image", "quality", *files, "--json"])
    assert done.exit_code == 20
    rows = json.loads(done.stdout)
    assert rows[0]["flags"] == ["FAILED"]
    assert "it is not FITS" in rows[0]["failure"]
    assert rows[1]["flags"] == []


def test_files_or_a_night_are_needed():
    assert CliRunner().invoke(cli, ["image", "quality"]).exit_code == 2


@pytest.mark.parametrize(
    ("low", "high"), [(0.9, 1.24), (-0.018, 0.0005), (540.0, 2270.0), (0.0, 1e-9), (-3.0, 3.0)]
)
def test_axes_have_a_few_round_numbers_within_their_ends(low, high):
    found = ticks(low, high)
    assert 2 <= len(found) <= 5
    assert low - 1e-12 <= found[0]
    assert found[-1] <= high + 1e-12
    steps = np.diff(found) / 10.0 ** np.floor(np.log10(np.diff(found)[0]) + 1e-9)
    assert np.allclose(steps, steps[0])
    assert round(float(steps[0])) in (1, 2, 5, 10)

"""The measurement of the image steps runs, compares like with like, and finds the same results."""

import pytest

from broker.ops.image_bench import bench_image


@pytest.fixture(scope="module")
def rows():
    return {row.what: row for row in bench_image(side=512, repeats=1, say=lambda _: None)}


def test_every_step_has_a_number(rows):
    assert len(rows) >= 19
    assert all(row.measured == row.measured for row in rows.values())
    assert all((row.is_met is None) == (row.required == "") for row in rows.values())


@pytest.mark.parametrize(
    "what",
    [
        "signature removal - NumPy [e-]",
        "background, 240 sources/Mpix, |bias| / sky sigma",
        "cutout [bytes]",
        "cutout, flux error / sigma",
        "cutout, read by astropy and by us [e-]",
        "cutout, lossless - original [e-]",
        "detection - SEP, completeness",
    ],
)
def test_what_does_not_depend_on_the_machine_is_met(rows, what):
    assert rows[what].is_met


@pytest.mark.parametrize("what", ["detection / SEP, speed", "warp / SciPy's spline, speed"])
def test_ratios_to_other_programs_are_far_above_one(rows, what):
    # Half of what is asked for, since a small image on a busy machine is measured once.
    assert rows[what].measured > 0.5 * float(rows[what].required.split()[1])

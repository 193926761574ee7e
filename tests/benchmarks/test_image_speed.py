"""The measurement of the image steps runs, compares like with like, and finds the same results."""

import pytest

from broker.errors import ConfigError
from broker.ops.image_bench import bench_image

QUICK = (
    "detection",
    "signature",
    "cosmic_rays",
    "stacks",
    "simulation",
    "background",
    "measurement",
    "warping",
    "cutouts",
)


@pytest.fixture(scope="module")
def rows():
    found = bench_image(side=512, repeats=1, only=QUICK, say=lambda _: None)
    return {row.what: row for row in found}


def test_every_step_has_a_number(rows):
    assert len(rows) >= 45
    assert all(row.measured == row.measured for row in rows.values())
    assert all((row.is_met is None) == (row.required == "") for row in rows.values())


def test_a_step_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(ConfigError, match="no such step: nothing; there are detection"):
        bench_image(only=["nothing"], say=lambda _: None)


@pytest.mark.parametrize(
    "what",
    [
        "signature removal - NumPy [e-]",
        "signature removal - ccdproc [e-]",
        "signature removal, |variance / ccdproc's - 1|",
        "flats, |chi2 / dof - 1|",
        "snaps, pixels found",
        "snaps, purity",
        "snaps, core pixels per 1000 stars",
        "cosmic rays of one exposure, pixels found",
        "cosmic rays of one exposure, purity",
        "cosmic rays of one exposure, core pixels per 1000 stars",
        "star, largest difference to GalSim / peak",
        "star, |flux on the image / flux - 1|",
        "background, 240 sources/Mpix, |bias| / sky sigma",
        "cutout [bytes]",
        "cutout, flux error / sigma",
        "cutout, read by astropy and by us [e-]",
        "cutout, lossless - original [e-]",
        "coadd, share of an outlier that gets in",
        "warp, |flux bias|",
        "warp, place rms [pixel]",
        "detection - SEP, completeness",
    ],
)
def test_what_does_not_depend_on_the_machine_is_met(rows, what):
    assert rows[what].is_met


@pytest.mark.parametrize(
    "what",
    [
        "detection / SEP, speed",
        "warp / reproject bicubic, speed",
        "clipped mean / ccdproc, speed",
        "signature removal / ccdproc, speed",
    ],
)
def test_ratios_to_other_programs_are_far_above_one(rows, what):
    # Half of what is asked for, since a small image on a busy machine is measured once.
    assert rows[what].measured > 0.5 * float(rows[what].required.split()[1])

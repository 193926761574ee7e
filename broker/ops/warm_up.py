"""Compiles the loops over pixels and catalogues into the cache that workers share: once a machine.

Run as `python -m broker.ops.warm_up` with NUMBA_CACHE_DIR set, before images come; each worker
would otherwise compile for itself while images wait.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

from broker.catalog.registry import Catalogs, install_catalog
from broker.detection.dia import difference_and_detect
from broker.imaging.message import decode_image
from broker.imaging.templates import Template
from broker.simulation.calibrations import masters_of
from broker.simulation.observatory import CATALOG, make_template, reference_catalog, simulate_night
from broker.simulation.settings import REAL_CAMERA, TEST

_SEED, _SURVEY = 5, replace(TEST, camera=REAL_CAMERA)
"""Its first image has transients to measure: every loop is compiled."""


def warm_up() -> int:
    """Draw a small image, subtract its template, detect, match; return the number of diaSources."""
    template = make_template(_SEED, _SURVEY, 0, 0, _SURVEY.bands[0])
    exposure = next(simulate_night(seed=_SEED, settings=_SURVEY).exposures())
    image = decode_image(exposure.message.value or b"", masters_of(_SEED, _SURVEY, 0))
    sources = difference_and_detect(image, Template(template, "warm-up")).sources
    with tempfile.TemporaryDirectory() as folder:
        rows = reference_catalog(_SEED, _SURVEY)
        install_catalog(Path(folder), CATALOG, rows, "warm-up")
        Catalogs(Path(folder)).match(rows["ra"].to_numpy(), rows["dec"].to_numpy())
    return sources.num_rows


if __name__ == "__main__":
    warm_up()

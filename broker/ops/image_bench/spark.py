"""Images through Spark: speed, overhead, nothing lost, and a worker that is killed in mid-run."""

import os
import tempfile
from pathlib import Path

import numpy as np

from broker.bench_rows import Row, at_least, at_most
from broker.config import load_config
from broker.imaging.fits import write_raw
from broker.imaging.image import RawExposure
from broker.ops.image_bench.rows import SIGMA, field, make_image, make_wcs

_IMAGES, _FILES = 4, 400
_BIAS = 1000.0


def rows(side: int, repeats: int) -> list[Row]:  # noqa: ARG001  a run is long enough to be one
    """Return the rows of images through Spark; 400 files, of the side that is asked for."""
    from broker.batch.measure import measure_images

    config = load_config()
    with tempfile.TemporaryDirectory(prefix="broker-bench-") as folder:
        images = [_write(Path(folder) / f"{k}.fits", side, k) for k in range(_IMAGES)]
        copies = _FILES // _IMAGES
        whole = measure_images(config, images, copies)
        struck = measure_images(config, images, copies, kill=True)
    slower = struck.report.wall_s / whole.report.wall_s
    # By the clock, so what else the machine does counts.
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    return [
        at_least("Spark, raw pixels [MB/s/core]", whole.speed, 30.0, f"Kira 6.3; {load}"),
        Row("Spark, of the programs' time alone [MB/s/core]", whole.cpu_speed, "", "", None),
        at_most("Spark, overhead beside the tasks' time", whole.report.overhead, 0.10,
                f"Sparktractor 0.43; {load}"),
        at_most("Spark, share of all processor time that is no program's", whole.cpu_overhead, 0.10,
                "no clock in it"),
        at_most(f"Spark, files lost of {_FILES}", float(whole.lost), 0.0, ""),
        at_least("Spark, results as a plain loop's", float(whole.is_same), 1.0, ""),
        at_least("Spark, a worker killed: same catalogues", float(struck.is_same), 1.0, ""),
        at_most(f"Spark, a worker killed: time ({config.stream.master})", slower, 1.3, ""),
    ]  # fmt: skip


def _write(path: Path, side: int, seed: int) -> Path:
    counts, *_ = field(side, seed=seed + 1, sigma=SIGMA)
    image = make_image(counts, make_wcs(side))
    pixels = np.clip(np.rint(counts + _BIAS + 200.0), 0, 65_535).astype(np.uint16)
    write_raw(path, RawExposure(pixels, image.wcs, image.psf, image.calibration, _BIAS))
    return path

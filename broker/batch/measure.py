"""How well work on images is spread: speed through Spark, overhead, what a killed worker costs.

For `broker bench image`. Cores are those of the session; times are the clock's, since waiting is
what is measured, beside the programs' own.
"""

import hashlib
import json
import os
import signal
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from broker.batch.images import Report, results, run_images
from broker.batch.program_run import DONE, run_program
from broker.batch.programs import find_program
from broker.config import Config
from broker.spark.session import make_session, stop_session

_PROGRAM = "broker.batch.measure:count_sources"


@dataclass(frozen=True)
class Measured:
    """What a run through Spark took.

    Parameters
    ----------
    report : Report
    megabytes : float
        Raw pixels of all images. [MB]
    is_same : bool
        Whether every result is that of a plain loop, and a worker was killed if one should be.
    lost : int
        Files without a row, or that are not done.
    spent_s : float
        Processor time of all that took part: driver, Spark's Java process, its workers, the
        programs. [s]
    """

    report: Report
    megabytes: float
    is_same: bool
    lost: int
    spent_s: float

    @property
    def cpu_overhead(self) -> float:
        """Share of all processor time that is no program's, whatever else the machine does."""
        return 1.0 - self.report.cpu_s / max(self.spent_s, 1e-9)

    @property
    def speed(self) -> float:
        """Raw pixels through detection by second of a core's time. [MB/s]"""
        return self.megabytes / max(self.report.cores * self.report.wall_s, 1e-9)

    @property
    def cpu_speed(self) -> float:
        """The same by second of the programs' processor time. [MB/s]"""
        return self.megabytes / max(self.report.cpu_s, 1e-9)


def count_sources(path: str, *, strike: str = "", marker: str = "") -> dict[str, Any]:
    """Find the point sources of a raw 16-bit image: their number, and a hash of the catalogue.

    The first time that it meets the file named `strike` it kills the process that started it, a
    worker of Spark's, not to be caught; `marker` is the file that remembers it.
    """
    from broker.detection.detect import detect
    from broker.imaging.background import fit_background
    from broker.imaging.fits import read_frames

    if strike and Path(path).name == strike and not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getppid(), signal.SIGKILL)
    pixels = read_frames(Path(path))[0].pixels.astype(np.float32)
    none = np.zeros(pixels.shape, bool)
    sky = fit_background(pixels, unusable=none, psf_sigma=2.0)
    variance = np.full(pixels.shape, np.float32(sky.sigma) ** 2, np.float32)
    peaks = detect(pixels - sky.level, variance, psf_sigma=2.0, unusable=none, negative=False)
    found = hashlib.sha256(peaks.x.tobytes() + peaks.y.tobytes() + peaks.flux.tobytes())
    return {"n": len(peaks), "catalogue": found.hexdigest()}


def measure_images(
    config: Config, images: Sequence[Path], copies: int, *, kill: bool = False
) -> Measured:
    """Run detection on raw images through Spark and compare with a plain loop.

    Parameters
    ----------
    config : Config
    images : sequence of Path
        Raw images of 16 bits.
    copies : int
        How often each is worked on, under names of its own.
    kill : bool
        Kill one of Spark's Python workers in the middle.
    """
    program = find_program(_PROGRAM)
    with tempfile.TemporaryDirectory(prefix="broker-measure-") as folder:
        home = Path(folder)
        links = {home / f"{k:04d}-{i}.fits": p for k in range(copies) for i, p in enumerate(images)}
        for link, path in links.items():
            link.symlink_to(path.resolve())
        struck = {"strike": f"{copies // 2:04d}-0.fits", "marker": str(home / "struck")}
        chosen = find_program(_PROGRAM, settings=struck) if kill else program
        spark = make_session(replace(config, home=home / "home"), "measure", jars=())
        try:
            run_images(spark, program, list(links)[:4], home / "warm")
            before = spent_s()
            report = run_images(spark, chosen, list(links), home / "out")
            spent = spent_s() - before
        finally:
            stop_session(spark)
        was_struck = Path(struck["marker"]).exists()
        rows = {Path(row["path"]): row for row in results(home / "out")}
    loop = {o.path: o.result for o in run_program(program, [str(p) for p in images])}
    done = {p for p, row in rows.items() if row["status"] == DONE}
    same = all(json.dumps(rows[link]["result"]) == loop[str(p)] for link, p in links.items())
    size = copies * sum(p.stat().st_size for p in images) / 1e6
    return Measured(report, size, same and was_struck == kill, len(links) - len(done), spent)


def spent_s() -> float:
    """Return the processor time of this process and all that it has started. [s]

    A process that has ended is in that of the one that waited for it.
    """
    me = psutil.Process()
    total = 0.0
    for process in (me, *me.children(recursive=True)):
        with suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return float(total)

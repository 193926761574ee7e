"""How fast and how good the image steps are, each beside a known program on the same data.

Each step runs in a process of its own with the environment that workers have. Times are processor
seconds of that process, so another program on the machine does not count. Repeats of both sides
take turns; the median is given.
"""

import importlib
import time
from collections.abc import Callable, Collection

from broker.bench_rows import Row
from broker.errors import ConfigError
from broker.ops.image_bench.step import run_step

# Modules of this package with a function `rows(side, repeats) -> list[Row]`.
STEPS = (
    "detection",
    "signature",
    "cosmic_rays",
    "stacks",
    "sky",
    "simulation",
    "background",
    "lattice",
    "measurement",
    "photometry",
    "profiles",
    "deblending",
    "warping",
    "cutouts",
    "difference",
    "chain",
    "quality",
    "provenance",
    "reliability",
    "association",
    "spark",
    "kafka",
)


def bench_image(
    *,
    side: int = 2048,
    repeats: int = 5,
    only: Collection[str] = (),
    say: Callable[[str], None],
) -> list[Row]:
    """Measure the image steps.

    Parameters
    ----------
    side : int
        Of the square images. [pixel]
    repeats : int
    only : collection of str
        Names of `STEPS`; empty for all.
    say : callable
        Gets a word on each step that begins, and how long it took.

    Raises
    ------
    ConfigError
        If there is no such step.

    Notes
    -----
    A step that cannot be measured, as without a program to compare with or without servers, is a
    row that falls short and says why.
    """
    unknown = sorted(set(only) - set(STEPS))
    if unknown:
        raise ConfigError(f"no such step: {', '.join(unknown)}; there are {', '.join(STEPS)}")
    chosen = [name for name in STEPS if not only or name in only]
    rows: list[Row] = []
    began, spent = time.perf_counter(), 0.0
    for number, name in enumerate(chosen, start=1):
        step = importlib.import_module(f"{__name__}.{name}")
        say(f"[{number}/{len(chosen)}] {name}: {(step.__doc__ or '').splitlines()[0]}")
        start = time.perf_counter()
        try:
            found, used = run_step(name, side, repeats)
        except ConfigError as error:
            found, used = [Row(error.message, float("nan"), "measured", "", False)], 0.0
        say(f"    {time.perf_counter() - start:.0f} s, {used:.0f} s of processor time")
        rows += found
        spent += used
    minutes = (time.perf_counter() - began) / 60.0
    words = f"{spent / 60.0:.1f} of processor time"
    return [*rows, Row("this measurement [min by the clock]", minutes, "", words, None)]

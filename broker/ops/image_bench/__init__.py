"""How fast and how good the image steps are, each beside a known program on the same data.

Times are processor seconds of this process, so another program on the machine does not count.
Repeats of both sides take turns; the median is given.
"""

import importlib
from collections.abc import Callable, Collection

from broker.errors import ConfigError
from broker.ops.image_bench.rows import Row

# Modules of this package with a function `rows(side, repeats) -> list[Row]`.
STEPS = (
    "detection",
    "signature",
    "cosmic_rays",
    "stacks",
    "simulation",
    "background",
    "lattice",
    "measurement",
    "photometry",
    "deblending",
    "warping",
    "cutouts",
    "difference",
    "chain",
    "quality",
    "reliability",
    "association",
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
        Gets a word on each step that begins.

    Raises
    ------
    ConfigError
        If there is no such step, or a program to compare with is not installed.
    """
    unknown = sorted(set(only) - set(STEPS))
    if unknown:
        raise ConfigError(f"no such step: {', '.join(unknown)}; there are {', '.join(STEPS)}")
    rows: list[Row] = []
    for name in STEPS:
        if only and name not in only:
            continue
        step = importlib.import_module(f"{__name__}.{name}")
        say((step.__doc__ or "").splitlines()[0])
        rows += step.rows(side, repeats)
    return rows

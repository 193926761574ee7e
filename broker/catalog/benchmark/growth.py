"""How cost grows with the number of rows, as a table and a plot."""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from broker.bench_rows import Row
from broker.catalog.benchmark.layout import write_layout
from broker.catalog.benchmark.sizes import Sizes
from broker.catalog.benchmark.stars import (
    BATCH,
    NAME,
    RADIUS_ARCSEC,
    install_stars,
    match_rate,
    places_near,
    tree_of,
    tree_rate,
)
from broker.catalog.neighbours import nearest_to, pairs_within
from broker.catalog.registry import Catalogs

PLOT = "catalog-growth.png"
_LARGEST_IMPORT, _JOINED, _ALERTS = 10_000_000, 200_000, 50_000

Costs = dict[str, float]


def rows(sizes: Sizes) -> list[Row]:
    """Return the rows of this step."""
    steps = [n for n in (10**k for k in range(5, 9)) if n <= sizes.points] or [sizes.points]
    found: list[Row] = []
    costs: list[Costs] = []
    _costs(1000)  # loads and compiles what is measured
    for n in steps:
        cost = _costs(n)
        costs.append(cost)
        found += [Row(f"{n:.0e} rows: {what}", value) for what, value in cost.items()]
    if sizes.out is not None:
        sizes.out.mkdir(parents=True, exist_ok=True)
        _plot(sizes.out / PLOT, steps, costs)
    return found


def _costs(n: int) -> Costs:
    rng = np.random.default_rng(5)
    cost: Costs = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        if n <= _LARGEST_IMPORT:
            _, _, seconds = install_stars(path, n, 4)
            cost["import, us/row"] = 1e6 * seconds / n
        else:
            write_layout(path, NAME, n, radius_arcsec=RADIUS_ARCSEC, share=1.0, seed=4)
        catalogs = Catalogs(path)
        stars = catalogs.rows(NAME)
        assert stars is not None  # noqa: S101 - it was added
        look = places_near(rng, stars.ra, stars.dec, _ALERTS)
        match_rate(catalogs, look, BATCH)
        rates = [match_rate(catalogs, look, BATCH)[0] for _ in range(3)]
        cost["match, us/alert"] = 1e6 / float(np.median(rates))
        k = min(1000, n)
        cost["1000 nearest of a place, ms"] = 1e3 * _least(lambda: nearest_to(stars, 10.0, 20.0, k))
        cost["join with itself, us/row"] = 1e6 * _join_s(stars) / min(_JOINED, n)
        cost["on disk, bytes/row"] = stars.table.nbytes / n
        if n <= _LARGEST_IMPORT:
            tree, seconds = tree_of(stars.ra, stars.dec)
            cost["SciPy's tree, to build, us/row"] = 1e6 * seconds / n
            cost["SciPy's tree, match, us/alert"] = 1e6 / tree_rate(tree, look, BATCH)
    return cost


def _join_s(stars: Any) -> float:
    """Return the processor time for the neighbours of a run of rows, in blocks. [s]"""
    first = len(stars) // 3
    end = min(first + _JOINED, len(stars))
    began = time.process_time()
    for a in range(first, end, 20_000):
        some = slice(a, min(a + 20_000, end))
        pairs_within(stars, stars.ra[some], stars.dec[some], RADIUS_ARCSEC)
    return time.process_time() - began


def _least(call: Any, turns: int = 3) -> float:
    times = []
    for _ in range(turns):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return min(times)


def _plot(path: Path, steps: list[int], costs: list[Costs]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for what in costs[0]:
        values = [cost.get(what, np.nan) for cost in costs]
        axes.loglog(steps, values, marker="o", label=what)
    axes.set_xlabel("rows of the catalogue")
    axes.set_ylabel("cost in the unit named, one core")
    axes.set_title("Growth of cost with the size of a catalogue")
    axes.grid(which="major", alpha=0.3)
    axes.set_ylim(bottom=0.1)
    figure.legend(fontsize="small", loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=150)

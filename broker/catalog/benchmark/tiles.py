"""Matches with a catalogue of 1e9 rows: tiles in memory, and tiles that are read from the disk."""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from broker.bench_rows import Row, at_least
from broker.catalog.benchmark.layout import (
    TILE_ORDER,
    Layout,
    drop_from_memory,
    write_layout,
)
from broker.catalog.benchmark.sizes import Sizes
from broker.catalog.benchmark.stars import (
    BATCH,
    NAME,
    RADIUS_ARCSEC,
    match_rate,
    tree_of,
    tree_rate,
)
from broker.catalog.healpix import FINEST_ORDER
from broker.catalog.partition import Rows
from broker.catalog.registry import Catalogs

LEAST_PER_S = 150_000.0
_INDEX_BYTES, _ROW_BYTES = 8, 66
_SHARE_OF_DISK, _MOST_TILES_GB = 0.4, 6.0
_LARGEST_TREE = 5_000_000
_FIELD_ALERTS, _VISITS, _FIELD_DEG = 10_000, 5, 1.75

_Rates = tuple[float, float, float]
"""Alerts per second of the first visit, of all, and of all but the first."""


def rows(sizes: Sizes) -> list[Row]:
    """Return the rows of this step."""
    n = sizes.layout_rows
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        share = _share(shutil.disk_usage(path).free, n)
        began = time.perf_counter()
        layout = write_layout(path, NAME, n, radius_arcsec=RADIUS_ARCSEC, share=share, seed=1)
        made_s = time.perf_counter() - began
        return [
            Row(
                f"layout of {n:.0e} rows, share of tiles with values",
                share,
                anchor=f"index of every row; {layout.disk_gb:.1f} GB in {made_s:.0f} s",
            ),
            *_measured(path, layout, sizes),
        ]


def _share(free: int, n: int) -> float:
    """Return how many of the tiles may have values on this disk."""
    room = min(_SHARE_OF_DISK * free - _INDEX_BYTES * n, _MOST_TILES_GB * 1e9)
    return float(np.clip(room / (_ROW_BYTES * n), 1.0 / (12 * 4**TILE_ORDER), 1.0))


def _measured(path: Path, layout: Layout, sizes: Sizes) -> list[Row]:
    rng = np.random.default_rng(2)
    n = f"{sizes.layout_rows:.0e} rows"
    opened = Catalogs(path)
    all_rows = opened.rows(NAME)
    assert all_rows is not None  # noqa: S101 - it was added
    anywhere = _places(rng, all_rows, layout, sizes.alerts)
    fields = [_field(rng, all_rows, layout) for _ in range(3)]
    rates = [match_rate(opened, anywhere, BATCH) for _ in range(3)]
    warm = float(np.median([rate for rate, _ in rates[1:]]))
    found = float((rates[0][1][0].column(f"{NAME}Match").to_numpy() == 1).mean())
    beside = _tree(all_rows, layout, anywhere)
    del opened, all_rows, rates
    visits = [_visits(path, layout, f) for f in fields]
    cold, whole, again = np.median([clock for clock, _ in visits], axis=0).tolist()
    cold_core, whole_core, _ = np.median([core for _, core in visits], axis=0).tolist()
    what = f"{_VISITS} visits of a field, the first one cold"
    return [
        at_least(
            f"match anywhere in tiles in memory, {n}, alerts/s/core", warm, LEAST_PER_S, beside
        ),
        at_least("share of these with the star that is there", found, 0.5),
        at_least(
            f"{what}, {n}, alerts/s/core",
            whole_core,
            LEAST_PER_S,
            f"{_FIELD_ALERTS} alerts a visit; of the first {cold_core:.0f}",
        ),
        Row(
            f"{what}, alerts/s by the clock",
            whole,
            anchor=f"with waits for the disk; from the second on {again:.0f}",
        ),
        Row("first visit of a field, all of it cold, alerts/s by the clock", cold),
    ]


def _places(rng: np.random.Generator, stars: Rows, layout: Layout, n: int) -> tuple[Any, Any]:
    """Return positions in tiles with values; every second one is a star's, the rest are off it."""
    first, end = _bounds(stars, layout)
    tile = rng.integers(first.size, size=n)
    return _off_stars(stars, rng.integers(first[tile], end[tile]))


def _bounds(stars: Rows, layout: Layout) -> tuple[Any, Any]:
    """Return the first row of each tile with values, and the one after its last."""
    shift = np.uint64(2 * (FINEST_ORDER - TILE_ORDER))
    tiles = np.asarray(layout.tiles).astype(np.uint64)
    first = np.searchsorted(stars.pixels, tiles << shift)
    return first, np.searchsorted(stars.pixels, (tiles + np.uint64(1)) << shift)


def _tree(stars: Rows, layout: Layout, look: tuple[Any, Any]) -> str:
    """Return what SciPy's tree reaches with so many of these rows as a machine easily holds."""
    first, end = _bounds(stars, layout)
    chosen = np.cumsum(end - first) <= _LARGEST_TREE
    chosen[0] = True
    some = np.concatenate(
        [np.arange(a, b) for a, b in zip(first[chosen], end[chosen], strict=True)]
    )
    tree, made_s = tree_of(stars.ra[some], stars.dec[some])
    per_s = tree_rate(tree, look, BATCH)
    return (
        f"SciPy cKDTree of {some.size:.0e} of them: {per_s:.0f}, {made_s:.0f} s to build; "
        f"all of {len(stars):.0e} need {24e-9 * len(stars):.2g} GB of vectors"
    )


def _off_stars(stars: Rows, row: Any) -> tuple[Any, Any]:
    ra, dec = stars.ra[row].copy(), stars.dec[row].copy()
    dec[1::2] += np.where(dec[1::2] > 0, -7.0, 7.0) / 3600.0
    return ra, dec


def _field(rng: np.random.Generator, stars: Rows, layout: Layout) -> list[tuple[Any, Any]]:
    """Return the alerts of visits of one field: stars of a filled tile, others each visit."""
    tile = np.uint64(rng.choice(layout.tiles))
    shift = np.uint64(2 * (FINEST_ORDER - TILE_ORDER))
    first, end = np.searchsorted(stars.pixels, np.array([tile, tile + np.uint64(1)]) << shift)
    return [_off_stars(stars, rng.integers(first, end, _FIELD_ALERTS)) for _ in range(_VISITS)]


def _visits(path: Path, layout: Layout, field: list[tuple[Any, Any]]) -> tuple[_Rates, _Rates]:
    """Return alerts per second by the clock and of processor time.

    By the clock means with the seconds in which the disk is waited for, less those in which another
    program had the core.
    """
    drop_from_memory(layout.file)
    catalogs = Catalogs(path)
    clock, core = [], []
    for look in field:
        began = time.perf_counter() - _waited_for_a_core(), time.process_time()
        match_rate(catalogs, look, BATCH)
        clock.append(time.perf_counter() - _waited_for_a_core() - began[0])
        core.append(time.process_time() - began[1])
    return _rates(clock), _rates(core)


def _rates(times: list[float]) -> _Rates:
    n = _FIELD_ALERTS
    return n / times[0], n * len(times) / sum(times), n * (len(times) - 1) / sum(times[1:])


def _waited_for_a_core() -> float:
    """Return how long this thread could have run and did not; 0 where that is not known. [s]"""
    file = Path("/proc/thread-self/schedstat")
    return int(file.read_text(encoding="utf-8").split()[1]) / 1e9 if file.exists() else 0.0

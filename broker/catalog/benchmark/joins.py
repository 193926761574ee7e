"""A join of two catalogues by place, beside LSDB on the same rows."""

import contextlib
import io
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from broker.bench_rows import Row, at_least
from broker.catalog.benchmark.paper import rows_on_paper
from broker.catalog.benchmark.sizes import Sizes
from broker.catalog.benchmark.stars import RADIUS_ARCSEC, even_sky, star_table
from broker.catalog.coverage import all_sky
from broker.catalog.definition import definition_of
from broker.catalog.hats import export_hats
from broker.catalog.install import install_catalog
from broker.catalog.neighbours import pairs_within
from broker.catalog.partition import Rows, open_rows

LEAST_RATIO = 3.0
_LEFT, _RIGHT = "gaia", "reference"
_MARGIN_ARCSEC = 10.0
_AT_ONCE = 20_000


def rows(sizes: Sizes) -> list[Row]:
    """Return the rows of this step."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        _install(path, sizes.rows)
        left, right = (open_rows(path / name) for name in (_LEFT, _RIGHT))
        for rows_, name in ((left, _LEFT), (right, _RIGHT)):
            export_hats(
                rows_, definition_of(name), path / f"{name}_hats", margin_arcsec=_MARGIN_ARCSEC
            )
        pairs_within(right, left.ra[:10], left.dec[:10], RADIUS_ARCSEC)  # compiles
        began, clock = time.process_time(), time.perf_counter()
        ours = _join(left, right)
        seconds, wall = time.process_time() - began, time.perf_counter() - clock
        theirs, their_seconds, their_wall = _lsdb(path)
    same = _same(left, right, ours, theirs)
    n = f"{sizes.rows:.0e}"
    return [
        at_least(
            f"join of {n} x {n}, times as fast as LSDB",
            their_seconds / seconds,
            LEAST_RATIO,
            f"LSDB on the same rows as HATS: {their_seconds:.1f} s of processor, "
            f"{their_wall:.1f} s of the clock",
        ),
        Row(f"join of {n} x {n}, s of processor", seconds, anchor=f"clock: {wall:.1f} s"),
        Row("pairs", float(ours[0].size), anchor=f"LSDB: {len(theirs)}"),
        at_least("same pairs as LSDB, share", same, 1.0),
        *rows_on_paper(1e6 * seconds / sizes.rows),
    ]


def _install(path: Path, n: int) -> None:
    """Add two catalogues: half of the stars of one are, 0.3 arcsec off, in the other."""
    rng = np.random.default_rng(3)
    ra, dec = even_sky(rng, n)
    install_catalog(path, _LEFT, star_table(rng, ra, dec), "bench", coverage=all_sky())
    other_ra, other_dec = even_sky(rng, n)
    other_ra[::2] = ra[::2]
    other_dec[::2] = np.clip(dec[::2] + rng.normal(0.0, 0.3, ra[::2].size) / 3600.0, -90.0, 90.0)
    table = star_table(rng, other_ra, other_dec).select(["id", "ra", "dec"])
    install_catalog(path, _RIGHT, table, "bench", coverage=all_sky())


def _join(left: Rows, right: Rows) -> tuple[Any, Any]:
    """Return rows of the left and the nearest of the right one, in blocks as on Spark."""
    found = []
    for first in range(0, len(left), _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        position, row, _ = pairs_within(right, left.ra[some], left.dec[some], RADIUS_ARCSEC)
        nearest = np.flatnonzero(np.diff(position, prepend=-1))
        found.append((position[nearest] + first, row[nearest]))
    position, row = (np.concatenate(part) for part in zip(*found, strict=True))
    return position, row


def _lsdb(path: Path) -> tuple[Any, float, float]:
    import lsdb

    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")  # of the libraries below LSDB
        columns = ["id", "ra", "dec"]
        ways = {"n_neighbors": 1, "radius_arcsec": RADIUS_ARCSEC, "suffixes": ("_a", "_b")}
        for part in (True, False):  # first a small part: nothing is loaded or compiled later
            began, clock = time.process_time(), time.perf_counter()
            left, right = (
                lsdb.open_catalog(path / f"{name}_hats", columns=columns)
                for name in (_LEFT, _RIGHT)
            )
            if part:
                left = left.cone_search(10.0, 20.0, 3600.0)
            found = left.crossmatch(right, **ways).compute()
        took = time.process_time() - began, time.perf_counter() - clock
    return found, *took


def _same(left: Rows, right: Rows, ours: Any, theirs: Any) -> float:
    position, row = ours
    mine = np.stack([_ids(left)[position], _ids(right)[row]])
    other = np.stack([theirs[name].to_numpy().astype(np.int64) for name in ("id_a", "id_b")])
    mine, other = (pairs[:, np.argsort(pairs[0])] for pairs in (mine, other))
    if mine.shape != other.shape:
        return 0.0
    return float((mine == other).all(axis=0).mean())


def _ids(rows_: Rows) -> Any:
    import pyarrow as pa

    return rows_.table.column("id").cast(pa.int64()).to_numpy()

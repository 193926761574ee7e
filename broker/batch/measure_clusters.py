"""Density clusters of a catalogue on Spark, beside scikit-learn: for `broker bench catalog`."""

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from broker.batch.catalogs import clusters
from broker.batch.measure import spent_s
from broker.bench_rows import Row, at_least, at_most
from broker.catalog.benchmark.sizes import Sizes
from broker.catalog.benchmark.stars import even_sky
from broker.catalog.coverage import all_sky
from broker.catalog.distance import Distance, vectors
from broker.catalog.install import install_catalog
from broker.catalog.registry import Catalogs
from broker.config import Config
from broker.spark.session import make_session, stop_session

LONGEST_S = 60.0
_WITH_DISTANCE = "reference"
_NAME, _MIN_POINTS, _IN_CLUSTERS, _CLUSTER_SIZE = "gaia", 5, 0.3, 20
_COMPARED, _IN_SPACE = 1_000_000, 500_000


@dataclass(frozen=True)
class _Run:
    """What clusters of one catalogue took, and in scikit-learn. [s]

    `clock` and `spent` are ours, by the clock and of processor; `theirs` and `their_spent` are
    None where scikit-learn did not try; `same` is the share of entries that agree.
    """

    n: int
    clock: float
    spent: float
    clusters: int
    theirs: float | None = None
    their_spent: float = 0.0
    same: float = 1.0

    @property
    def row(self) -> Row:
        """As one of the table."""
        said = f"{self.clock:.1f} s by the clock; scikit-learn "
        if self.theirs is None:
            said += "not asked"
        else:
            their_us = 1e6 * self.their_spent / self.n
            said += f"{their_us:.1f} us, {self.theirs:.1f} s by the clock"
        what = f"clusters of {self.n:.0e} entries, us of processor an entry"
        return Row(what, 1e6 * self.spent / self.n, anchor=said)


def rows(sizes: Sizes, config: Config) -> list[Row]:
    """Return the rows of this step; two cores of Spark.

    The catalogues have 7 of 10 entries spread evenly and the others in clumps of 20. scikit-learn
    has them whole, up to a million entries; what it takes for more grows at least in proportion.
    """
    n = sizes.rows
    steps = sorted({min(n, 100_000), min(n, _COMPARED), n})
    on_two = replace(config, stream=replace(config.stream, master="local[2]"))
    session = make_session(on_two, "bench", jars=())
    try:
        _run(session, 1000)  # starts Spark's workers, loads and compiles
        least = min(_run(session, 1000).clock for _ in range(2))
        runs = [_run(session, step) for step in steps]
        in_space = _in_space(session, min(n, _IN_SPACE))
    finally:
        stop_session(session)
    last, beside = runs[-1], max((r for r in runs if r.theirs), key=lambda run: run.n)
    assert beside.theirs is not None  # noqa: S101 - chosen for it
    return [
        Row("Spark's own for two passes, s of the clock", least, anchor="1000 entries"),
        *(run.row for run in runs),
        at_most(
            f"clusters of {n:.0e} entries on 2 cores, s of the clock",
            last.clock,
            LONGEST_S,
            f"half of its {last.spent:.1f} s of processor: {last.spent / 2.0:.1f}; scikit-learn "
            f"DBSCAN of {beside.n:.0e} in proportion: {beside.theirs * n / beside.n:.0f} s",
        ),
        Row("clusters found", float(last.clusters)),
        at_least(
            "core entries and their clusters as scikit-learn's, share",
            min(run.same for run in runs),
            1.0,
        ),
        *in_space,
    ]


def _run(session: Any, n: int) -> _Run:
    """Cluster a catalogue of n entries, and have scikit-learn do it if there are not too many."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        reach = _install(path, n)
        began, before = time.perf_counter(), spent_s()
        ours = clusters(session, path, _NAME, radius_arcsec=reach, min_points=_MIN_POINTS)
        clock, spent = time.perf_counter() - began, spent_s() - before
        number = int(ours.column("cluster").to_numpy().max()) + 1
        if n > _COMPARED:
            return _Run(n, clock, spent, number)
        stars = Catalogs(path).rows(_NAME)
        assert stars is not None  # noqa: S101 - it was added
        places = _vectors(stars.ra, stars.dec)
    chord = 2.0 * np.sin(np.radians(reach / 3600.0) / 2.0)
    same, theirs, their_spent = _beside_sklearn(ours, places, chord)
    return _Run(n, clock, spent, number, theirs, their_spent, same)


def _install(path: Path, n: int) -> float:
    """Add a catalogue; return a reach of a quarter of the mean distance of its entries. [arcsec]"""
    rng = np.random.default_rng(8)
    ra, dec = even_sky(rng, n)
    reach = 0.25 * 3600.0 * float(np.degrees(np.sqrt(4.0 * np.pi / n)))
    clumped = int(n * _IN_CLUSTERS) // _CLUSTER_SIZE * _CLUSTER_SIZE
    of = np.repeat(np.arange(clumped // _CLUSTER_SIZE), _CLUSTER_SIZE)
    away = rng.normal(0.0, 0.5 * reach / 3600.0, (2, clumped))
    centre = np.clip(dec[of], -89.0, 89.0)
    ra[:clumped] = (ra[of] + away[0] / np.cos(np.radians(centre))) % 360.0
    dec[:clumped] = np.clip(centre + away[1], -90.0, 90.0)
    table = pa.table({"id": pa.array(np.arange(n)).cast(pa.large_string()), "ra": ra, "dec": dec})
    install_catalog(path, _NAME, table, "bench", coverage=all_sky())
    return reach


def _beside_sklearn(ours: pa.Table, places: Any, reach: float) -> tuple[float, float, float]:
    """Return the share of entries that agree; scikit-learn's seconds, by clock and processor."""
    from sklearn.cluster import DBSCAN

    began, before = time.perf_counter(), time.process_time()
    theirs = DBSCAN(eps=reach, min_samples=_MIN_POINTS, algorithm="kd_tree", n_jobs=2).fit(places)
    their_s, spent = time.perf_counter() - began, time.process_time() - before
    core = np.zeros(len(places), dtype=bool)
    core[theirs.core_sample_indices_] = True
    is_core = ours.column("isCore").to_numpy()
    mine, other = ours.column("cluster").to_numpy(), theirs.labels_
    # Both number clusters by their first core row, and differ in whose a border entry is.
    same = (core == is_core) & (~core | (mine == other)) & ((mine < 0) == (other < 0))
    return float(same.mean()), their_s, spent


def _in_space(session: Any, n: int) -> list[Row]:
    """Return the rows of clusters in three dimensions: n entries in a ball, 3 of 10 in clumps."""
    rng, by = np.random.default_rng(9), Distance("redshift")
    reach = 0.4 * float(np.cbrt(4.0 / n))
    ra, dec = even_sky(rng, n)
    places = vectors(ra, dec, np.cbrt(rng.uniform(0.0, 1.0, n)))
    of = np.arange(int(n * _IN_CLUSTERS)) // _CLUSTER_SIZE * _CLUSTER_SIZE
    places[: of.size] = places[of] + rng.normal(0.0, 0.5 * reach, (of.size, 3))
    length = np.linalg.norm(places, axis=1)
    table = pa.table(
        {
            "id": pa.array(np.arange(n)).cast(pa.large_string()),
            "ra": np.degrees(np.arctan2(places[:, 1], places[:, 0])) % 360.0,
            "dec": np.degrees(np.arcsin(places[:, 2] / length)),
            "redshift": length,
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        install_catalog(path, _WITH_DISTANCE, table, "bench", coverage=all_sky())
        ask: dict[str, Any] = {"radius": reach, "distance": by, "min_points": _MIN_POINTS}
        clusters(session, path, _WITH_DISTANCE, **ask)  # makes the index
        began = time.perf_counter()
        ours = clusters(session, path, _WITH_DISTANCE, **ask)
        seconds = time.perf_counter() - began
        entries = Catalogs(path).rows(_WITH_DISTANCE)
        assert entries is not None  # noqa: S101 - it was added
        there = vectors(entries.ra, entries.dec, by.values(entries))
    same, their_s, _ = _beside_sklearn(ours, there, reach)
    return [
        Row(
            f"clusters of {n:.0e} entries in space on 2 cores, s of the clock",
            seconds,
            anchor=f"scikit-learn DBSCAN: {their_s:.1f} s",
        ),
        at_least("in space: core entries and their clusters as scikit-learn's, share", same, 1.0),
    ]


def _vectors(ra: Any, dec: Any) -> Any:
    a, d = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=1)

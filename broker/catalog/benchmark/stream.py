"""Import, and matches as the stream's workers ask for them, beside astropy."""

import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from broker.bench_rows import Row, at_least, at_most
from broker.catalog.benchmark.sizes import Sizes
from broker.catalog.benchmark.stars import (
    BATCH,
    NAME,
    RADIUS_ARCSEC,
    even_sky,
    match_rate,
    places_near,
    star_table,
)
from broker.catalog.coverage import all_sky
from broker.catalog.install import install_catalog
from broker.catalog.registry import Catalogs

LEAST_MATCH_PER_S, LEAST_IMPORT_PER_S = 400_000.0, 1e6
_MOST_PRIVATE_MB = 64.0


def rows(sizes: Sizes) -> list[Row]:
    """Return the rows of this step."""
    rng = np.random.default_rng(1)
    ra, dec = even_sky(rng, sizes.rows)
    look = places_near(rng, ra, dec, sizes.alerts)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        found = _import_rows(path, star_table(rng, ra, dec))
        catalogs = Catalogs(path)
        catalogs.match(look[0][:BATCH], look[1][:BATCH])  # compiles
        turns = [match_rate(catalogs, look, BATCH) for _ in range(3)]
        per_s = float(np.median([turn[0] for turn in turns]))
        large_per_s, matches = match_rate(catalogs, look, look[0].size)
        del catalogs
        memory = _memory_rows(path, look, sizes.rows)
    theirs, index, near = _astropy(ra, dec, look)
    agrees = float((np.where(near, index, -1) == _numbers(matches[0])).mean())
    what = f"{sizes.rows:.0e} rows"
    return [
        *found,
        at_least(
            f"match in batches of {BATCH}, {what}, alerts/s/core",
            per_s,
            LEAST_MATCH_PER_S,
            f"astropy match_to_catalog_sky, all in one call: {theirs:.0f}",
        ),
        Row(f"match in one batch, {what}, alerts/s/core", large_per_s),
        at_least("same answer as astropy, share", agrees, 1.0),
        *memory,
    ]


def _import_rows(path: Path, table: pa.Table) -> list[Row]:
    file = path / "rows.parquet"
    pq.write_table(table, file)
    began = time.process_time()
    Path(path / "copy").mkdir()
    read = pq.read_table(file)
    pq.write_table(read, path / "copy" / "rows.parquet")
    copy_per_s = table.num_rows / (time.process_time() - began)
    del read
    (path / "copy" / "rows.parquet").unlink()
    install_catalog(path / "few", NAME, table.slice(0, BATCH), "bench")  # loads what is compiled
    began = time.process_time()
    install_catalog(path, NAME, file, "bench", coverage=all_sky())
    from_file = table.num_rows / (time.process_time() - began)
    began = time.process_time()
    install_catalog(path, NAME, table, "bench", coverage=all_sky())
    per_s = table.num_rows / (time.process_time() - began)
    said = f"pyarrow reads and writes the same Parquet file: {copy_per_s:.2e}"
    return [
        at_least("import of a table, rows/s/core", per_s, LEAST_IMPORT_PER_S, said),
        at_least("import of a Parquet file, rows/s/core", from_file, LEAST_IMPORT_PER_S, said),
    ]


def _numbers(match: pa.Table) -> Any:
    return match.column(f"{NAME}Id").cast(pa.int64()).fill_null(-1).to_numpy()


def _astropy(ra: Any, dec: Any, look: tuple[Any, Any]) -> tuple[float, Any, Any]:
    import astropy.units as u
    from astropy.coordinates import SkyCoord

    stars, alerts = (SkyCoord(*place, unit=u.deg) for place in ((ra, dec), look))
    alerts[:1].match_to_catalog_sky(stars)  # builds the tree, which astropy keeps
    began = time.process_time()
    index, away, _ = alerts.match_to_catalog_sky(stars)
    per_s = look[0].size / (time.process_time() - began)
    return per_s, index, away.arcsec <= RADIUS_ARCSEC


def _memory_rows(path: Path, look: tuple[Any, Any], n_rows: int) -> list[Row]:
    """Measure two workers that have the catalogue mapped at the same time."""
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(2), context.Queue()
    workers = [
        context.Process(target=_worker, args=(path, look, barrier, answers)) for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    got = [answers.get(timeout=600) for _ in workers]
    for worker in workers:
        worker.join()
    private = max(one["private"] for one in got)
    resident, share = (float(np.mean([one[k] for one in got])) for k in ("rss", "pss"))
    return [
        at_most(
            "own memory that a worker adds to match [MB]",
            private,
            _MOST_PRIVATE_MB,
            f"of {n_rows:.0e} rows; the same in memory of its own: {got[0]['table']:.0f} MB",
        ),
        Row("catalogue's pages in a worker, RSS [MB]", resident),
        at_most(
            "their share of each of two workers, PSS / RSS",
            share / max(resident, 1e-9),
            0.6,
            "0.5 if both map all the same pages",
        ),
    ]


def _worker(path: Path, look: tuple[Any, Any], barrier: Any, answers: Any) -> None:
    """Match in a process of its own, and say what memory it has while the other one has its."""
    catalogs = Catalogs(path.with_name("nowhere"))
    catalogs.match(look[0][:BATCH], look[1][:BATCH])
    _compile()
    before = _private_mb()
    catalogs = Catalogs(path)
    match_rate(catalogs, look, BATCH)
    barrier.wait(timeout=600)
    opened = catalogs.rows(NAME)
    assert opened is not None  # noqa: S101 - it was added
    mapped = _mapped_mb("rows.arrow")
    answers.put({"private": _private_mb() - before, "table": opened.table.nbytes / 1e6, **mapped})
    barrier.wait(timeout=600)


def _compile() -> None:
    """Load what is compiled, which is no memory of the catalogue's."""
    with tempfile.TemporaryDirectory() as folder:
        table = star_table(np.random.default_rng(0), np.arange(10.0), np.arange(10.0))
        install_catalog(Path(folder), NAME, table, "0", coverage=all_sky())
        Catalogs(Path(folder)).match([1.0], [1.0])


def _private_mb() -> float:
    text = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8")
    return sum(
        float(line.split()[1]) / 1000.0
        for line in text.splitlines()
        if line.startswith("Private_Dirty")
    )


def _mapped_mb(name: str) -> dict[str, float]:
    found, inside = {"rss": 0.0, "pss": 0.0}, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        first = line.split()[0]
        if not first.endswith(":"):
            inside = name in line
        elif inside and first in ("Rss:", "Pss:"):
            found[first[:-1].lower()] += float(line.split()[1]) / 1000.0
    return found

"""What watchlists cost the stream: many entries in one list, or in a hundred.

On one core, in processor time, over the same batches; medians of the turns.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from broker.bench_rows import Row
from broker.ops.bench_science import simulated_batches
from broker.science import find_contributions
from broker.watchlists import Entries, WatchBoard, WatchBook, Watchlist

N_ENTRIES, N_LISTS = 1_000_000, 100
MOST_MS = 0.01
"""One percent of what all modules and filters together may take. [ms an alert]"""

_NEAR = 0.01


def bench_watchlists(
    *, alerts: int, batch: int, turns: int, say: Callable[[str], None] = lambda _: None
) -> list[Row]:
    """Measure one list of a million positions and a hundred of ten thousand.

    Parameters
    ----------
    alerts, batch, turns : int
        As of `broker.ops.bench_science.bench_science`.
    say : callable
        Told what is done.
    """
    batches = simulated_batches(alerts, batch)
    rng = np.random.default_rng(9)
    rows = []
    for n_lists, where in ((1, ""), (N_LISTS, ""), (N_LISTS, "snr > 5")):
        n = N_ENTRIES // n_lists
        words = f"{n_lists} watchlist{'s' if n_lists > 1 else ''} of {n:,}"
        say(words)
        lists = [_entries(n, batches, rng) for _ in range(n_lists)]
        ms, matches = _measured(lists, where, batches, turns, alerts)
        title = f"{words}{' with an expression' if where else ''} [core-ms/alert]"
        anchor = f"{matches / alerts:.2g} matches an alert"
        rows.append(Row(title, ms, f"<= {MOST_MS}", anchor, ms <= MOST_MS))
    return rows


def _entries(n: int, batches: Sequence[pa.Table], rng: np.random.Generator) -> Entries:
    """Return positions over the whole sky, and at one alert in a hundred."""
    ra, dec = rng.uniform(0.0, 360.0, n), np.degrees(np.arcsin(rng.uniform(-1.0, 1.0, n)))
    there = [np.concatenate([part.column(c).to_numpy() for part in batches]) for c in ("ra", "dec")]
    chosen = np.flatnonzero(rng.random(there[0].size) < _NEAR)
    ra[: chosen.size], dec[: chosen.size] = there[0][chosen], there[1][chosen]
    ids = pa.array(np.arange(n).astype(str).tolist(), pa.large_string())
    radius = np.full(n, 2.0)
    return Entries("positions", pa.table({"id": ids, "ra": ra, "dec": dec, "radiusArcsec": radius}))


def _measured(
    lists: Sequence[Entries], where: str, batches: Sequence[pa.Table], turns: int, alerts: int
) -> tuple[float, int]:
    """Return the time an alert [core-ms], and how many matches there are."""
    with tempfile.TemporaryDirectory() as folder:
        book = WatchBook(Path(folder) / "watchlists")
        wanted = Watchlist("", "bench", "", where=where)
        book.put_all([(replace(wanted, name=f"list-{i}"), one) for i, one in enumerate(lists)])
        board = WatchBoard(book.index, find_contributions())
        public = [np.ones(part.num_rows, bool) for part in batches]
        times = []
        for _ in range(turns + 1):
            began = time.process_time()
            found = [board.match(a, a.select([]), p) for a, p in zip(batches, public, strict=True)]
            times.append(time.process_time() - began)
        matches = sum(len(its) for by_row in found for its in by_row.values())
    return statistics.median(times[1:]) * 1000.0 / alerts, matches

"""How many alerts a transfer will have and how large it will be, told before it is made.

Rows and bytes of columns come from the ends of the nights' files. What part of the rows is asked
for is found in a few of their row groups, spread evenly; no night is read as a whole.
"""

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from broker.archive import Archive
from broker.batch.transfer import Nights, Plan
from broker.batch.transfer_files import write_part
from broker.batch.transfer_packets import packet_columns

SAMPLE_GROUPS = 4
_PACKETS = 50
"""Packets that are opened for the size of history and cutouts."""


@dataclass(frozen=True)
class Estimate:
    """What a transfer will be, about.

    Parameters
    ----------
    nights, rows : int
        Nights with a table; alerts in them, whether asked for or not.
    sampled : int
        Alerts that were looked at.
    alerts, alerts_err : float
        Alerts that are asked for, and the 1-sigma error; 0 if all were looked at.
    size : float
        All files together. [bytes]
    is_exact : bool
        Whether all alerts were looked at.
    """

    nights: int
    rows: int
    sampled: int
    alerts: float
    alerts_err: float
    size: float
    is_exact: bool

    def as_json(self) -> dict[str, Any]:
        """Return it by wire names."""
        return {
            "nights": self.nights, "rows": self.rows, "sampled": self.sampled,
            "alerts": round(self.alerts), "alertsErr": round(self.alerts_err),
            "bytes": round(self.size), "isExact": self.is_exact,
        }  # fmt: skip


def estimate(plan: Plan, nights: Nights, archive: Archive) -> Estimate:
    """Return how many alerts are asked for and how large they are, about."""
    files = [pq.ParquetFile(file) for file in nights.files]
    groups = [(f, g) for f in files for g in range(f.metadata.num_row_groups)]
    public = [_public_rows(file, group) for file, group in groups]
    rows = sum(public)
    picks = np.unique(np.linspace(0, len(groups) - 1, min(SAMPLE_GROUPS, len(groups))).astype(int))
    tables, sampled, chosen, fractions = [], 0, 0, []
    for pick in picks.tolist():
        file, group = groups[pick]
        found = plan.read(file, group)
        number = public[pick]
        sampled += number
        fractions.append(found.num_rows / max(number, 1))
        chosen += found.num_rows
        if plan.packet_columns:
            found = found.slice(0, _PACKETS)
        more, _ = packet_columns(archive, found, plan.packet_columns)
        tables.append(plan.shaped(found, more))
    alerts = chosen / sampled * rows if sampled else 0.0
    is_exact = len(picks) == len(groups)
    error = 0.0 if is_exact else _error(chosen, sampled, rows, fractions)
    per_row = _bytes_per_row(plan, tables)
    seen = len({id(file) for (file, _), number in zip(groups, public, strict=True) if number})
    return Estimate(seen, rows, sampled, alerts, error, alerts * per_row, is_exact)


def _public_rows(file: pq.ParquetFile, group: int) -> int:
    """Return how many alerts of a row group everyone may see: of others not even the number."""
    about = file.metadata.row_group(group)
    for number in range(about.num_columns):
        column = about.column(number)
        if column.path_in_schema == "isPublic" and column.is_stats_set:
            said = column.statistics
            if said.has_min_max and said.min is True and not said.null_count:
                return int(about.num_rows)
    table = file.read_row_group(group, columns=["isPublic"])
    return int(pc.sum(table["isPublic"]).as_py() or 0)


def _error(chosen: int, sampled: int, rows: int, fractions: list[float]) -> float:
    """Return the 1-sigma error: of the count, and of what differs from one row group to another."""
    counted = math.sqrt(max(chosen, 1)) / sampled
    between = float(np.std(fractions, ddof=1)) / math.sqrt(len(fractions))
    return rows * max(counted, between)


def _bytes_per_row(plan: Plan, tables: list[pa.Table]) -> float:
    """Return bytes that an alert takes, by writing those that were found."""
    table = pa.concat_tables(tables) if tables else plan.schema.empty_table()
    if not table.num_rows:
        return 8.0 * len(plan.schema)
    with tempfile.TemporaryDirectory() as folder:
        part = write_part(table, Path(folder) / f"sample.{plan.question.form}")
    return part.size / table.num_rows

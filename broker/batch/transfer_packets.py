"""History and cutouts of alerts, read from their archived packets."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from broker.alerts.adapters import find_adapters
from broker.archive import Archive
from broker.batch.transfer import PACKET_COLUMNS
from broker.errors import AlertError
from broker.types import Coordinate


def packet_columns(
    archive: Archive, table: pa.Table, names: Sequence[str]
) -> tuple[dict[str, pa.Array], int]:
    """Return columns that only packets have, and how many packets are not to be had.

    Epochs that not everyone may see are left out of histories.

    Parameters
    ----------
    archive : Archive
        A run's.
    table : pa.Table
        With `survey` and `origins`.
    names : sequence of str
        Of `PACKET_COLUMNS`; none is no work.
    """
    if not names:
        return {}, 0
    values: dict[str, list[Any]] = {name: [] for name in names}
    absent = 0
    for survey, origins in zip(
        table["survey"].to_pylist(), table["origins"].to_pylist(), strict=True
    ):
        row = _open(archive, survey, origins or ())
        absent += row is None
        for name in names:
            value = None if row is None else row[name]
            if name == "history" and value is not None:
                value = [entry for entry in value if entry["isPublic"]]
            values[name].append(value)
    return {name: pa.array(values[name], PACKET_COLUMNS[name]) for name in names}, absent


def _open(archive: Archive, survey: str, origins: Sequence[dict[str, Any]]) -> Any:
    for origin in origins:
        at = Coordinate(origin["topic"], origin["partition"], origin["offset"])
        packet = archive.get(at)
        if packet is not None:
            try:
                row = find_adapters()[survey].decode_one(packet, at).slice(0, 1).to_pylist()[0]
            except AlertError:
                continue
            if row["isPublic"]:  # it may have been sent to partners before
                return row
    return None

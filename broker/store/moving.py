"""Which alerts a catalogue of orbits knew as one of its bodies: the alerts of a body, by its id."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from broker.alerts.columns import FOUND
from broker.catalog.definition import match_name
from broker.catalog.orbits import PREDICTED
from broker.store import keys
from broker.store.table import Tables
from broker.types import Run

_KEY = b"k:a"
_PREDICTED = PREDICTED[0].name


def moving_rows(
    batch: pa.Table, alert_keys: Sequence[bytes]
) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
    """Yield the rows of the table `moving`: body, time, and the key of the alert.

    Parameters
    ----------
    batch : pa.Table
        Alerts with match columns; those of catalogues of orbits have predictions.
    alert_keys : sequence of bytes
        Their keys in the table of alerts.
    """
    ends = match_name("", _PREDICTED)
    for column in batch.column_names:
        if not column.endswith(ends):
            continue
        catalog = column.removesuffix(ends)
        found = pc.equal(batch[match_name(catalog, "match")], FOUND).to_pylist()
        for row, body in enumerate(batch[match_name(catalog, "id")].to_pylist()):
            if found[row] and body is not None:
                _, _, at_us, _ = keys.split_alert_key(alert_keys[row])
                alert = alert_keys[row]
                yield (
                    keys.joined((catalog, body, f"{at_us:016x}", alert.decode())),
                    {_KEY: alert},
                )


def alerts_of_body(tables: Tables, run: Run, catalog: str, body: str) -> list[bytes]:
    """Return the keys of the alerts that a catalogue of orbits knew as a body, oldest first."""
    prefix = keys.joined((catalog, body))
    rows = tables.table(run.table("moving")).scan(prefix + b"|", prefix + b"}")
    return [row[_KEY] for _, row in rows]

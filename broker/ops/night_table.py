"""The table of a night, for batch work and bulk transfer: one Parquet file."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from broker.alerts.columns import SCALARS, Column
from broker.store.alerts import AlertStore

_ROW_GROUP = 20_000

_ORIGIN = pa.struct(
    [
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("schemaId", pa.int64()),
    ]
)


def night_schema(matches: Iterable[Column], outputs: Mapping[str, Column]) -> pa.Schema:
    """Return the Arrow schema of a night's table.

    Parameters
    ----------
    matches : iterable of Column
        Match columns, named as in a batch.
    outputs : mapping of str to Column
        Outputs by their names `module@version:column`.
    """
    columns = [*SCALARS, *matches]
    fields = [_field(column.name, column) for column in columns]
    fields += [_field(name, column) for name, column in outputs.items()]
    fields.append(pa.field("topics", pa.list_(pa.string())))
    fields.append(pa.field("origins", pa.list_(_ORIGIN)))
    return pa.schema(fields)


def write_night_table(
    store: AlertStore,
    night: str,
    path: Path,
    *,
    matches: Iterable[Column] = (),
    outputs: Mapping[str, Column] | None = None,
) -> int:
    """Write the alerts of a night, as they are stored now, to a Parquet file.

    Canonical and match columns, the outputs of the named module versions, the topics, and where
    the packets stood. The file appears when it is whole and replaces an older one.

    Parameters
    ----------
    store : AlertStore
        Where the alerts are.
    night : str
        `YYYYMMDD` of the day on whose noon the night began.
    path : Path
        The file.
    matches, outputs
        See `night_schema`.

    Returns
    -------
    int
        Number of alerts.
    """
    outputs = outputs or {}
    schema = night_schema(matches, outputs)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    n_alerts = 0
    try:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for records in _groups(store.night(night), _ROW_GROUP):
                writer.write_table(_table(records, schema, outputs))
                n_alerts += len(records)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return n_alerts


def _field(name: str, column: Column) -> pa.Field:
    words = {b"doc": column.doc.encode(), b"unit": column.unit.encode()}
    return pa.field(name, column.arrow_type, metadata=words)


def _groups(records: Iterator[dict[str, Any]], size: int) -> Iterator[Sequence[dict[str, Any]]]:
    while group := list(islice(records, size)):
        yield group


def _table(
    records: Sequence[Mapping[str, Any]], schema: pa.Schema, outputs: Mapping[str, Column]
) -> pa.Table:
    arrays = []
    for field in schema:
        if field.name in outputs:
            label, _, column = field.name.partition(":")
            values = [record["outputs"].get(label, {}).get(column) for record in records]
        else:
            values = [record.get(field.name) for record in records]
        arrays.append(pa.array(values, field.type))
    return pa.Table.from_arrays(arrays, schema=schema)

"""Tables in and out, by the file's name: Parquet, CSV, VOTable and FITS."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from broker.errors import AlertError, ConfigError

ENDINGS = (".parquet", ".csv", ".vot", ".xml", ".fits")
"""What a table's file may end in; `.vot` and `.xml` are VOTable."""


def write_table(
    path: Path,
    table: pa.Table,
    *,
    units: Mapping[str, str] | None = None,
    record: Mapping[str, Any] | None = None,
) -> None:
    """Write a table, with its columns' units where the format has a place for them.

    Parameters
    ----------
    path : Path
        Its ending says the format, see `ENDINGS`. A file of that name is replaced.
    table : pa.Table
        Columns of numbers, text and booleans; binary columns are left out but in Parquet.
    units : mapping of str to str, optional
        Unit of each column that has one.
    record : mapping, optional
        How it was made; CSV has no place for it.

    Raises
    ------
    ConfigError
        If the ending is none of them.
    """
    if path.suffix not in ENDINGS:
        raise ConfigError(f"{path.name} does not end in one of {', '.join(ENDINGS)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".draft-{path.name}")
    if path.suffix == ".parquet":
        _write_parquet(draft, table, units or {}, record or {})
    elif path.suffix == ".csv":
        from pyarrow import csv

        csv.write_csv(_plain(table), draft)
    else:
        _write_astropy(draft, _plain(table), units or {}, record or {})
    draft.replace(path)


def read_table(path: Path) -> pa.Table:
    """Return the table of a file.

    Raises
    ------
    AlertError
        If it cannot be read.
    ConfigError
        If its ending is none of `ENDINGS`.
    """
    if path.suffix not in ENDINGS:
        raise ConfigError(f"{path.name} does not end in one of {', '.join(ENDINGS)}")
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            return pq.read_table(path)
        if path.suffix == ".csv":
            from pyarrow import csv

            return csv.read_csv(path)
        return _read_astropy(path)
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as error:
        raise AlertError(f"{path}: it cannot be read as a table: {error}") from error


def _plain(table: pa.Table) -> pa.Table:
    return table.select([f.name for f in table.schema if not pa.types.is_binary(f.type)])


def _write_parquet(
    path: Path, table: pa.Table, units: Mapping[str, str], record: Mapping[str, Any]
) -> None:
    import pyarrow.parquet as pq

    fields = [
        f.with_metadata({"unit": units[f.name]}) if units.get(f.name) else f for f in table.schema
    ]
    words = {"provenance": json.dumps(dict(record), sort_keys=True)} if record else None
    pq.write_table(table.cast(pa.schema(fields, metadata=words)), path)


def _write_astropy(
    path: Path, table: pa.Table, units: Mapping[str, str], record: Mapping[str, Any]
) -> None:
    from astropy.table import MaskedColumn, Table

    out = Table()
    for name, column in zip(table.column_names, table.columns, strict=True):
        chunk = column.combine_chunks()
        null = np.asarray(chunk.is_null())
        out[name] = MaskedColumn(_filled(chunk), mask=null, unit=units.get(name) or None)
    words = json.dumps(dict(record), sort_keys=True)
    if path.suffix == ".fits":
        if record:
            out.meta |= {"PROVID": record["id"], "BRKPROV": words}
        out.write(path, format="fits", overwrite=True)
        return
    from astropy.io.votable import from_table
    from astropy.io.votable.tree import Info

    whole = from_table(out, table_id="sources")
    if record:
        whole.resources[0].infos.append(Info(name="provenance", value=words))
    whole.to_xml(str(path))


def _filled(column: pa.Array) -> Any:
    """Return a column as an array, nulls as NaN, 0, False or an empty text."""
    if pa.types.is_floating(column.type):
        return column.to_numpy(zero_copy_only=False)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return np.array([value or "" for value in column.to_pylist()], dtype=str)
    zero = False if pa.types.is_boolean(column.type) else 0
    return column.fill_null(zero).to_numpy(zero_copy_only=False)


def _read_astropy(path: Path) -> pa.Table:
    from astropy.table import Table

    table = Table.read(path, format="fits" if path.suffix == ".fits" else "votable")
    columns = {}
    for name in table.colnames:
        values = np.asarray(table[name])
        if values.dtype.kind == "S":
            values = values.astype(str)
        values = values.astype(values.dtype.newbyteorder("="))
        mask = getattr(table[name], "mask", None)
        columns[name] = pa.array(
            values.tolist() if values.dtype.kind in "UO" else values, mask=mask
        )
    return pa.table(columns)

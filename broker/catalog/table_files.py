"""Tables as files of the kinds that astronomers exchange."""

from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from broker.errors import ConfigError

KINDS = (".csv", ".parquet", ".vot", ".ecsv", ".fits")


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table to a file of the kind that the end of its name says.

    Raises
    ------
    ConfigError
        If the name ends in none of `KINDS`.
    """
    kind = path.suffix.lower()
    if kind == ".csv":
        pa_csv.write_csv(table, path)
    elif kind == ".parquet":
        pq.write_table(table, path)
    elif kind in KINDS:
        _write_astropy(table, path, kind)
    else:
        raise ConfigError(f"{path}: a table's name ends in {', '.join(KINDS)}", path=str(path))


def _write_astropy(table: pa.Table, path: Path, kind: str) -> None:
    import numpy as np
    from astropy.table import MaskedColumn, Table

    columns = {}
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        mask = np.asarray(column.is_null())
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            data = np.array([value or "" for value in column.to_pylist()], dtype=str)
        else:
            data = column.fill_null(0).to_numpy(zero_copy_only=False)
        columns[name] = MaskedColumn(data, mask=mask) if mask.any() else data
    formats = {".vot": "votable", ".ecsv": "ascii.ecsv", ".fits": "fits"}
    Table(columns).write(path, format=formats[kind], overwrite=True)

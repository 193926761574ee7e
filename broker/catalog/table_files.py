"""Tables as files of the kinds that astronomers exchange."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from broker.errors import ConfigError

KINDS = (".csv", ".parquet", ".vot", ".ecsv", ".fits")


def write_table(table: pa.Table, path: Path, *, units: Mapping[str, str] | None = None) -> None:
    """Write a table to a file of the kind that the end of its name says.

    Parameters
    ----------
    table : pa.Table
    path : Path
    units : mapping of str to str, optional
        Of columns, as astropy writes them; in files that have units.

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
        _write_astropy(table, path, kind, units or {})
    else:
        raise ConfigError(f"{path}: a table's name ends in {', '.join(KINDS)}", path=str(path))


def _write_astropy(table: pa.Table, path: Path, kind: str, units: Mapping[str, str]) -> None:
    import numpy as np
    from astropy.table import Column, MaskedColumn, Table

    columns = {}
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        mask = np.asarray(column.is_null())
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            data = np.array([value or "" for value in column.to_pylist()], dtype=str)
        else:
            data = column.fill_null(0).to_numpy(zero_copy_only=False)
        unit = _known_unit(units.get(name, ""))
        columns[name] = (
            MaskedColumn(data, mask=mask, unit=unit) if mask.any() else Column(data, unit=unit)
        )
    formats = {".vot": "votable", ".ecsv": "ascii.ecsv", ".fits": "fits"}
    Table(columns).write(path, format=formats[kind], overwrite=True)


def _known_unit(text: str) -> str | None:
    """Return a unit if astropy can write it, else None: a definition may say anything."""
    from astropy.units import Unit, UnrecognizedUnit

    if not text or isinstance(Unit(text, parse_strict="silent"), UnrecognizedUnit):
        return None
    return text

"""The files of a transfer: four formats, their sums, and the list of them."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from broker.catalog.table_files import write_table
from broker.errors import ConfigError

_AVRO = {
    pa.string(): "string",
    pa.bool_(): "boolean",
    pa.int8(): "int",
    pa.int32(): "int",
    pa.int64(): "long",
    pa.float32(): "float",
    pa.float64(): "double",
    pa.binary(): "bytes",
}


@dataclass(frozen=True)
class Part:
    """One file of a transfer.

    Parameters
    ----------
    name : str
        Of the file.
    rows, size : int
        Alerts in it; bytes.
    sha256 : str
        Of its bytes.
    without_packet : int
        Alerts whose packet is not in the archive: history and cutouts are null.
    """

    name: str
    rows: int
    size: int
    sha256: str
    without_packet: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


def write_part(table: pa.Table, path: Path, *, without_packet: int = 0) -> Part:
    """Write one file, whole or not at all; its format is the end of its name."""
    form = path.suffix[1:]
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    if form == "parquet":
        pq.write_table(table, partial, compression="zstd")
    elif form == "avro":
        _write_avro(table, partial)
    elif form in ("fits", "csv"):
        write_table(_without_lists(table) if form == "csv" else _for_fits(table), partial)
    else:
        raise ConfigError(f"there is no format {form!r}")
    partial.replace(path)
    return Part(path.name, table.num_rows, path.stat().st_size, sha256_of(path), without_packet)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def rows_of(path: Path) -> int:
    """Return how many alerts a file has."""
    form = path.suffix[1:]
    if form == "parquet":
        return int(pq.read_metadata(path).num_rows)
    if form == "avro":
        with path.open("rb") as file:
            return sum(block.num_records for block in fastavro.block_reader(file))
    if form == "csv":
        from pyarrow import csv

        return int(csv.read_csv(path).num_rows)
    from astropy.io import fits

    with fits.open(path) as hdus:
        return int(hdus[1].header["NAXIS2"])


def _without_lists(table: pa.Table) -> pa.Table:
    """Return a table in which lists of words are texts: CSV and FITS have no lists."""
    for i, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            joined = pc.binary_join(table.column(i), " ")
            table = table.set_column(i, pa.field(field.name, pa.string()), joined)
    return table


def _for_fits(table: pa.Table) -> pa.Table:
    """Return a table without what FITS does not have: lists, and truth that is not known.

    Truth that may be null is a number, 1, 0 or null.
    """
    table = _without_lists(table)
    for i, field in enumerate(table.schema):
        if pa.types.is_boolean(field.type) and field.nullable:
            number = table.column(i).cast(pa.int32())
            table = table.set_column(i, pa.field(field.name, pa.int32()), number)
    return table


def avro_schema(schema: pa.Schema) -> dict[str, Any]:
    """Return the Avro schema of a table."""
    fields = [
        {
            "name": field.name,
            "type": ["null", _avro_type(field.type, field.name)],
            "default": None,
            "doc": _words(field.metadata),
        }
        for field in schema
    ]
    return {"type": "record", "name": "Alert", "fields": fields}


def _words(metadata: Mapping[bytes, bytes] | None) -> str:
    return "; ".join(v.decode() for v in (metadata or {}).values() if v)


def _avro_type(kind: pa.DataType, name: str) -> Any:
    if pa.types.is_list(kind):
        return {"type": "array", "items": ["null", _avro_type(kind.value_type, f"{name}Item")]}
    if pa.types.is_struct(kind):
        fields = [
            {"name": f.name, "type": ["null", _avro_type(f.type, f"{name}{f.name}")]} for f in kind
        ]
        return {"type": "record", "name": name[0].upper() + name[1:], "fields": fields}
    return _AVRO[kind]


def _write_avro(table: pa.Table, path: Path) -> None:
    # A fixed marker between blocks, so that equal alerts make equal bytes.
    schema = avro_schema(table.schema)
    with path.open("wb") as file:
        fastavro.writer(
            file, schema, table.to_pylist(), codec="deflate", sync_marker=b"nightjar-broker."
        )

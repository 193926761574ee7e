"""Packets as files: JSON lines, Avro or Parquet, each a run of offsets of one partition."""

import base64
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq

from broker.avro import Schema, parse
from broker.client.consumer import Packet
from broker.errors import AlertError, ConfigError
from broker.topics.topic import Message

FORMS = ("parquet", "avro", "jsonl")

_SCALARS: dict[str, pa.DataType] = {
    "null": pa.null(),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "bytes": pa.binary(),
    "string": pa.string(),
}


class PacketFiles:
    """A folder of files of packets.

    A file is `<topic>~<partition>~<first>~<last>.<form>` with its first and last offset, and is
    there only when it is whole. Packets of different schemas are in different files, so that each
    file has all columns of its schema and no other.

    Parameters
    ----------
    folder : Path
        Made if it is absent.
    form : str
        One of `FORMS`.
    """

    def __init__(self, folder: Path, form: str) -> None:
        if form not in FORMS:
            raise ConfigError(f"there is no format {form!r}; there are {', '.join(FORMS)}")
        self._folder, self._form = folder, form
        folder.mkdir(parents=True, exist_ok=True)
        self._last: dict[tuple[str, int], int] = {}
        for path in folder.glob(f"*~*~*~*.{form}"):
            topic, partition, _, last = path.name.removesuffix(f".{form}").split("~")
            self._note((topic, int(partition)), int(last))

    def lacks(self, message: Message) -> bool:
        """Return whether a message is after all that the folder has of its partition."""
        at = message.coordinate
        return at is None or at.offset > self._last.get((at.topic, at.partition), -1)

    def write(self, packets: Iterable[Packet], schema_of: Callable[[int], Schema]) -> list[Path]:
        """Write packets; return the files, each whole.

        Parameters
        ----------
        packets : iterable of Packet
            Offsets rise within a partition.
        schema_of : callable
            Returns a schema by its id.
        """
        return [self._write(some, schema_of(some[0].schema_id)) for some in _runs(packets)]

    def _write(self, packets: Sequence[Packet], schema: Schema) -> Path:
        first, last = packets[0].message.coordinate, packets[-1].message.coordinate
        if first is None or last is None:
            raise AlertError("a packet that never stood on a topic is not written")
        stem = f"{first.topic}~{first.partition:04d}~{first.offset:020d}~{last.offset:020d}"
        path = self._folder / f"{stem}.{self._form}"
        partial = path.with_name(f".{path.name}.partial")
        records = [packet.record for packet in packets]
        _WRITERS[self._form](partial, records, schema)
        partial.replace(path)
        self._note((first.topic, first.partition), last.offset)
        return path

    def _note(self, place: tuple[str, int], last: int) -> None:
        self._last[place] = max(last, self._last.get(place, -1))


def _runs(packets: Iterable[Packet]) -> Iterator[list[Packet]]:
    """Yield packets of one partition and one schema, in their order."""
    runs: dict[tuple[str, int], list[Packet]] = {}
    for packet in packets:
        at = packet.message.coordinate
        place = ("", 0) if at is None else (at.topic, at.partition)
        run = runs.setdefault(place, [])
        if run and run[0].schema_id != packet.schema_id:
            yield run
            run = runs[place] = []
        run.append(packet)
    yield from (run for run in runs.values() if run)


def plain_record(record: Any) -> Any:
    """Return a record as JSON has it: images as base64, null for what is no number."""
    if isinstance(record, float) and not math.isfinite(record):
        return None
    if isinstance(record, bytes):
        return base64.b64encode(record).decode("ascii")
    if isinstance(record, Mapping):
        return {key: plain_record(value) for key, value in record.items()}
    if isinstance(record, list):
        return [plain_record(value) for value in record]
    return record


def arrow_schema(schema: Schema) -> pa.Schema:
    """Return the Arrow schema of a record's Avro schema, whatever the values of some rows are."""
    named: dict[str, Any] = parse(schema).get("__named_schemas", {})
    fields = [pa.field(f["name"], _arrow_type(f["type"], named)) for f in schema["fields"]]
    return pa.schema(fields)


def _arrow_type(kind: Any, named: Mapping[str, Any]) -> pa.DataType:
    if isinstance(kind, list):
        (kind,) = [one for one in kind if one != "null"] or ["null"]
    if isinstance(kind, str):
        return _SCALARS[kind] if kind in _SCALARS else _arrow_type(named[kind], named)
    match kind["type"]:
        case "record":
            fields = kind["fields"]
            return pa.struct([(f["name"], _arrow_type(f["type"], named)) for f in fields])
        case "array":
            return pa.list_(_arrow_type(kind["items"], named))
        case "map":
            return pa.map_(pa.string(), _arrow_type(kind["values"], named))
        case "enum":
            return pa.string()
        case "fixed":
            return pa.binary(kind["size"])
        case inner:
            return _arrow_type(inner, named)


def _write_lines(path: Path, records: Sequence[dict[str, Any]], schema: Schema) -> None:  # noqa: ARG001
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(plain_record(record), ensure_ascii=False) + "\n")


def _write_avro(path: Path, records: Sequence[dict[str, Any]], schema: Schema) -> None:
    with path.open("wb") as file:
        fastavro.writer(file, schema, records, codec="deflate")


def _write_parquet(path: Path, records: Sequence[dict[str, Any]], schema: Schema) -> None:
    table = pa.Table.from_pylist(list(records), schema=arrow_schema(schema))
    pq.write_table(table, path, compression="zstd")


_WRITERS = {"parquet": _write_parquet, "avro": _write_avro, "jsonl": _write_lines}

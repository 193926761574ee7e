"""The packets that leave: their schemas, made from the declared columns, and their bytes.

Two variants of one alert. *Slim*: the canonical scalars, the catalogue matches, every module's
outputs with its version and status, and the topics that the alert passed. *Full*: the same fields
first, then history and cutouts. So a full body is a slim body with a tail, and both cost little
more than one.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.compute as pc

from broker.alerts.columns import AVRO_TYPES, SCALARS, Column
from broker.alerts.tails import NAMESPACE, encode_tails, tail_fields
from broker.avro import Schema, frame, parse, schema_id
from broker.errors import ConfigError

VARIANTS = ("slim", "full")


@dataclass(frozen=True)
class ModuleColumns:
    """One module's part of a packet.

    Parameters
    ----------
    name, version : str
        The module.
    columns : tuple of Column
        Its outputs.
    """

    name: str
    version: str
    columns: tuple[Column, ...]


def module_columns(outputs: Mapping[str, Column]) -> tuple[ModuleColumns, ...]:
    """Group output columns, by their names `module@version:column`, by module, in their order.

    Raises
    ------
    ConfigError
        If a name has another form.
    """
    groups: dict[tuple[str, str], list[Column]] = {}
    for qualified, output in outputs.items():
        module, _, column = qualified.partition(":")
        name, _, version = module.partition("@")
        if not (name and version and column):
            raise ConfigError(f"output {qualified!r} is not named module@version:column")
        groups.setdefault((name, version), []).append(
            Column(column, output.dtype, output.unit, output.doc)
        )
    return tuple(ModuleColumns(*key, tuple(columns)) for key, columns in groups.items())


@dataclass(frozen=True)
class PacketFormat:
    """How alerts become packets, for one set of catalogues and modules.

    Parameters
    ----------
    matches : tuple of Column
        The match columns of all catalogues, as they are named in a batch.
    modules : tuple of ModuleColumns
        The outputs of all modules.
    """

    matches: tuple[Column, ...]
    modules: tuple[ModuleColumns, ...]

    @cached_property
    def schemas(self) -> dict[str, tuple[int, Schema]]:
        """Id and schema by variant; they are to be on the schemas topic before the first packet."""
        slim = [*self._head_fields, *self._science_fields]
        made = {"slim": _record("Alert", slim), "full": _record("Alert", [*slim, *tail_fields()])}
        return {variant: (schema_id(schema), schema) for variant, schema in made.items()}

    def encode(
        self,
        batch: pa.Table,
        *,
        outputs: pa.Table,
        status: Mapping[str, str],
        topics: Sequence[Sequence[str]],
    ) -> list[tuple[bytes, bytes]]:
        """Return the (slim, full) packet of each alert; equal inputs give equal bytes.

        Parameters
        ----------
        batch : pa.Table
            Canonical columns and match columns.
        outputs : pa.Table
            Columns `module@version:column`, a row per alert.
        status : mapping
            What became of each module in this batch.
        topics : sequence of sequence of str
            Names of the filters that each alert passed.
        """
        heads = _rows(batch.select([c.name for c in (*SCALARS, *self.matches)]))
        sciences = self._sciences(outputs, status) if self.modules else [{} for _ in heads]
        slim_id, full_id = (self.schemas[variant][0] for variant in VARIANTS)
        schema = parse(self.schemas["slim"][1])
        packets = []
        for head, science, names, tail in zip(
            heads, sciences, topics, encode_tails(batch), strict=True
        ):
            slim = _write(schema, {**head, "topics": list(names), "modules": science})
            packets.append((frame(slim_id, slim), frame(full_id, slim + tail)))
        return packets

    def _sciences(self, outputs: pa.Table, status: Mapping[str, str]) -> list[dict[str, Any]]:
        """Return the record `modules` of each alert."""
        parts = []
        for module in self.modules:
            prefix = f"{module.name}@{module.version}:"
            table = outputs.select([prefix + c.name for c in module.columns])
            rows = _rows(table.rename_columns([c.name for c in module.columns]))
            said = {"version": module.version, "status": status.get(module.name, "not-run")}
            parts.append([{**said, **row} for row in rows])
        names = [module.name for module in self.modules]
        return [dict(zip(names, row, strict=True)) for row in zip(*parts, strict=True)]

    @property
    def _head_fields(self) -> list[Schema]:
        return [_field(column) for column in (*SCALARS, *self.matches)]

    @property
    def _science_fields(self) -> list[Schema]:
        return [
            {
                "name": "topics",
                "type": {"type": "array", "items": "string"},
                "doc": "Names of the filters that the alert passed.",
            },
            {
                "name": "modules",
                "type": _record("Modules", [_module_field(m) for m in self.modules]),
                "doc": "What the science modules found.",
            },
        ]


def packet_format(
    outputs: Mapping[str, Column], catalogs: Mapping[str, Sequence[Column]]
) -> PacketFormat:
    """Return the format of packets from declared columns.

    Parameters
    ----------
    outputs : mapping of str to Column
        Outputs of all modules by their names `module@version:column`.
    catalogs : mapping of str to sequence of Column
        Match columns by catalogue, named as in a batch.
    """
    matches = tuple(column for columns in catalogs.values() for column in columns)
    return PacketFormat(matches, module_columns(outputs))


def _record(name: str, fields: list[Schema]) -> Schema:
    return {"type": "record", "name": name, "namespace": NAMESPACE, "fields": fields}


def _field(column: Column) -> Schema:
    kind = AVRO_TYPES[column.dtype]
    doc = f"{column.doc} [{column.unit}]" if column.unit else column.doc
    if not column.nullable:
        return {"name": column.name, "type": kind, "doc": doc}
    return {"name": column.name, "type": ["null", kind], "default": None, "doc": doc}


def _module_field(module: ModuleColumns) -> Schema:
    said = [
        {"name": "version", "type": "string", "doc": "Version of the module."},
        {
            "name": "status",
            "type": "string",
            "doc": "ok, or why all columns are null: failed, timed-out, quarantined, not-run.",
        },
    ]
    # A failed module's columns are null whatever it declares.
    columns = [_field(Column(c.name, c.dtype, c.unit, c.doc)) for c in module.columns]
    return {"name": module.name, "type": _record(f"Module_{module.name}", [*said, *columns])}


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    """Return rows as dictionaries, with null for numbers that are not finite."""
    columns = []
    for column in table.columns:
        if pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_finite(column), column, pa.scalar(None, column.type))
        columns.append(column.to_pylist())
    names = table.column_names
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _write(schema: Any, record: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, schema, record)
    return buffer.getvalue()

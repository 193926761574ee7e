"""Slim reader schemas: of a survey's packets only the fields that we use, all nullable.

Avro resolves a writer's schema against a reader's while it decodes, so that what is not asked
for is skipped, and a field that a version has not is null. Records in a union are matched by
name, and surveys put the version into their names: so each version gets its own reader schema
with its own names, and all of them give one and the same type of column.
"""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from broker.avro import Schema
from broker.errors import ConfigError

_PRIMITIVE = {
    pa.bool_(): "boolean",
    pa.int32(): "int",
    pa.int64(): "long",
    pa.float32(): "float",
    pa.float64(): "double",
    pa.string(): "string",
    pa.binary(): "bytes",
}

_PROMOTED = {
    "int": {"int", "long", "float", "double"},
    "long": {"long", "float", "double"},
    "float": {"float", "double"},
}
"""What a reader may ask for where the writer has another number (Avro 1.12, section on schema
resolution)."""


def reader_schema(writer: Schema, wanted: pa.StructType) -> Schema:
    """Return the slim, all-nullable schema that reads a writer's records as a column type.

    Parameters
    ----------
    writer : Schema
        The schema that packets were written with.
    wanted : pa.StructType
        The fields that are used; structs for records, lists for arrays.

    Raises
    ------
    ConfigError
        If a wanted field has another type in the writer's schema.
    """
    return _Slim(writer).record(wanted, writer, "")


class _Slim:
    """One reader schema in the making: which names are taken, and what the writer defined."""

    def __init__(self, writer: Schema) -> None:
        records = list(_records(writer, ""))
        self._defined = dict(records) | {name.rpartition(".")[2]: r for name, r in records}
        self._names = {id(record): name for name, record in records}
        self._made: dict[str, pa.StructType] = {}

    def record(self, wanted: pa.StructType, writer: Any, path: str) -> Any:
        """Return the reader's record; its bare name if it was defined before."""
        fields = {f["name"]: f["type"] for f in writer["fields"]} if writer else {}
        name = self._names[id(writer)] if writer else f"absent.{path}"
        if self._made.get(name, wanted) != wanted:  # another choice of the same record's fields
            name = f"{name}_{path}"
        if name in self._made:
            return name
        self._made[name] = wanted
        return {
            "type": "record",
            "name": name,
            "fields": [
                {
                    "name": field.name,
                    "type": ["null", self.of(field.type, fields.get(field.name), field.name)],
                    "default": None,
                }
                for field in wanted
            ],
        }

    def of(self, wanted: pa.DataType, writer: Any, path: str) -> Any:
        """Return the reader's type of a field, not null."""
        there = self._not_null(writer)
        if pa.types.is_struct(wanted):
            return self.record(wanted, _expect(there, "record", path), path)
        if pa.types.is_list(wanted):
            array = _expect(there, "array", path)
            items = self._not_null(array["items"]) if array else None
            return {"type": "array", "items": self.of(wanted.value_type, items, path)}
        name = _PRIMITIVE[wanted]
        found = there["type"] if isinstance(there, dict) else there
        if found is not None and name not in _PROMOTED.get(found, {found}):
            raise ConfigError(f"{path} is {found} in the writer's schema, wanted is {name}")
        return name

    def _not_null(self, kind: Any) -> Any:
        if isinstance(kind, list):
            kind = next(branch for branch in kind if branch != "null")
        return self._defined.get(kind, kind) if isinstance(kind, str) else kind


def _expect(there: Any, kind: str, path: str) -> Any:
    if there is not None and not (isinstance(there, dict) and there["type"] == kind):
        raise ConfigError(f"{path} is no {kind} in the writer's schema")
    return there


def _records(kind: Any, namespace: str) -> Iterator[tuple[str, Any]]:
    """Yield every record that a schema defines, with its full name."""
    if isinstance(kind, list):
        for branch in kind:
            yield from _records(branch, namespace)
    elif isinstance(kind, dict) and kind["type"] == "array":
        yield from _records(kind["items"], namespace)
    elif isinstance(kind, dict) and kind["type"] == "record":
        before, _, short = kind["name"].rpartition(".")
        inner = before or kind.get("namespace", namespace)
        yield (f"{inner}.{short}" if inner else short), kind
        for field in kind["fields"]:
            yield from _records(field["type"], inner)

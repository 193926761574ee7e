"""The table `meta`: what many rows share is written once, and rows hold its id."""

import hashlib
import json
from collections.abc import Mapping, Sequence

import pyarrow as pa

from broker.errors import ServiceError
from broker.store.keys import joined
from broker.store.schema import Layout, layout_of, pack, unpack_many
from broker.store.schema import unpack as unpack_row
from broker.store.table import Table

STAMP = 1
"""Timestamp of every cell whose key and column already say all: writing it again, at any time,
replaces it by the same. [ms]"""

_CELL = b"v:j"
_ID_BYTES = 8


class Shared:
    """Layouts and provenances by id, remembered once they were seen.

    Parameters
    ----------
    table : Table
        The table `meta` of a run.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._layouts: dict[bytes, Layout] = {}
        self._provenances: dict[bytes, dict[str, str]] = {}

    def pack(self, table: pa.Table) -> list[bytes]:
        """Return a table's rows packed, their layout stored before.

        Raises
        ------
        ConfigError
            If a column's type is not packed.
        """
        layout = layout_of(table)
        if layout.id not in self._layouts:
            self._write("layout", layout.id, layout.text)
            self._layouts[layout.id] = layout
        return pack(table, layout)

    def unpack(self, value: bytes) -> dict[str, object]:
        """Return a packed row by column name.

        Raises
        ------
        ServiceError
            If its layout is unknown or it is not of its layout.
        """
        return unpack_row(value, self._layout(value[:4]))

    def unpack_many(self, values: Sequence[bytes]) -> pa.Table:
        """Return packed rows of any layouts as one table; absent columns are null."""
        groups: dict[bytes, list[int]] = {}
        for i, value in enumerate(values):
            groups.setdefault(value[:4], []).append(i)
        tables = [
            unpack_many([values[i] for i in rows], self._layout(identifier))
            for identifier, rows in groups.items()
        ]
        if len(tables) <= 1:
            return tables[0] if tables else pa.table({})
        order = pa.array([i for rows in groups.values() for i in rows])
        merged = pa.concat_tables(tables, promote_options="permissive")
        place = pa.table({"i": order}).append_column("at", pa.array(range(len(values))))
        return merged.take(place.sort_by("i")["at"])

    def provenance_id(self, provenance: Mapping[str, str]) -> bytes:
        """Return the id of a provenance, stored before."""
        text = json.dumps(dict(provenance), sort_keys=True).encode()
        identifier = hashlib.sha256(text).digest()[:_ID_BYTES]
        if identifier not in self._provenances:
            self._write("provenance", identifier, text)
            self._provenances[identifier] = dict(provenance)
        return identifier

    def provenance(self, identifier: bytes) -> dict[str, str]:
        """Return a provenance by its id."""
        if identifier not in self._provenances:
            self._provenances[identifier] = json.loads(self._read("provenance", identifier))
        return dict(self._provenances[identifier])

    def _layout(self, identifier: bytes) -> Layout:
        if identifier not in self._layouts:
            self._layouts[identifier] = Layout.parse(self._read("layout", identifier))
        return self._layouts[identifier]

    def _write(self, kind: str, identifier: bytes, text: bytes) -> None:
        key = joined((kind, identifier.hex()))
        there = self._table.get(key)
        if there is None:
            self._table.put([(key, {_CELL: text})], STAMP)
        elif there[_CELL] != text:
            raise ServiceError(f"two texts share the {kind} id {identifier.hex()}")

    def _read(self, kind: str, identifier: bytes) -> bytes:
        row = self._table.get(joined((kind, identifier.hex())))
        if row is None:
            raise ServiceError(f"table meta has no {kind} {identifier.hex()}")
        return row[_CELL]

"""What searches and counts read instead of the table of alerts: blocks by night, and by topic.

A block has the alerts of a batch that were observed in one night (and were chosen for one topic).
Its key is made from its alerts, so a batch that is repeated replaces its own block; if it is cut
otherwise when it is repeated, alerts are in two blocks, and readers take each once. What is said
of an alert later, by a reprocessing, is in a block that stands behind.
"""

import hashlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from broker.store import keys
from broker.store.blocks import (
    PUBLIC,
    SOLAR_SYSTEM,
    Bools,
    Entries,
    alert_number,
    class_label,
    decode_counted,
    decode_entries,
    encode_counted,
    encode_entries,
    entries_of,
    is_class,
    joined_entries,
    label_bits,
    matched_catalog,
)
from broker.store.layouts import STAMP
from broker.store.table import Tables
from broker.types import Run, night_of

_ALL, _COUNTED = b"b:v", b"n:v"
_NIGHT, _TOPIC = "n", "t"
_ROWS_A_CALL = 100
_FILLED_ROWS = 5000


class AlertIndex:
    """The index of a run's alerts.

    Parameters
    ----------
    tables : Tables
        Where.
    run : Run
        Whose.
    """

    def __init__(self, tables: Tables, run: Run) -> None:
        self._table = tables.table(run.table("index"))

    def put(self, entries: Entries, *, rank: int = 0) -> None:
        """Write alerts; again, it changes nothing.

        Parameters
        ----------
        entries : Entries
            Alerts of any nights.
        rank : int
            0 for alerts that are new; for what is said of them again, the later the higher.
        """
        rows = []
        for night, chosen in _by_night(entries):
            place = _place(rank, chosen)
            cells = {_ALL: encode_entries(chosen), _COUNTED: encode_counted(chosen)}
            rows.append((keys.joined((_NIGHT, night, *place)), cells))
            for label, bits in chosen.labels.items():
                kind, _, topic = label.partition(":")
                if kind == "topic":
                    part = chosen.take(bits).trimmed()
                    key = keys.joined((_TOPIC, topic, night, *_place(rank, part)))
                    rows.append((key, {_ALL: encode_entries(part)}))
        self._table.put(rows, STAMP)

    def put_again(self, records: Sequence[dict[str, Any]]) -> None:
        """Write what is said of stored alerts now, as of `AlertStore.alert`."""
        for low in range(0, len(records), _FILLED_ROWS):
            part = records[low : low + _FILLED_ROWS]
            self.put(entries_of(part), rank=int(time.time() * 1000))

    def nights(self, *, topic: str | None = None) -> list[str]:
        """Return the nights that have alerts, of a topic if one is named, oldest first."""
        start, stop = _prefix(topic) + b"|", _prefix(topic) + b"}"
        found: list[str] = []
        while True:
            row = next(iter(self._table.scan(start, stop, limit=1, first_cell=True)), None)
            if row is None:
                return found
            found.append(keys.split_joined(row[0])[1 if topic is None else 2])
            start = _prefix(topic, found[-1]) + b"}"

    def entries(self, night: str, *, topic: str | None = None) -> Entries:
        """Return the alerts of a night, of a topic if one is named, each once, in no order."""
        found = self._blocks(_prefix(topic, night), _ALL)
        return joined_entries([decode_entries(block) for block in found]).distinct()

    def counted(self, night: str) -> Entries:
        """Return what is counted of the alerts of a night, each once, in no order."""
        found = self._blocks(_prefix(None, night), _COUNTED)
        return joined_entries([decode_counted(block) for block in found]).distinct()

    def _blocks(self, prefix: bytes, column: bytes) -> Iterator[bytes]:
        start, stop = prefix + b"|", prefix + b"}"
        while True:  # a call takes a hundred: a thousand blocks would be tens of megabytes
            rows = list(self._table.scan(start, stop, columns=[column], limit=_ROWS_A_CALL))
            yield from (row[column] for _, row in rows)
            if len(rows) < _ROWS_A_CALL:
                return
            start = rows[-1][0] + b"\x00"


def batch_entries(
    batch: pa.Table, *, outputs: pa.Table, topics: Sequence[Sequence[str]]
) -> Entries:
    """Return a batch that is put into the store as a search reads it.

    Parameters
    ----------
    batch : pa.Table
        Canonical columns and match columns.
    outputs : pa.Table
        Columns `module@version:column`.
    topics : sequence of sequences of str
        Of each alert.
    """
    ids, surveys = batch["diaSourceId"], batch["survey"]
    numbers: dict[str, Any] = {
        "number": np.array(
            [alert_number(*row) for row in zip(surveys.to_pylist(), ids.to_pylist(), strict=True)],
            np.uint64,
        )
    }
    for name in ("midpointMjdTai", "ra", "dec", "psfFlux", "snr", "reliability", "limitingMag"):
        kind = np.float64 if name in ("midpointMjdTai", "ra", "dec") else np.float32
        numbers[name] = _floats(batch, name).astype(kind)
    numbers["nDiaSources"] = np.nan_to_num(_floats(batch, "nDiaSources")).astype(np.int32)
    columns = (batch[name].to_pylist() for name in ("diaObjectId", "ssObjectId", "diaSourceId"))
    names = [keys.object_part(*row) for row in zip(*columns, strict=True)]
    texts = {"objectName": pa.array(names, pa.string()), "diaSourceId": _flat(ids)}
    labels = _batch_labels(batch, outputs) | label_bits(
        [[f"topic:{topic}" for topic in chosen] for chosen in topics]
    )
    return Entries(numbers, texts, dict(sorted(labels.items())))


def _batch_labels(batch: pa.Table, outputs: pa.Table) -> dict[str, Bools]:
    labels = {
        PUBLIC: np.asarray(batch["isPublic"].to_numpy(), bool),
        SOLAR_SYSTEM: _mask(pc.is_valid(batch["ssObjectId"])),
    }
    for kind in ("survey", "band"):
        labels |= _values(batch[kind], lambda value, kind=kind: f"{kind}:{value}")
    for column in batch.column_names:
        catalog = matched_catalog(column)
        if catalog:
            labels[f"catalog:{catalog}"] = _mask(pc.equal(batch[column], 1))
    for column in outputs.column_names:
        if is_class(column) and pa.types.is_string(outputs.schema.field(column).type):
            name = column.partition(":")[2]
            for label, bits in _values(
                outputs[column], lambda value, name=name: class_label(name, value)
            ).items():
                labels[label] = labels.get(label, np.zeros(batch.num_rows, bool)) | bits
    return {label: bits for label, bits in labels.items() if bits.any()}


def _values(column: pa.ChunkedArray, label: Any) -> dict[str, Bools]:
    return {
        label(value): _mask(pc.equal(column, value))
        for value in pc.unique(column).to_pylist()
        if value
    }


def _mask(values: pa.ChunkedArray) -> Bools:
    return np.asarray(pc.fill_null(values, fill_value=False).to_numpy(), bool)


def _floats(batch: pa.Table, name: str) -> Any:
    if name not in batch.column_names:
        return np.full(batch.num_rows, np.nan)
    return np.asarray(batch[name].cast(pa.float64()).to_numpy(), np.float64)


def _flat(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    return pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole


def _by_night(entries: Entries) -> Iterator[tuple[str, Entries]]:
    mjd = entries.numbers["midpointMjdTai"]
    # Half days: a night begins at noon.
    days = np.floor(mjd - 0.5)
    for day in np.unique(days).tolist():
        yield night_of(day + 0.75), entries.take(days == day).trimmed()


def _place(rank: int, entries: Entries) -> tuple[str, str]:
    numbers = np.sort(entries.numbers["number"]).astype("<u8").tobytes()
    return f"{rank:016x}", hashlib.blake2b(numbers, digest_size=8).hexdigest()


def _prefix(topic: str | None, *night: str) -> bytes:
    return keys.joined((_NIGHT, *night) if topic is None else (_TOPIC, topic, *night))

"""What a full packet has after the slim one: history and cutouts, encoded a batch at a time.

Histories are most of what is encoded, and of one form: so their Avro bytes are laid out as rows
of an array with room for every entry's longest form, and what an entry does not have is cut out.
That is some twenty times faster than an encoder that goes entry by entry.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from broker.alerts.columns import CUTOUTS, KINDS
from broker.alerts.wire import varint
from broker.avro import Schema

NAMESPACE = "nightjar"

EPOCH_KINDS = ("detection", "upperLimit", "forced")
"""The symbols of `kind`, in the order of `KINDS`; Avro allows no dash in a symbol."""

_NULL, _VALUE = 0x00, 0x02
"""Branches of a union with null, as varints."""

_TIME, _BAND, _FLUX, _ERR, _KIND, _END = 0, 8, 11, 16, 21, 22
"""Where the parts of an entry begin in a row: 8 bytes of time; branch, length and letter of the
band; branch and 4 bytes each of flux and error; a byte of kind."""

Bytes = NDArray[np.uint8]


def tail_fields() -> list[Schema]:
    """Return the Avro fields of `history` and the cutouts."""
    nullable = {"default": None}
    epoch: Schema = {
        "type": "record",
        "name": "Epoch",
        "namespace": NAMESPACE,
        "fields": [
            {"name": "midpointMjdTai", "type": "double", "doc": "Middle of the exposure. [d]"},
            {"name": "band", "type": ["null", "string"], "doc": "Passband.", **nullable},
            {
                "name": "psfFlux",
                "type": ["null", "float"],
                "doc": "PSF flux on the difference image; null for an upper limit. [nJy]",
                **nullable,
            },
            {
                "name": "psfFluxErr",
                "type": ["null", "float"],
                "doc": "1-sigma error of psfFlux, or of the limit. [nJy]",
                **nullable,
            },
            {
                "name": "kind",
                "type": {"type": "enum", "name": "EpochKind", "symbols": list(EPOCH_KINDS)},
                "doc": "A detection, an upper limit, or a forced measurement.",
            },
        ],
    }
    history: Schema = {
        "name": "history",
        "type": {"type": "array", "items": epoch},
        "doc": "What everyone may see of the object's measurements, in the order of time, "
        "this alert's own last.",
    }
    images = [
        {
            "name": name,
            "type": ["null", "bytes"],
            "doc": "FITS, gzipped or not, as the survey sent it.",
            **nullable,
        }
        for name in CUTOUTS
    ]
    return [history, *images]


def encode_tails(batch: pa.Table) -> list[bytes]:
    """Return the Avro bytes of `tail_fields` for each alert.

    Entries of a history that are not public are left out.

    Parameters
    ----------
    batch : pa.Table
        With the canonical columns `history` and cutouts.
    """
    histories = _histories(_whole(batch.column("history")))
    cutouts = [batch.column(name).to_pylist() for name in CUTOUTS]
    return [
        history + b"".join(map(_optional_bytes, images))
        for history, *images in zip(histories, *cutouts, strict=True)
    ]


def _optional_bytes(value: bytes | None) -> bytes:
    return b"\x00" if value is None else b"\x02" + varint(len(value)) + value


def _histories(lists: pa.ListArray) -> list[bytes]:
    """Return each history as an Avro array: its length, its entries, the end."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    entries = lists.flatten()
    shown = pc.fill_null(entries.field("isPublic"), False).to_numpy(zero_copy_only=False)
    alert = np.repeat(np.arange(len(lists)), lengths)[shown]
    content, sizes = _entries(entries.filter(pa.array(shown)))
    counts = np.bincount(alert, minlength=len(lists)).tolist()
    ends = np.cumsum(np.bincount(alert, weights=sizes, minlength=len(lists)).astype(np.int64))
    made, begin = [], 0
    for count, end in zip(counts, ends.tolist(), strict=True):
        made.append(varint(count) + content[begin:end] + b"\x00" if count else b"\x00")
        begin = end
    return made


def _entries(entries: pa.StructArray) -> tuple[bytes, NDArray[np.int64]]:
    """Return the bytes of all entries, and how many each one has, shape (n_entries,)."""
    n = len(entries)
    rows = np.zeros((n, _END), np.uint8)
    used = np.ones((n, _END), np.bool_)
    time = entries.field("midpointMjdTai").to_numpy(zero_copy_only=False)
    rows[:, _TIME:_BAND] = _as_bytes(time, "<f8")
    _put_band(rows[:, _BAND:_FLUX], used[:, _BAND:_FLUX], entries.field("band"))
    for name, first, end in (("psfFlux", _FLUX, _ERR), ("psfFluxErr", _ERR, _KIND)):
        _put_float(rows[:, first:end], used[:, first:end], entries.field(name))
    kind = entries.field("kind").to_numpy(zero_copy_only=False)
    rows[:, _KIND] = 2 * np.clip(kind, 0, len(KINDS) - 1)
    return rows[used].tobytes(), used.sum(axis=1)


def _put_float(rows: Bytes, used: NDArray[np.bool_], column: pa.Array) -> None:
    values = column.to_numpy(zero_copy_only=False).astype(np.float32)
    finite = np.isfinite(values)
    rows[:, 0] = np.where(finite, _VALUE, _NULL)
    rows[:, 1:] = _as_bytes(values, "<f4")
    used[:, 1:] = finite[:, np.newaxis]


def _put_band(rows: Bytes, used: NDArray[np.bool_], column: pa.Array) -> None:
    """Put names of one letter, which all passbands have; another is null."""
    known = pc.fill_null(pc.equal(pc.binary_length(column), 1), False)
    letters = pc.if_else(known, column, "?").to_numpy(zero_copy_only=False).astype("S1")
    known = known.to_numpy(zero_copy_only=False)
    rows[:, 0] = np.where(known, _VALUE, _NULL)
    rows[:, 1] = 2  # the length 1 as a varint
    rows[:, 2] = letters.view(np.uint8)
    used[:, 1:] = known[:, np.newaxis]


def _as_bytes(values: NDArray[Any], kind: str) -> Bytes:
    little = np.ascontiguousarray(values, dtype=kind)
    return little.view(np.uint8).reshape(len(little), little.itemsize)


def _whole(column: Any) -> pa.ListArray:
    if not isinstance(column, pa.ChunkedArray):
        return column
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)

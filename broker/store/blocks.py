"""What a search reads of many alerts at once: one cell has a whole batch of them, by column.

A block is eight bytes of version and length, a header in JSON, and columns packed by zstd, so that
a million alerts are some thousand cells. What has few values (survey, band, topics, classes,
catalogues that have it) is a label: a bit for each alert, for the labels that the block has.
"""

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from broker.catalog.healpix import pixels_of
from broker.errors import ServiceError

COUNT_ORDER = 8
"""HEALPix order of the maps of counts: pixels of 14 arcmin."""

PUBLIC = "public"
SOLAR_SYSTEM = "solar-system"

Bools = NDArray[np.bool_]

_VERSION = 1
_START = struct.Struct(">II")
_NUMBERS: Mapping[str, str] = {
    "number": "<u8",
    "midpointMjdTai": "<f8",
    "ra": "<f8",
    "dec": "<f8",
    "psfFlux": "<f4",
    "snr": "<f4",
    "reliability": "<f4",
    "limitingMag": "<f4",
    "nDiaSources": "<i4",
}
_TEXTS = ("objectName", "diaSourceId")
_COUNTED = ("number", "limitingMag")


@dataclass(frozen=True)
class Entries:
    """Alerts by column.

    Parameters
    ----------
    numbers : mapping of str to NDArray, shape (n,)
        `number` (a hash of survey and diaSourceId), `midpointMjdTai`, `ra`, `dec`, `psfFlux`,
        `snr`, `reliability`, `limitingMag` (NaN where not known), `nDiaSources` (0 likewise);
        in what is only counted `number`, `limitingMag` and `pixel` of order `COUNT_ORDER`.
    texts : mapping of str to pa.Array of str, shape (n,)
        `objectName`, `diaSourceId`; empty in what is only counted.
    labels : mapping of str to NDArray[np.bool_], shape (n,)
        Which alerts have a label: `public`, `survey:ztf`, `band:g`, `topic:…`,
        `class:<column>=<value>`, `catalog:…`, `solar-system`.
    """

    numbers: Mapping[str, NDArray[Any]]
    texts: Mapping[str, pa.Array]
    labels: Mapping[str, Bools]

    def __len__(self) -> int:
        return int(self.numbers["number"].size)

    def label(self, name: str) -> Bools:
        """Return which alerts have a label; none has one that is unknown."""
        found = self.labels.get(name)
        return np.zeros(len(self), bool) if found is None else found

    def take(self, rows: NDArray[Any]) -> "Entries":
        """Return some alerts, by their numbers in this or by a mask."""
        chosen = np.flatnonzero(rows) if rows.dtype == bool else rows
        return Entries(
            {name: values[chosen] for name, values in self.numbers.items()},
            {name: values.take(pa.array(chosen)) for name, values in self.texts.items()},
            {name: bits[chosen] for name, bits in self.labels.items()},
        )

    def trimmed(self) -> "Entries":
        """Return the same without labels that no alert has."""
        labels = {name: bits for name, bits in self.labels.items() if bits.any()}
        return Entries(self.numbers, self.texts, labels)

    def distinct(self) -> "Entries":
        """Return each alert once, as it was said of it last."""
        numbers = self.numbers["number"]
        _, first = np.unique(numbers[::-1], return_index=True)
        if first.size == numbers.size:
            return self
        return self.take(np.sort(numbers.size - 1 - first))


def alert_number(survey: str, dia_source_id: str) -> int:
    """Return the number of an alert: 64 bits of a hash."""
    name = f"{survey}|{dia_source_id}".encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")


def joined_entries(parts: Sequence[Entries]) -> Entries:
    """Return alerts of all parts, in their order; a label that a part lacks none of it has."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return no_entries()
    labels = dict.fromkeys(label for part in parts for label in part.labels)
    return Entries(
        {n: np.concatenate([part.numbers[n] for part in parts]) for n in parts[0].numbers},
        {n: pa.concat_arrays([part.texts[n] for part in parts]) for n in parts[0].texts},
        {label: np.concatenate([part.label(label) for part in parts]) for label in labels},
    )


def no_entries() -> Entries:
    """Return no alert, with all columns."""
    numbers = {name: np.empty(0, kind) for name, kind in _NUMBERS.items()}
    return Entries(numbers, {name: pa.array([], pa.string()) for name in _TEXTS}, {})


def entries_of(records: Sequence[Mapping[str, Any]]) -> Entries:
    """Return stored alerts, as of `AlertStore.alert`, as a search reads them."""
    from broker.store.keys import object_part

    columns: dict[str, list[Any]] = {name: [r.get(name) for r in records] for name in _NUMBERS}
    columns["number"] = [alert_number(r["survey"], r["diaSourceId"]) for r in records]
    names = [object_part(r["diaObjectId"], r["ssObjectId"], r["diaSourceId"]) for r in records]
    texts = {"objectName": names, "diaSourceId": [r["diaSourceId"] for r in records]}
    return Entries(
        {name: _number_array(name, columns[name]) for name in _NUMBERS},
        {name: pa.array(values, pa.string()) for name, values in texts.items()},
        label_bits([_labels_of(record) for record in records]),
    )


def label_bits(of_each: Sequence[Iterable[str]]) -> dict[str, Bools]:
    """Return which alerts have each label, by the labels of each alert."""
    bits: dict[str, Bools] = {}
    for row, labels in enumerate(of_each):
        for label in labels:
            if label not in bits:
                bits[label] = np.zeros(len(of_each), bool)
            bits[label][row] = True
    return dict(sorted(bits.items()))


def _labels_of(record: Mapping[str, Any]) -> list[str]:
    labels = [f"survey:{record['survey']}"]
    labels += [PUBLIC] if record["isPublic"] else []
    labels += [f"band:{record['band']}"] if record.get("band") else []
    labels += [SOLAR_SYSTEM] if record.get("ssObjectId") is not None else []
    labels += [f"topic:{topic}" for topic in record["topics"]]
    for module, outputs in record["outputs"].items():
        for name, value in outputs.items():
            if is_class(f"{module}:{name}") and isinstance(value, str) and value:
                labels.append(class_label(name, value))
    for name, value in record.items():
        catalog = matched_catalog(name)
        if catalog and value == 1:
            labels.append(f"catalog:{catalog}")
    return labels


def is_class(column: str) -> bool:
    """Return whether an output, `module@version:column`, tells a class; none tried out does."""
    return column.endswith("Class") and column.count("@") == 1


def class_label(column: str, value: str) -> str:
    """Return the label of a class that a module's column says."""
    return f"class:{column}={value}"


def matched_catalog(column: str) -> str | None:
    """Return the catalogue of a column that says whether it has the alert; None for others."""
    return column.removesuffix("Match") if column.endswith("Match") else None


def _number_array(name: str, values: Sequence[Any]) -> NDArray[Any]:
    if name == "number":
        return np.array(values, np.uint64)
    if name == "nDiaSources":
        return np.array([0 if v is None else v for v in values], np.int32)
    return np.array([np.nan if v is None else v for v in values], _NUMBERS[name])


def encode_entries(entries: Entries) -> bytes:
    """Return the block of alerts; the same alerts make the same bytes."""
    arrays = [entries.numbers[name].astype(kind).tobytes() for name, kind in _NUMBERS.items()]
    arrays += _packed_labels(entries)
    for name in _TEXTS:
        words = [text.encode() for text in entries.texts[name].to_pylist()]
        ends = np.cumsum([0, *map(len, words)], dtype="<i4")
        arrays += [ends.tobytes(), b"".join(words)]
    return _block(entries, arrays)


def decode_entries(block: bytes) -> Entries:
    """Return the alerts of a block.

    Raises
    ------
    ServiceError
        If it is of a version that is not known here.
    """
    n, names, body = _opened(block)
    at, numbers = 0, {}
    for name, kind in _NUMBERS.items():
        numbers[name] = np.frombuffer(body, kind, n, at)
        at += numbers[name].nbytes
    labels, at = _unpacked_labels(body, at, n, names)
    texts = {}
    for name in _TEXTS:
        ends = pa.py_buffer(body[at : at + 4 * (n + 1)])
        at += 4 * (n + 1)
        size = int(np.frombuffer(ends, "<i4")[-1])
        texts[name] = pa.StringArray.from_buffers(n, ends, pa.py_buffer(body[at : at + size]))
        at += size
    return Entries(numbers, texts, labels)


def encode_counted(entries: Entries) -> bytes:
    """Return what is counted of alerts: which, where, their labels and limiting magnitudes."""
    pixels = pixels_of(entries.numbers["ra"], entries.numbers["dec"], COUNT_ORDER)
    arrays = [entries.numbers[name].astype(_NUMBERS[name]).tobytes() for name in _COUNTED]
    return _block(entries, [*arrays, pixels.astype("<u4").tobytes(), *_packed_labels(entries)])


def decode_counted(block: bytes) -> Entries:
    """Return what is counted; `ServiceError` as of `decode_entries`."""
    n, names, body = _opened(block)
    at, numbers = 0, {}
    for name, kind in [*((name, _NUMBERS[name]) for name in _COUNTED), ("pixel", "<u4")]:
        numbers[name] = np.frombuffer(body, kind, n, at)
        at += numbers[name].nbytes
    return Entries(numbers, {}, _unpacked_labels(body, at, n, names)[0])


def _block(entries: Entries, arrays: Sequence[bytes]) -> bytes:
    body = b"".join(arrays)
    header = json.dumps({"n": len(entries), "labels": list(entries.labels), "bytes": len(body)})
    head = header.encode()
    return _START.pack(_VERSION, len(head)) + head + pa.compress(body, "zstd", asbytes=True)


def _opened(block: bytes) -> tuple[int, list[str], bytes]:
    version, length = _START.unpack_from(block)
    if version != _VERSION:
        raise ServiceError(f"the index has a block of version {version}; {_VERSION} is read")
    end = _START.size + length
    head = json.loads(block[_START.size : end])
    body: bytes = pa.decompress(block[end:], head["bytes"], "zstd", asbytes=True)
    return head["n"], head["labels"], body


def _packed_labels(entries: Entries) -> list[bytes]:
    return [np.packbits(bits).tobytes() for bits in entries.labels.values()]


def _unpacked_labels(
    body: bytes, at: int, n: int, names: Sequence[str]
) -> tuple[dict[str, Bools], int]:
    width = (n + 7) // 8
    bits = np.frombuffer(body, np.uint8, width * len(names), at).reshape(len(names), width)
    rows = np.unpackbits(bits, axis=1, count=n).astype(bool) if names else bits
    return dict(zip(names, rows, strict=True)), at + bits.nbytes

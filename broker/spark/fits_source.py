"""FITS images and tables as a data source of Spark's: `spark.read.format("fits").load(folder)`.

Options, all text:

| option | meaning |
|---|---|
| `hdu` | number or EXTNAME; without it every image of a file, or the first table if there is none |
| `columns` | names with commas between; all by default, only these are read |
| `header` | `true`: the header as a map; images have it unless `false`, tables only if `true` |
| `mode` | `fail` (default): a bad file ends the job; `report`: a row with `path` and `error` |
| `rowsPerPartition` | of large tables; 500000 by default |
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType

from broker.errors import AlertError, ConfigError
from broker.imaging.fits_check import problem_of
from broker.spark.fits_columns import TableLayout, layout_of, read_rows

ENDINGS = tuple(f"{e}{z}" for e in (".fits", ".fit", ".fts") for z in ("", ".gz", ".fz"))

IMAGES = pa.schema(
    [
        pa.field("path", pa.string()),
        pa.field("hdu", pa.int32()),
        pa.field("name", pa.string()),
        pa.field("header", pa.map_(pa.string(), pa.string())),
        pa.field("shape", pa.list_(pa.int32())),
        pa.field("dtype", pa.string()),
        pa.field("pixels", pa.binary()),
    ]
)
"""A row for each image: `pixels` are little-endian numbers of NumPy's type `dtype` in C order,
scaled as the header says, so `np.frombuffer(pixels, dtype).reshape(shape)` is the image."""

_HEADER = pa.field("header", pa.map_(pa.string(), pa.string()))
_PATH, _ERROR = pa.field("path", pa.string()), pa.field("error", pa.string())
_ROWS_PER_PARTITION = 500_000
_ROWS_AT_ONCE = 50_000
_FAILURES = (OSError, ValueError, TypeError, KeyError, IndexError, EOFError, AlertError)


def register_fits(spark: SparkSession) -> None:
    """Make the format `fits` known to a session."""
    spark.dataSource.register(FitsDataSource)


@dataclass(frozen=True)
class Options:
    """What a reader was told.

    Parameters
    ----------
    paths : tuple of str
        Files, sorted.
    hdu : str
        Number or name; empty for any.
    columns : tuple of str
        Empty for all.
    header : bool, optional
    report : bool
        Whether bad files become rows.
    rows : int
        Of a partition.
    """

    paths: tuple[str, ...]
    hdu: str
    columns: tuple[str, ...]
    header: bool | None
    report: bool
    rows: int


def read_options(options: Mapping[str, str]) -> Options:
    """Return the options of a reader.

    Raises
    ------
    ConfigError
        If one of them is not possible, or there is no file.
    """
    given = {name.lower(): value for name, value in options.items()}
    mode = given.get("mode", "fail").lower()
    if mode not in ("fail", "report"):
        raise ConfigError(f"the mode of a FITS reader is fail or report, not {mode!r}")
    rows = given.get("rowsperpartition", str(_ROWS_PER_PARTITION))
    if not rows.isdigit() or int(rows) < 1:
        raise ConfigError(f"rowsPerPartition is a number of rows, not {rows!r}")
    header = given.get("header")
    return Options(
        tuple(_files(given)),
        given.get("hdu", "").strip(),
        tuple(c.strip() for c in given.get("columns", "").split(",") if c.strip()),
        None if header is None else header.lower() == "true",
        mode == "report",
        int(rows),
    )


def _files(given: Mapping[str, str]) -> list[str]:
    places = json.loads(given["paths"]) if "paths" in given else [given.get("path", "")]
    found: set[str] = set()
    for place in places:
        url = urlparse(place)
        if url.scheme not in ("", "file"):
            raise ConfigError(f"{place}: files of a file system are read, not {url.scheme}")
        path = Path(unquote(url.path) if url.scheme else place)
        if path.is_dir():
            found |= {str(f) for f in path.rglob("*") if f.name.lower().endswith(ENDINGS)}
        elif path.exists():
            found.add(str(path))
        else:
            found |= {str(f) for f in path.parent.glob(path.name)} if path.name else set()
    if not found:
        raise ConfigError(f"there are no FITS files in {', '.join(places)}")
    return sorted(found)


@dataclass(frozen=True)
class Plan:
    """What is read of each file: `schema` of the rows; `hdu` is given for tables."""

    options: Options
    is_table: bool
    schema: pa.Schema


def make_plan(options: Options) -> Plan:
    """Decide by the first usable file what the rows are.

    Raises
    ------
    AlertError
        If no file can be used, or the first is bad and the mode is `fail`.
    ConfigError
        If columns are asked for that are not there.
    """
    problem: Exception | None = None
    for path in options.paths:
        try:
            unit = _table_unit(path, options)
        except _FAILURES as error:
            problem = error
            if options.report:
                continue
            raise AlertError(f"{path}: {error}") from error
        return _plan(options, unit)
    raise AlertError(f"none of {len(options.paths)} files can be read: {problem}")


def _plan(options: Options, layout: TableLayout | None) -> Plan:
    if layout is None:
        names = options.columns or tuple(
            n for n in IMAGES.names if n != "header" or options.header is not False
        )
        known = {field.name: field for field in IMAGES}
        front: list[pa.Field] = []
    else:
        known = {c.name: pa.field(c.name, c.arrow_type) for c in layout.columns}
        names = options.columns or tuple(known)
        front = ([_PATH] if options.header or options.report else []) + (
            [_HEADER] if options.header else []
        )
    lower = {name.lower(): name for name in known}
    missing = [name for name in names if name.lower() not in lower]
    if missing:
        raise ConfigError(f"there are no columns {missing}; there are {sorted(known)}")
    fields = [*front, *(known[lower[name.lower()]] for name in names)]
    if options.report:
        fields = [*([] if any(f.name == "path" for f in fields) else [_PATH]), *fields, _ERROR]
    if len({f.name for f in fields}) < len(fields):
        raise ConfigError("a column of the table is named path, header or error: choose others")
    return Plan(options, layout is not None, pa.schema(fields))


def _table_unit(path: str, options: Options) -> TableLayout | None:
    """Return the layout of the table to be read; None if images are."""
    from astropy.io import fits

    with _opened(path) as units:
        if options.hdu:
            unit = units[_key(options.hdu)]
            return None if unit.is_image else _layout(unit)
        if any(u.is_image and u.header.get("NAXIS", 0) > 0 for u in units):
            return None
        tables = [u for u in units if isinstance(u, fits.BinTableHDU)]
        if not tables:
            raise AlertError("it has neither image nor table")
        return _layout(tables[0])


def _key(hdu: str) -> int | str:
    return int(hdu) if hdu.isdigit() else hdu


def _layout(unit: Any) -> TableLayout:
    from astropy.io import fits

    if not isinstance(unit, fits.BinTableHDU):
        raise AlertError("it is no binary table")
    return layout_of(unit.header, int(unit.fileinfo()["datLoc"]))


def _opened(path: str) -> Any:
    from astropy.io import fits

    problem = problem_of(Path(path))
    if problem is not None:
        raise AlertError(problem)
    return fits.open(path, memmap=False, lazy_load_hdus=False)


@dataclass
class Part(InputPartition):
    """Some rows of a file; all of it for images. `error` if it cannot be read."""

    path: str
    first: int = 0
    end: int = 0
    error: str = ""

    def __post_init__(self) -> None:
        super().__init__(self.path)


class FitsDataSource(DataSource):
    """The format `fits`."""

    @classmethod
    def name(cls) -> str:
        """Return what `spark.read.format` calls it."""
        return "fits"

    def schema(self) -> StructType:
        """Return the columns, by the first usable file."""
        return from_arrow_schema(make_plan(read_options(self.options)).schema)

    def reader(self, schema: StructType) -> "FitsReader":  # noqa: ARG002
        """Return a reader."""
        return FitsReader(make_plan(read_options(self.options)))


class FitsReader(DataSourceReader):
    """Reads images file by file, tables by ranges of rows."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def partitions(self) -> list[Part]:
        """Return the parts that can be read side by side."""
        options = self._plan.options
        if not self._plan.is_table:
            return [Part(path) for path in options.paths]
        parts: list[Part] = []
        for path in options.paths:
            try:
                layout = _table_unit(path, options)
                n_rows = 0 if layout is None else layout.n_rows
            except _FAILURES as error:
                parts.append(Part(path, error=_words(error)))
                continue
            # A compressed file has no places to begin at: one task reads it all.
            step = n_rows if _is_compressed(path) else options.rows
            starts = range(0, n_rows, max(step, 1))
            parts += [Part(path, k, min(k + step, n_rows)) for k in starts]
        return parts or [Part(options.paths[0])]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a part."""
        part = partition
        try:
            if part.error:
                raise AlertError(part.error)
            if self._plan.is_table:
                yield from _table_rows(part, self._plan)
            else:
                yield from _image_rows(part.path, self._plan)
        except _FAILURES as error:
            if not self._plan.options.report:
                raise AlertError(f"{part.path}: {_words(error)}") from error
            yield _batch({"path": [part.path], "error": [_words(error)]}, 1, self._plan.schema)


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _is_compressed(path: str) -> bool:
    with Path(path).open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _image_rows(path: str, plan: Plan) -> Iterator[pa.RecordBatch]:
    wanted = plan.schema.names
    with _opened(path) as units:
        if plan.options.hdu:
            chosen = [units.index_of(_key(plan.options.hdu))]
        else:
            chosen = [k for k, u in enumerate(units) if u.is_image and u.header.get("NAXIS", 0) > 0]
        for k in chosen:
            unit = units[k]
            row: dict[str, list[Any]] = {"path": [path], "hdu": [k], "name": [unit.name]}
            if "header" in wanted:
                row["header"] = [header_map(unit.header)]
            if {"shape", "dtype", "pixels"} & set(wanted):
                if unit.data is None or not unit.is_image:
                    raise AlertError(f"HDU {k} has no image")
                data = np.asarray(unit.data)
                data = np.ascontiguousarray(data, data.dtype.newbyteorder("<"))
                row["shape"], row["dtype"] = [list(data.shape)], [data.dtype.name]
                row["pixels"] = [data.tobytes() if "pixels" in wanted else None]
            yield _batch(row, 1, plan.schema)


def header_map(header: Any) -> list[tuple[str, str]]:
    """Return a header's keywords as text, in order; of repeated ones (COMMENT) lines joined."""
    found: dict[str, str] = {}
    for card in header.cards:
        if card.keyword:
            value = card.value
            text = {True: "T", False: "F"}[value] if isinstance(value, bool) else str(value)
            known = found.get(card.keyword)
            found[card.keyword] = text if known is None else f"{known}\n{text}"
    return list(found.items())


def _table_rows(part: Any, plan: Plan) -> Iterator[pa.RecordBatch]:
    import tempfile

    with _opened(part.path) as units:
        hdu = plan.options.hdu
        tables = [u for u in units if not u.is_image]
        unit = units[_key(hdu)] if hdu else tables[0]
        layout, header = _layout(unit), header_map(unit.header)
    own = {"path", "header", "error"} - {c.name for c in layout.columns}
    names = [n for n in plan.schema.names if n not in own]
    missing = set(names) - {c.name for c in layout.columns}
    if missing:
        raise AlertError(f"its table has no columns {sorted(missing)}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(part.path)
        if _is_compressed(part.path):
            path = _uncompressed(path, Path(folder) / "table.fits")
        for first in range(part.first, part.end, _ROWS_AT_ONCE):
            end = min(first + _ROWS_AT_ONCE, part.end)
            values = dict(zip(names, read_rows(path, layout, names, first, end), strict=True))
            front = {"path": [part.path], "header": [header]}
            many = {
                n: pa.array(v * (end - first), plan.schema.field(n).type)
                for n, v in front.items()
                if n in own and n in plan.schema.names
            }
            yield _batch(many | values, end - first, plan.schema)


def _uncompressed(path: Path, target: Path) -> Path:
    import gzip
    import shutil

    with gzip.open(path) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
    return target


def _batch(columns: Mapping[str, Any], n: int, schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch with the columns of a schema, null where there is none."""
    arrays = []
    for field in schema:
        found = columns.get(field.name)
        if found is None:
            arrays.append(pa.nulls(n, field.type))
        elif isinstance(found, pa.Array):
            arrays.append(found if found.type == field.type else found.cast(field.type))
        else:
            arrays.append(pa.array(found, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)

"""Bulk transfer: which alerts are asked for, chosen from the tables of nights. Loads no Spark."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from broker.alerts.columns import ARROW_TYPES, CUTOUTS, HISTORY, Column, snake_case
from broker.errors import ConfigError
from broker.science.expression import Expression, read_expression
from broker.units import ARCSEC_PER_DEG

FORMS = ("parquet", "avro", "fits", "csv")
PACKET_COLUMNS: dict[str, pa.DataType] = {"history": HISTORY} | dict.fromkeys(CUTOUTS, pa.binary())
"""Columns that are not in a night's table: they are read from the archived packets."""

MAX_CONES, MAX_RADIUS_ARCSEC = 100_000, 36_000.0
_HIDDEN = ("origins",)
_ALWAYS = ("isPublic", "survey", "topics", "ra", "dec", "diaSourceId")
_DTYPES = {arrow: name for name, arrow in ARROW_TYPES.items()}


@dataclass(frozen=True)
class Question:
    """Which alerts, which columns, in which format.

    Parameters
    ----------
    first, last : str
        Nights of the exposures, `YYYYMMDD`, both inclusive.
    surveys, topics : tuple of str
        Alerts of one of these, and on one of these; empty is all.
    where : str
        One expression over columns, as of `broker.science.expression`; empty is all.
    cones : tuple of (float, float, float)
        Alerts in one of these: ra [deg], dec [deg], radius [arcsec]; empty is all the sky.
    columns : tuple of str
        Empty is all of the night's table; `history` and cutouts are read from the packets.
    form : str
        One of `FORMS`.
    """

    first: str
    last: str
    surveys: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()
    where: str = ""
    cones: tuple[tuple[float, float, float], ...] = ()
    columns: tuple[str, ...] = ()
    form: str = "parquet"

    def __post_init__(self) -> None:
        for night in (self.first, self.last):
            if not (len(night) == 8 and night.isascii() and night.isdigit()):
                raise ConfigError(f"{night!r} is no night: write YYYYMMDD")
        if self.first > self.last:
            raise ConfigError(f"the first night, {self.first}, is after the last, {self.last}")
        if self.form not in FORMS:
            raise ConfigError(f"there is no format {self.form!r}; there are {', '.join(FORMS)}")
        if len(self.cones) > MAX_CONES:
            raise ConfigError(f"{len(self.cones)} cones; at most {MAX_CONES} are searched at once")
        for ra, dec, radius in self.cones:
            in_range = 0 <= ra <= 360 and -90 <= dec <= 90 and 0 < radius <= MAX_RADIUS_ARCSEC
            if not in_range:
                raise ConfigError(
                    f"cone {ra} {dec} {radius}: ra 0 to 360, dec −90 to 90 degrees, radius up to "
                    f"{MAX_RADIUS_ARCSEC:.0f} arcseconds"
                )
        nested = sorted(set(self.columns) & set(PACKET_COLUMNS))
        if nested and self.form in ("csv", "fits"):
            raise ConfigError(f"{nested[0]} is not for {self.form}; ask for parquet or avro")

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return json.loads(json.dumps(asdict(self)))


def read_question(value: Mapping[str, Any]) -> Question:
    """Return a question from JSON.

    Raises
    ------
    ConfigError
        If a value is not allowed.
    """
    try:
        cones = tuple((float(a), float(b), float(c)) for a, b, c in value.get("cones", ()))
        lists = {k: tuple(value[k]) for k in ("surveys", "topics", "columns") if k in value}
        rest = {k: v for k, v in value.items() if k not in lists and k != "cones"}
        made: dict[str, Any] = {**rest, **lists, "cones": cones}
        return Question(**made)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the question cannot be read: {error}") from error


@dataclass(frozen=True)
class Nights:
    """The tables of nights in a folder, those that a question is about.

    Parameters
    ----------
    files : tuple of Path
        One a night, sorted.
    """

    files: tuple[Path, ...]

    @classmethod
    def of(cls, folder: Path, question: Question) -> "Nights":
        """Return the tables of a question's nights.

        Raises
        ------
        ConfigError
            If there is none.
        """
        known = sorted(folder.glob("[0-9]" * 8 + ".parquet"))
        files = tuple(f for f in known if question.first <= f.stem <= question.last)
        if not files:
            there = ", ".join(f.stem for f in known[-5:]) or "none"
            raise ConfigError(
                f"no night from {question.first} to {question.last} has a table (the newest that "
                f"have: {there}); `broker archive table NIGHT` makes one"
            )
        return cls(files)

    @property
    def identity(self) -> list[list[Any]]:
        """Name, size and time of change of each file: what must not change under a transfer."""
        stats = ((f, f.stat()) for f in self.files)
        return [[f.stem, s.st_size, s.st_mtime_ns] for f, s in stats]

    def schema(self) -> pa.Schema:
        """Return all columns of all nights; a night that lacks one has nulls."""
        fields: dict[str, pa.Field] = {}
        for file in self.files:
            for field in pq.read_schema(file):
                fields[field.name] = field
        return pa.schema(list(fields.values()))


@dataclass(frozen=True)
class Plan:
    """A checked question: what is read and what is written.

    Parameters
    ----------
    question : Question
    sources : dict of str to str
        The column of the night's table by the name that it has in the files.
    schema : pa.Schema
        Of the files.
    expression : Expression or None
    inputs : tuple of str
        Columns of the night's table that the expression reads, in its order.
    """

    question: Question
    sources: dict[str, str]
    schema: pa.Schema
    expression: Expression | None
    inputs: tuple[str, ...]

    @property
    def packet_columns(self) -> list[str]:
        """Columns that are read from the archived packets."""
        return [name for name in self.schema.names if name in PACKET_COLUMNS]

    def select(self, table: pa.Table) -> NDArray[np.bool_]:
        """Return which rows of a night's table are asked for; never one that is not public."""
        chosen = np.asarray(pc.fill_null(table["isPublic"], False))
        if self.question.surveys:
            chosen &= np.asarray(pc.is_in(table["survey"], pa.array(self.question.surveys)))
        if self.question.topics:
            wanted = set(self.question.topics)
            chosen &= np.array([bool(wanted & set(t or ())) for t in table["topics"].to_pylist()],
                               bool)  # fmt: skip
        if self.expression is not None and table.num_rows:
            series: list[pd.Series] = [
                _series(table, name, kind)
                for name, kind in zip(self.inputs, self.expression.kinds, strict=True)
            ]
            chosen &= self.expression(*series).to_numpy(bool)
        if self.question.cones and table.num_rows:
            chosen &= in_cones(table["ra"].to_numpy(), table["dec"].to_numpy(), self.question.cones)
        return chosen

    def read(self, file: pq.ParquetFile, group: int) -> pa.Table:
        """Return what is asked for of a row group, with `origins` if packets are needed."""
        there = set(file.schema_arrow.names)
        needed = {*_ALWAYS, *self.inputs, *self.sources.values()}
        if self.packet_columns:
            needed.add("origins")
        table = file.read_row_group(group, columns=sorted(needed & there))
        for name in sorted(set(self.inputs) - there):
            table = table.append_column(name, pa.nulls(table.num_rows, pa.float64()))
        return table.filter(pa.array(self.select(table), pa.bool_()))

    def shaped(self, table: pa.Table, more: Mapping[str, pa.Array]) -> pa.Table:
        """Return chosen rows with the columns of the files."""
        columns = []
        for field in self.schema:
            source = self.sources.get(field.name)
            if field.name in more:
                columns.append(more[field.name])
            elif source in table.column_names:
                columns.append(table[source].cast(field.type))
            else:
                columns.append(pa.nulls(table.num_rows, field.type))
        return pa.Table.from_arrays(columns, schema=self.schema)


def make_plan(question: Question, schema: pa.Schema) -> Plan:
    """Check a question against the columns of its nights.

    Raises
    ------
    ConfigError
        If it names a column that there is not.
    """
    by_name = {_short(name): name for name in schema.names if name not in _HIDDEN}
    by_python = {snake_case(short): name for short, name in by_name.items()}
    wanted = question.columns or tuple(by_name)
    fields, sources = [], {}
    for name in dict.fromkeys(wanted):
        if name in PACKET_COLUMNS:
            fields.append(pa.field(name, PACKET_COLUMNS[name]))
            continue
        source = by_name.get(_short(name)) or by_python.get(name)
        if source is None:
            raise ConfigError(
                f"there is no column {name!r}; there are {', '.join((*by_name, *PACKET_COLUMNS))}"
            )
        field = schema.field(source)
        words = dict(field.metadata or {})
        if ":" in source:
            words[b"source"] = source.encode()
        fields.append(pa.field(_short(source), field.type, metadata=words))
        sources[_short(source)] = source
    expression = None
    if question.where:
        columns = {
            python: Column(_short(name), _DTYPES[schema.field(name).type], "", "")
            for python, name in by_python.items()
            if schema.field(name).type in _DTYPES
        }
        expression = read_expression(question.where, columns)
    inputs = tuple(by_python[name] for name in expression.inputs) if expression else ()
    return Plan(question, sources, pa.schema(fields), expression, inputs)


def in_cones(
    ra: NDArray[np.float64], dec: NDArray[np.float64], cones: Sequence[tuple[float, float, float]]
) -> NDArray[np.bool_]:
    """Return which places are in at least one cone (ra [deg], dec [deg], radius [arcsec])."""
    from scipy.spatial import cKDTree

    tree = cKDTree(_unit_vectors(ra, dec))
    values = np.array(cones, np.float64)
    # A chord is a little longer than its rounding: the edge of the cone belongs to it.
    chords = 2.0 * np.sin(np.radians(values[:, 2] / ARCSEC_PER_DEG) / 2.0) * (1.0 + 1e-12) + 1e-15
    found = np.zeros(len(ra), bool)
    for some in tree.query_ball_point(_unit_vectors(values[:, 0], values[:, 1]), chords):
        found[some] = True
    return found


def transfer_id(question: Question, nights: Nights, run: str) -> str:
    """Return the name of a transfer: the same for the same question about the same tables."""
    text = json.dumps([run, question.as_json(), nights.identity], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _unit_vectors(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.float64]:
    a, d = np.radians(ra), np.radians(dec)
    return np.column_stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])


def _short(name: str) -> str:
    return name.rpartition(":")[2]


def _series(table: pa.Table, name: str, kind: str) -> pd.Series:
    column = table[name]
    if kind == "number":
        return pd.Series(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
    if kind == "truth":
        return pd.Series(column.to_pylist(), dtype="boolean")
    return pd.Series(column.to_pylist(), dtype=object)

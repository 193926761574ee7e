"""What a survey's adapter is: the one place that knows how its packets look."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from broker import avro
from broker.alerts.arrays import BoolArray, FloatArray, band_codes, to_arrow
from broker.alerts.columns import CANONICAL, CUTOUTS, DETECTION, ORIGIN, SCALARS
from broker.alerts.history import EARLIEST_MJD, LATEST_MJD, Epochs, build_histories, entries
from broker.alerts.schema import reader_schema
from broker.alerts.wire import read_container
from broker.avro import Schema
from broker.errors import AlertError, ConfigError
from broker.types import Coordinate

LARGEST_FLUX_NJY = 1e30
"""A flux beyond this is none: Vega has 4e12 nJy, a float32 ends at 3e38."""


@dataclass(frozen=True, eq=False)
class Canonical:
    """A batch in canonical columns.

    Parameters
    ----------
    table : pa.Table
        Of schema `CANONICAL`, in the order of the batch, without the rows that have a problem.
    problems : dict of int to str
        Why a row of the batch is left out, by its index in the batch.
    counts : dict of str to int
        Oddities that are no problem: `unknownBand`.
    """

    table: pa.Table
    problems: dict[int, str]
    counts: dict[str, int]


@dataclass(frozen=True, eq=False)
class Projection:
    """A survey's values under their canonical names, before they are checked.

    Parameters
    ----------
    columns : dict
        Arrow arrays, or NumPy arrays where NaN is null, by the names in `SCALARS`. `survey`,
        `band` and `ageDays` are filled in; so are `snr`, `firstMjdTai` and `nDiaSources` where
        they are NaN or absent. A name that is absent is null.
    band : pa.Array
        Names of the passbands.
    history : list of Epochs
        Entries beside the alert's own.
    cutouts : dict
        Binary arrays by the names in `CUTOUTS`.
    problems : list of (NDArray[np.bool_], str)
        Rows that the survey's own rules refuse, and why.
    """

    columns: dict[str, Any]
    band: pa.Array
    history: list[Epochs]
    cutouts: dict[str, pa.Array]
    problems: list[tuple[BoolArray, str]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Adapter:
    """How one survey's packets become canonical columns.

    Parameters
    ----------
    survey : str
        Its name, that of the file of its adapter and of the folder of its schemas.
    wire : "container" or "framed"
        A whole Avro container file, or a schema id before the body.
    schemas : mapping of int to Schema
        Writers' schemas: by the id in the framing, or by the bytes of the container's header.
    struct : pa.StructType
        The fields that are used, the same for every version: the type of a decoded column.
    valid_sql : str
        Whether a decoded struct is usable, in SQL over the column named as the survey. Rows for
        which it is not true keep their bytes, and `decode_one` says what is wrong.
    project : callable
        From a decoded `pa.StructArray` of that type to a `Projection`.
    identify : callable
        From a version and its schema to the key in `schemas`, for a version that is new.
    """

    survey: str
    wire: Literal["container", "framed"]
    schemas: Mapping[int, Schema]
    struct: pa.StructType
    valid_sql: str
    project: Callable[[pa.StructArray], Projection]
    identify: Callable[[str, Schema], int] = lambda _, schema: avro.schema_id(schema)

    @functools.cached_property
    def reader_schemas(self) -> dict[int, Schema]:
        """The slim reader schema for each writer's schema, by the keys of `schemas`."""
        return {key: reader_schema(schema, self.struct) for key, schema in self.schemas.items()}

    @property
    def reader_schema(self) -> Schema:
        """The slim reader schema for the newest writer's schema."""
        return self.reader_schemas[max(self.schemas)]

    def to_canonical(self, decoded: pa.StructArray, origin: pa.StructArray) -> Canonical:
        """Return a decoded batch in canonical columns.

        Parameters
        ----------
        decoded : pa.StructArray, shape (n,)
            Of type `struct`, as the stream decodes it.
        origin : pa.StructArray, shape (n,)
            Of type `ORIGIN`: where each packet stood.
        """
        if isinstance(decoded, pa.ChunkedArray):
            decoded = decoded.combine_chunks()
        if isinstance(origin, pa.ChunkedArray):
            origin = origin.combine_chunks()
        return _canonical(self.survey, self.project(decoded), origin.cast(ORIGIN), len(decoded))

    def read(self, packet: bytes) -> tuple[int, dict[str, Any]]:
        """Return the schema id (0 for a container) and the whole record of a packet.

        Raises
        ------
        AlertError
            If the packet is empty, truncated, of an unknown schema, or no packet at all.
        """
        if self.wire == "container":
            return 0, read_container(packet)[1]
        if not packet:
            raise AlertError("the message is empty")
        identifier, body = avro.unframe(packet)
        if identifier not in self.schemas:
            raise AlertError(f"schema id {identifier} is not known for survey {self.survey}")
        return identifier, avro.decode(self.schemas[identifier], body)

    def decode_one(self, packet: bytes, origin: Coordinate) -> pa.Table:
        """Return one packet in canonical columns, a table of one row: the slow path in Python.

        Raises
        ------
        AlertError
            If the packet cannot be used, with the reason.
        """
        identifier, record = self.read(packet)
        try:
            decoded = pa.array([record], self.struct)
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            raise AlertError(f"the record is not one of survey {self.survey}: {error}") from error
        row = {"topic": origin.topic, "partition": origin.partition, "offset": origin.offset}
        done = self.to_canonical(decoded, pa.array([row | {"schemaId": identifier}], ORIGIN))
        if done.problems:
            raise AlertError(done.problems[0])
        return done.table


def survey_schemas(survey: str, identify: Callable[[str, Schema], int]) -> dict[int, Schema]:
    """Return a survey's schemas by their keys.

    Parameters
    ----------
    survey : str
        A folder below `schemas/`.
    identify : callable
        From a version and its schema to the id.
    """
    schemas = {}
    for version in avro.schema_versions(survey):
        schema = avro.read_schema(f"{survey}/{version}")
        schemas[identify(version, schema)] = schema
    if not schemas:
        raise ConfigError(f"there are no schemas in schemas/{survey}", survey=survey)
    return schemas


def sql_between(value: str, low: float, high: float) -> str:
    """Return SQL that is true where a value is in a range; NaN is in none."""
    return f"coalesce({value} BETWEEN {low!r}D AND {high!r}D, false)"


def sql_all(*conditions: str) -> str:
    """Return SQL that is true where all conditions are."""
    return "(" + " AND ".join(conditions) + ")"


def _canonical(survey: str, made: Projection, origin: pa.StructArray, n: int) -> Canonical:
    columns = dict(made.columns)
    band = band_codes(made.band)
    mjd, flux, flux_err = (columns[x] for x in ("midpointMjdTai", "psfFlux", "psfFluxErr"))
    problems = _problems(made)
    own = entries(
        np.arange(n),
        mjd,
        band=band,
        flux=flux,
        flux_err=flux_err,
        is_public=columns["isPublic"],
        kind=DETECTION,
        own=True,
    )
    histories = build_histories([*made.history, own], n)
    _fill(columns, mjd, flux, flux_err, histories.first_mjd, histories.n_detections)
    columns["survey"] = pa.repeat(pa.scalar(survey), n)
    columns["band"] = made.band if (band >= 0).all() else _known(made.band, band)
    arrays = [
        to_arrow(columns[c.name], c.arrow_type) if c.name in columns else pa.nulls(n, c.arrow_type)
        for c in SCALARS
    ]
    arrays += [histories.column, *(made.cutouts[name] for name in CUTOUTS), origin]
    table = pa.Table.from_arrays(arrays, schema=CANONICAL)
    good = np.ones(n, np.bool_)
    good[list(problems)] = False
    unknown = int(np.count_nonzero(good & (band < 0)))
    return Canonical(
        table.filter(pa.array(good)) if problems else table,
        problems,
        {"unknownBand": unknown} if unknown else {},
    )


def _known(names: pa.Array, band: NDArray[np.int8]) -> pa.Array:
    return pa.array(np.where(band >= 0, names.to_numpy(zero_copy_only=False), None), pa.string())


def _fill(
    columns: dict[str, Any],
    mjd: FloatArray,
    flux: FloatArray,
    flux_err: FloatArray,
    first_mjd: FloatArray,
    n_detections: NDArray[np.int64],
) -> None:
    """Fill what follows from other columns where the survey does not say it."""
    with np.errstate(all="ignore"):
        snr = columns.get("snr", np.full(len(mjd), np.nan))
        columns["snr"] = np.where(np.isfinite(snr), snr, np.abs(flux) / flux_err)
    first = columns.get("firstMjdTai", np.full(len(mjd), np.nan))
    first = np.where(_is_mjd(first), first, first_mjd)
    columns["firstMjdTai"] = first
    columns["ageDays"] = np.maximum(mjd - first, 0.0)
    told = columns.get("nDiaSources", np.zeros(len(mjd), np.int64))
    columns["nDiaSources"] = np.where(told > 0, told, n_detections).astype(np.int32)


def _is_mjd(values: FloatArray) -> BoolArray:
    return np.asarray((values >= EARLIEST_MJD) & (values <= LATEST_MJD))


def _problems(made: Projection) -> dict[int, str]:
    """Return the first problem of each row that has one."""
    columns = made.columns
    missing = np.asarray(columns["diaSourceId"].is_null())
    ranges = (
        ("ra", 0.0, 360.0),
        ("dec", -90.0, 90.0),
        ("midpointMjdTai", EARLIEST_MJD, LATEST_MJD),
        ("psfFlux", -LARGEST_FLUX_NJY, LARGEST_FLUX_NJY),
        ("psfFluxErr", 0.0, LARGEST_FLUX_NJY),
    )
    outside = [
        ~((columns[name] >= low) & (columns[name] <= high)) | (columns[name] == 0.0)
        if name == "psfFluxErr"
        else ~((columns[name] >= low) & (columns[name] <= high))
        for name, low, high in ranges
    ]
    refused = np.logical_or.reduce([missing, *outside, *(mask for mask, _ in made.problems)])
    problems = {}
    for row in np.flatnonzero(refused):
        said = [text for mask, text in made.problems if mask[row]]
        said += ["diaSourceId is missing"] if missing[row] else []
        for bad, (name, low, high) in zip(outside, ranges, strict=True):
            said += [_outside(name, columns[name][row], low, high)] if bad[row] else []
        problems[int(row)] = "; ".join(said)
    return problems


def _outside(name: str, value: float, low: float, high: float) -> str:
    if np.isnan(value):
        return f"{name} is missing or NaN"
    if name == "psfFluxErr":
        return f"psfFluxErr is {value:g}, it must be positive and finite"
    if name == "psfFlux":
        return f"psfFlux is {value:g}, it must be finite"
    return f"{name} is {value!s}, not between {low:g} and {high:g}"

"""The tables that TAP shows: their columns, with units and meanings, and `TAP_SCHEMA`."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import pyarrow as pa

from broker.science import Contributions
from broker.store.blocks import is_class

OBJECTS, ALERTS = "broker.objects", "broker.alerts"

SHORT, INT, LONG = pa.int16(), pa.int32(), pa.int64()
FLOAT, DOUBLE, TEXT = pa.float32(), pa.float64(), pa.string()

DATATYPES = {
    pa.bool_(): "boolean",
    SHORT: "short",
    INT: "int",
    LONG: "long",
    FLOAT: "float",
    DOUBLE: "double",
    TEXT: "char",
}
"""What VOTable calls the types of columns."""


@dataclass(frozen=True)
class TapColumn:
    """A column.

    Parameters
    ----------
    name : str
        As in the API.
    type : pa.DataType
        Of `DATATYPES`.
    description, unit, ucd : str
        Empty where there is none.
    principal : bool
        Whether it is shown first.
    """

    name: str
    type: pa.DataType
    description: str
    unit: str = ""
    ucd: str = ""
    principal: bool = True

    @property
    def datatype(self) -> str:
        """Its type as VOTable calls it."""
        return DATATYPES[self.type]

    @property
    def arraysize(self) -> str | None:
        """`*` for text."""
        return "*" if self.type == TEXT else None


@dataclass(frozen=True)
class TapTable:
    """A table.

    Parameters
    ----------
    name : str
        As in a query, with its schema.
    description : str
        What a row is.
    columns : tuple of TapColumn
        In their order.
    """

    name: str
    description: str
    columns: tuple[TapColumn, ...]

    @property
    def schema(self) -> str:
        """The part of its name before the point."""
        return self.name.partition(".")[0]

    @property
    def names(self) -> frozenset[str]:
        """Names of its columns."""
        return frozenset(column.name for column in self.columns)

    @property
    def arrow_schema(self) -> pa.Schema:
        """Its columns in Arrow."""
        return pa.schema([(column.name, column.type) for column in self.columns])


_PLACE = (
    TapColumn("ra", DOUBLE, "Right ascension, ICRS.", "deg", "pos.eq.ra;meta.main"),
    TapColumn("dec", DOUBLE, "Declination, ICRS.", "deg", "pos.eq.dec;meta.main"),
)
_MEASURED = (
    TapColumn("band", TEXT, "Passband: u g r i z y.", "", "instr.bandpass"),
    TapColumn("psfFlux", FLOAT, "Difference flux, positive or negative.", "nJy", "phot.flux"),
    TapColumn("mag", FLOAT, "AB magnitude of psfFlux; null if not positive.", "mag", "phot.mag"),
    TapColumn("snr", FLOAT, "Signal to noise.", "", "stat.snr"),
    TapColumn("reliability", FLOAT, "Real/bogus score, 0 to 1.", "", "stat.probability"),
    TapColumn("limitingMag", FLOAT, "Limiting AB magnitude of its image.", "mag", "phot.mag"),
    TapColumn("nDiaSources", INT, "Detections of its object, as the survey counts.", "",
              "meta.number"),
    TapColumn("isSolarSystem", SHORT, "1 if its survey knows it as a solar-system object, else 0."),
    TapColumn("topics", TEXT, "Topics that chose it, a space between; not watchlists."),
)  # fmt: skip
_SURVEY = TapColumn("survey", TEXT, "sim, ztf or lsst.", "", "meta.id;instr.obsty")
_NAME = "Name that the object is asked for by: its diaObjectId, or ss: and its ssObjectId."
_TIME = "Middle of the exposure, MJD, TAI"

_STANDARD = "tap_schema"
_TAP_SCHEMA = (
    TapTable("tap_schema.schemas", "Schemas.", (
        *(TapColumn(name, TEXT, "") for name in ("schema_name", "utype", "description")),
        TapColumn("schema_index", INT, ""),
    )),
    TapTable("tap_schema.tables", "Tables.", (
        *(TapColumn(name, TEXT, "") for name in (
            "schema_name", "table_name", "table_type", "utype", "description")),
        TapColumn("table_index", INT, ""),
    )),
    TapTable("tap_schema.columns", "Columns.", (
        *(TapColumn(name, TEXT, "") for name in (
            "table_name", "column_name", "description", "unit", "ucd", "utype", "datatype",
            "arraysize", "xtype")),
        *(TapColumn(name, INT, "") for name in (
            "size", "principal", "indexed", "std", "column_index")),
    )),
    TapTable("tap_schema.keys", "Foreign keys.", tuple(
        TapColumn(name, TEXT, "")
        for name in ("key_id", "from_table", "target_table", "utype", "description")
    )),
    TapTable("tap_schema.key_columns", "Columns of foreign keys.", tuple(
        TapColumn(name, TEXT, "") for name in ("key_id", "from_column", "target_column")
    )),
)  # fmt: skip


@dataclass(frozen=True)
class Key:
    """A table whose rows name rows of another.

    Parameters
    ----------
    table, target : str
        Names of the tables.
    columns : tuple of (str, str)
        The columns that are equal.
    """

    table: str
    target: str
    columns: tuple[tuple[str, str], ...]


def _standard_key(table: str, target: str, column: str, other: str = "") -> Key:
    return Key(f"{_STANDARD}.{table}", f"{_STANDARD}.{target}", ((column, other or column),))


KEYS = (
    Key(ALERTS, OBJECTS, (("survey", "survey"), ("objectId", "objectId"))),
    _standard_key("tables", "schemas", "schema_name"),
    _standard_key("columns", "tables", "table_name"),
    _standard_key("keys", "tables", "from_table", "table_name"),
    _standard_key("keys", "tables", "target_table", "table_name"),
    _standard_key("key_columns", "keys", "key_id"),
)

INDEXED = ("ra", "dec", "midpointMjdTai", "night")
"""Columns whose limits in a query are looked at before rows are read."""


def tap_tables(contributions: Contributions, catalogs: Collection[str]) -> dict[str, TapTable]:
    """Return the tables by name.

    Parameters
    ----------
    contributions : Contributions
        Modules; each of their classes is a column.
    catalogs : collection of str
        Catalogues; each is a column.
    """
    more = (*_classes(contributions), *_matches(catalogs))
    objects = TapTable(
        OBJECTS,
        "The objects with public alerts, a row each; what is measured is of the newest alert.",
        (
            TapColumn("objectId", TEXT, _NAME, "", "meta.id;meta.main"),
            _SURVEY,
            *_PLACE,
            TapColumn("nAlerts", INT, "Its public alerts.", "", "meta.number"),
            TapColumn("firstMjdTai", DOUBLE, f"{_TIME}, of its first alert.", "d", "time.start"),
            TapColumn("lastMjdTai", DOUBLE, f"{_TIME}, of its newest alert.", "d", "time.end"),
            TapColumn("newestAlert", TEXT, "diaSourceId of its newest alert.", "", "meta.id"),
            *_MEASURED,
            *more,
        ),
    )
    alerts = TapTable(
        ALERTS,
        "The public alerts, a row each.",
        (
            TapColumn("diaSourceId", TEXT, "Identifier of the alert in its survey.", "",
                      "meta.id;meta.main"),
            TapColumn("objectId", TEXT, _NAME, "", "meta.id"),
            _SURVEY,
            TapColumn("night", TEXT, "YYYYMMDD: the night, from noon to noon.", "", "time.epoch"),
            TapColumn("midpointMjdTai", DOUBLE, f"{_TIME}.", "d", "time.epoch;meta.main"),
            *_PLACE,
            *_MEASURED,
            *more,
        ),
    )  # fmt: skip
    return {table.name: table for table in (objects, alerts, *_TAP_SCHEMA)}


def _classes(contributions: Contributions) -> list[TapColumn]:
    found: dict[str, TapColumn] = {}
    for name, column in contributions.qualified_columns.items():
        if is_class(name) and column.dtype == "string":
            found[column.name] = TapColumn(column.name, TEXT, column.doc, "", "meta.code.class")
    return list(found.values())


def _matches(catalogs: Collection[str]) -> list[TapColumn]:
    words = "1 if {} has an entry there; else null: it has none, or does not reach there."
    return [TapColumn(f"{name}Match", SHORT, words.format(name), "", "meta.code") for name in
            sorted(catalogs)]  # fmt: skip


def schema_rows(tables: Mapping[str, TapTable]) -> dict[str, pa.Table]:
    """Return the rows of the tables of `TAP_SCHEMA`, by name."""
    rows: dict[str, list[dict[str, object]]] = {table.name: [] for table in _TAP_SCHEMA}
    words = {"broker": "Alerts as they were judged and kept.", _STANDARD: "What tables there are."}
    for number, (name, description) in enumerate(words.items()):
        rows["tap_schema.schemas"].append(
            {"schema_name": name, "description": description, "schema_index": number}
        )
    for number, table in enumerate(tables.values()):
        rows["tap_schema.tables"].append({
            "schema_name": table.schema, "table_name": table.name, "table_type": "table",
            "description": table.description, "table_index": number,
        })  # fmt: skip
        rows["tap_schema.columns"] += [_said(table, at) for at in range(len(table.columns))]
    for number, key in enumerate(KEYS):
        rows["tap_schema.keys"].append(
            {"key_id": str(number), "from_table": key.table, "target_table": key.target}
        )
        rows["tap_schema.key_columns"] += [
            {"key_id": str(number), "from_column": one, "target_column": other}
            for one, other in key.columns
        ]
    return {
        table.name: pa.Table.from_pylist(rows[table.name], schema=table.arrow_schema)
        for table in _TAP_SCHEMA
    }


def _said(table: TapTable, at: int) -> dict[str, object]:
    column = table.columns[at]
    standard = table.schema == _STANDARD
    return {
        "table_name": table.name,
        # A reserved word is told as it must be written.
        "column_name": '"size"' if column.name == "size" else column.name,
        "description": column.description or None,
        "unit": column.unit or None,
        "ucd": column.ucd or None,
        "datatype": column.datatype,
        "arraysize": column.arraysize,
        "principal": int(column.principal),
        "indexed": int(column.name in INDEXED and not standard),
        "std": int(standard),
        "column_index": at,
    }

"""What a catalogue is, apart from its rows: one TOML file, of the package or beside the rows.

The package's own are in `definitions/`. Anyone else's lies in the folder of catalogues, as
`<name>/definition.toml`, where `broker catalog add --definition` puts it.
"""

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from broker.alerts.columns import ARROW_TYPES, MATCH_COLUMNS, NOTICE_COLUMNS, NOTICES, Column
from broker.catalog.orbits import PREDICTED, Site
from broker.errors import ConfigError

DEFINITION = "definition.toml"

FRAMES = ("icrs", "galactic", "fk5")
UNITS = ("deg", "rad", "hms")
COVERAGES = ("rows", "all-sky")

POSITIONS, ORBITS, MAP = KINDS = ("positions", "orbits", "map")
"""Kinds of catalogue: entries at fixed places, bodies on orbits, values by HEALPix pixel."""

ELEMENTS = (
    "perihelionAu",
    "eccentricity",
    "inclination",
    "ascendingNode",
    "perihelionArgument",
    "perihelionMjd",
)
"""Columns of an installed catalogue of orbits, in the order of `orbits.Elements`."""

EPOCH, ABSOLUTE_MAG, SLOPE = "epochMjd", "absoluteMag", "slope"
ORBIT_COLUMNS = (*ELEMENTS, EPOCH, ABSOLUTE_MAG, SLOPE)

CREDIBLE_LEVEL = Column(
    "credibleLevel", "float32", "", "Share of the probability in pixels as likely or likelier."
)


@dataclass(frozen=True)
class KnownObject:
    """An entry whose place is known, against a wrong frame or unit.

    Parameters
    ----------
    id : str
        Its id in the file.
    ra, dec : float
        Where it is. [deg]
    within_arcsec : float
        How far from there its entry may be. [arcsec]
    """

    id: str
    ra: float
    dec: float
    within_arcsec: float = 60.0


@dataclass(frozen=True)
class PositionColumns:
    """Where a file has ids, positions and proper motions.

    Parameters
    ----------
    id, ra, dec : str
        Names of columns in the file; longitude and latitude if the frame is galactic.
    frame : str
        icrs, galactic or fk5 (equinox J2000).
    unit : str
        deg, rad, or hms: sexagesimal hours and degrees as text.
    pm_ra, pm_dec : str or None
        Columns of proper motion in ICRS, that in right ascension times cos(dec). [mas / yr]
    epoch : float or None
        When the entries are at their positions, if they have proper motions. [yr]
    known : KnownObject or None
        An entry to check.
    """

    id: str = "id"
    ra: str = "ra"
    dec: str = "dec"
    frame: str = "icrs"
    unit: str = "deg"
    pm_ra: str | None = None
    pm_dec: str | None = None
    epoch: float | None = None
    known: KnownObject | None = None


@dataclass(frozen=True)
class OrbitColumns:
    """Where a file has the elements of orbits; angles in degrees, lengths in au.

    Parameters
    ----------
    id, eccentricity, inclination, node, argument, epoch : str
        Names of columns in the file; the defaults are those of JPL's small-body database.
    perihelion, semi_major : str
        Perihelion distance; where the file has none, the semi-major axis.
    perihelion_time, mean_anomaly : str
        Time of the perihelion; where the file has none, the mean anomaly at the epoch.
    absolute_mag, slope : str
        H and G; a file may lack them.
    time : str
        mjd or jd, of `epoch` and `perihelion_time` (TDB).
    site : Site or None
        Where the alerts are observed from; None is the middle of the Earth.
    """

    id: str = "id"
    eccentricity: str = "e"
    inclination: str = "i"
    node: str = "om"
    argument: str = "w"
    epoch: str = "epoch"
    perihelion: str = "q"
    semi_major: str = "a"
    perihelion_time: str = "tp"
    mean_anomaly: str = "ma"
    absolute_mag: str = "H"
    slope: str = "G"
    time: str = "mjd"
    site: Site | None = None


@dataclass(frozen=True)
class Definition:
    """What a catalogue is, apart from its rows.

    Parameters
    ----------
    name : str
        First part of the names of its match columns.
    doc : str
        One sentence.
    radius_arcsec : float
        A position matches an entry within this radius. [arcsec]
    columns : tuple of Column
        The attached columns.
    radius_column : str or None
        An attached column in arcsec; where it is larger than `radius_arcsec`, it is the radius.
    radius_factor : float
        What `radius_column` is multiplied by to be a radius.
    class_column : str or None
        An attached column whose text says which of `class_radii` is an entry's radius.
    class_radii : mapping of str to float
        Radius by class; `radius_arcsec` is that of any other. [arcsec]
    positions : PositionColumns
        Where a file has the positions.
    sources : mapping of str to str
        Names in the file of the attached columns that are named otherwise there.
    units : mapping of str to str
        Units in the file of the attached columns that have another unit there.
    coverage : str
        Where it has looked: `rows`, as they tell, or `all-sky`.
    version, citation : str
        Default version, and what to cite.
    kind : str
        `positions`, `orbits` or `map`.
    orbits : OrbitColumns
        Where a file has the elements, if the kind is `orbits`.
    probability : str or None
        The column of a map that is a probability, or its density: a match has `credibleLevel`.
    """

    name: str
    doc: str
    radius_arcsec: float
    columns: tuple[Column, ...]
    radius_column: str | None = None
    radius_factor: float = 1.0
    class_column: str | None = None
    class_radii: Mapping[str, float] = field(default_factory=dict)
    positions: PositionColumns = PositionColumns()
    sources: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    coverage: str = "rows"
    version: str = ""
    citation: str = ""
    kind: str = POSITIONS
    orbits: OrbitColumns = OrbitColumns()
    probability: str | None = None

    @property
    def computed_columns(self) -> tuple[Column, ...]:
        """What a match has beside the usual and the attached columns."""
        if self.kind == ORBITS:
            return PREDICTED
        return (CREDIBLE_LEVEL,) if self.probability is not None else ()

    @functools.cached_property
    def match_columns(self) -> tuple[Column, ...]:
        """What a batch of alerts gets from this catalogue, named as modules see it."""
        return tuple(
            Column(match_name(self.name, c.name), c.dtype, c.unit, c.doc, c.nullable)
            for c in (*MATCH_COLUMNS, *self.computed_columns, *self.columns)
        )


def match_name(catalog: str, column: str) -> str:
    """Return a match column's name: `reference`, `sizeArcsec` make `referenceSizeArcsec`."""
    return catalog + column[0].upper() + column[1:]


def parse_definition(name: str, text: str, where: str | None = None) -> Definition:
    """Return the definition of a catalogue from the text of its file.

    Parameters
    ----------
    name : str
        Name of the catalogue.
    text : str
        The TOML.
    where : str, optional
        What an error calls the file.

    Raises
    ------
    ConfigError
        If it is not TOML, lacks a key, or has an unknown key, an unknown type, a column twice or
        a radius that is not positive.
    """
    where = where or f"catalog/definitions/{name}.toml"
    if not (name.isascii() and name.isalnum() and name[0].islower()):
        raise ConfigError(f"{where}: a catalogue's name is camelCase letters and digits")
    if name == NOTICES:
        raise ConfigError(f"{where}: the name {NOTICES} is taken")
    try:
        values = tomllib.loads(text)
        columns = [dict(column) for column in _column_values(values)]
        sources = {c["name"]: c.pop("source") for c in columns if "source" in c}
        units = {c["name"]: c.pop("source_unit") for c in columns if "source_unit" in c}
        definition = Definition(
            name=name,
            columns=tuple(Column(**column) for column in columns),
            positions=_positions(values.pop("positions", {})),
            orbits=_orbits(values.pop("orbits", {})),
            sources=sources,
            units=units,
            **values,
        )
        _check(definition, where)
    except (tomllib.TOMLDecodeError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{where} cannot be used: {error}", path=where) from error
    return definition


def _positions(values: dict[str, Any]) -> PositionColumns:
    known = values.pop("known", None)
    return PositionColumns(known=KnownObject(**known) if known else None, **values)


def _orbits(values: dict[str, Any]) -> OrbitColumns:
    site = values.pop("site", None)
    return OrbitColumns(site=Site(**site) if site else None, **values)


def _column_values(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Take the attached columns out; a catalogue of orbits, or of probability, may have none."""
    if values.get("kind") == ORBITS or "probability" in values:
        return list(values.pop("columns", []))
    return list(values.pop("columns"))


def _check(definition: Definition, where: str) -> None:
    _check_columns(definition, where)
    if not (definition.radius_arcsec > 0.0 and definition.radius_factor > 0.0):
        raise ConfigError(f"{where}: radius_arcsec and radius_factor must be positive")
    names = [column.name for column in definition.columns]
    if definition.radius_column is not None and definition.radius_column not in names:
        raise ConfigError(f"{where}: radius_column {definition.radius_column} is no column")
    if bool(definition.class_radii) != (definition.class_column in names):
        raise ConfigError(f"{where}: class_radii needs class_column, an attached column")
    if not all(radius > 0.0 for radius in definition.class_radii.values()):
        raise ConfigError(f"{where}: class_radii must be positive")
    at = definition.positions
    allowed = (
        ("positions.frame", at.frame, FRAMES),
        ("positions.unit", at.unit, UNITS),
        ("coverage", definition.coverage, COVERAGES),
        ("kind", definition.kind, KINDS),
        ("orbits.time", definition.orbits.time, ("mjd", "jd")),
    )
    for key, value, choices in allowed:
        if value not in choices:
            raise ConfigError(f"{where}: {key} is {value!r}; use {', '.join(choices)}")
    if definition.probability is not None and definition.kind != MAP:
        raise ConfigError(f'{where}: probability is for kind = "map"')
    if len({at.pm_ra is None, at.pm_dec is None, at.epoch is None}) > 1:
        raise ConfigError(f"{where}: proper motion needs pm_ra, pm_dec and epoch, all three")


def _check_columns(definition: Definition, where: str) -> None:
    names = [column.name for column in definition.columns]
    reserved = {"id", "ra", "dec", *(column.name for column in MATCH_COLUMNS)}
    reserved |= {"healpix29", "radiusArcsec", "idRank", "motionRa", "motionDec"}
    reserved |= {column.name for column in definition.computed_columns}
    reserved |= {"firstPixel", "endPixel"} | set(ORBIT_COLUMNS)
    for column in definition.columns:
        if column.dtype not in ARROW_TYPES:
            raise ConfigError(
                f"{where}: {column.name} is of type {column.dtype}; use {', '.join(ARROW_TYPES)}"
            )
        if names.count(column.name) > 1 or column.name in reserved:
            raise ConfigError(f"{where}: the name {column.name} is taken")
        if not column.python_name.isidentifier():
            raise ConfigError(f"{where}: the name {column.name} is no camelCase name")


@functools.cache
def _own_definitions() -> dict[str, Definition]:
    folder = files("broker.catalog").joinpath("definitions")
    names = sorted(p.name for p in folder.iterdir() if p.name.endswith(".toml"))
    texts = {name: folder.joinpath(name).read_text(encoding="utf-8") for name in names}
    return {
        name.removesuffix(".toml"): parse_definition(name.removesuffix(".toml"), text)
        for name, text in texts.items()
    }


def read_definitions(path: Path | None = None) -> dict[str, Definition]:
    """Return all defined catalogues by name, in the order of names.

    Parameters
    ----------
    path : Path, optional
        Folder of all catalogues: those defined there are in, and win over the package's.

    Raises
    ------
    ConfigError
        If a definition cannot be used; the message names the file.
    """
    found = dict(_own_definitions())
    for file in sorted(path.glob(f"*/{DEFINITION}")) if path else ():
        name = file.parent.name
        found[name] = parse_definition(name, file.read_text(encoding="utf-8"), str(file))
    return dict(sorted(found.items()))


def definitions(path: Path | None = None) -> dict[str, tuple[Column, ...]]:
    """Return the match columns of every defined catalogue: what a module may ask for.

    `path` is the folder of catalogues; without it, only the package's are in.
    """
    return {name: d.match_columns for name, d in read_definitions(path).items()}


def provided_matches(path: Path | None = None) -> dict[str, tuple[Column, ...]]:
    """Return what `definitions` does, and the columns of the match with notices."""
    return definitions(path) | {NOTICES: NOTICE_COLUMNS}


def definition_of(name: str, path: Path | None = None) -> Definition:
    """Return one catalogue's definition; ConfigError if there is none of that name."""
    known = read_definitions(path)
    if name not in known:
        raise ConfigError(
            f"no catalogue {name!r} is defined; there are {', '.join(known)}. Write what it is "
            "into a TOML file and give it with --definition",
            catalog=name,
        )
    return known[name]

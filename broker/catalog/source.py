"""Catalogues as they come: CSV, Parquet, FITS, VOTable and ECSV files, in their own frames."""

import difflib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from broker.alerts.columns import camel_case
from broker.catalog.definition import Definition, PositionColumns
from broker.catalog.hats import is_hats, read_hats
from broker.catalog.healpix import Floats
from broker.catalog.partition import MOTION_DEC, MOTION_RA
from broker.errors import ConfigError

_ASTROPY = {
    ".fits": "fits",
    ".fit": "fits",
    ".vot": "votable",
    ".xml": "votable",
    ".votable": "votable",
    ".ecsv": "ascii.ecsv",
}
_ENOUGH_FOR_RADIANS = 50


def read_file(path: Path) -> tuple[pa.Table, dict[str, str]]:
    """Read a table from a file, known by the end of its name, or from a HATS folder.

    Returns
    -------
    tuple of pa.Table and dict
        All its columns, and the units that the file states.

    Raises
    ------
    ConfigError
        If the kind is not known, or the file cannot be read or is cut short.
    """
    suffixes = [s.lower() for s in path.suffixes if s.lower() != ".gz"]
    kind = suffixes[-1] if suffixes else ""
    name = {".csv": "CSV", ".tsv": "CSV", ".parquet": "Parquet", ".pq": "Parquet"}.get(kind)
    try:
        if path.is_dir() and is_hats(path):
            name = "HATS"
            return read_hats(path), {}
        if name == "CSV":
            options = pa_csv.ParseOptions(delimiter="\t" if kind == ".tsv" else ",")
            return pa_csv.read_csv(path, parse_options=options), {}
        if name == "Parquet" or (not kind and path.is_file()):
            name = "Parquet"
            return pq.read_table(path), {}
        if kind in _ASTROPY:
            name = _ASTROPY[kind]
            return _from_astropy(path, name)
    except (OSError, ValueError, TypeError, LookupError, EOFError, UserWarning) as error:
        raise ConfigError(f"{path} cannot be read as {name}: {error}", path=str(path)) from error
    raise ConfigError(
        f"{path}: a file's name ends in .csv, .tsv, .parquet, {', '.join(_ASTROPY)}; also in .gz",
        path=str(path),
    )


def _from_astropy(path: Path, kind: str) -> tuple[pa.Table, dict[str, str]]:
    from astropy.table import Table
    from astropy.utils.exceptions import AstropyUserWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", ".*truncated.*", AstropyUserWarning)
        table = (
            Table.read(path, format=kind, character_as_bytes=False)
            if kind == "fits"
            else (Table.read(path, format=kind))
        )
    units = {name: str(table[name].unit) for name in table.colnames if table[name].unit}
    columns = {}
    for name in table.colnames:
        column = table[name]
        values = np.ma.asarray(column)
        if values.ndim > 1:  # an array a row is no column of a match
            continue
        data = np.ascontiguousarray(values.data)
        if not data.dtype.isnative:
            data = data.astype(data.dtype.newbyteorder("="))
        mask = np.ma.getmaskarray(values)
        columns[name] = pa.array(data.tolist() if data.dtype.kind in "OUS" else data, mask=mask)
    return pa.table(columns), units


def read_source(rows: Path | pa.Table, definition: Definition) -> pa.Table:
    """Return a catalogue's rows as they are installed.

    Parameters
    ----------
    rows : Path or pa.Table
        A file, or its columns.
    definition : Definition
        Where what is in it.

    Returns
    -------
    pa.Table
        `id` as text, `ra` and `dec` (ICRS, degrees; NaN where there is none), proper motions if
        it has them, and the attached columns in their types and units.

    Raises
    ------
    ConfigError
        If the file cannot be read, a column is missing or of another type, or what the file says
        of its units contradicts the definition.
    """
    table, units = (rows, {}) if isinstance(rows, pa.Table) else read_file(rows)
    at = definition.positions
    ra, dec = _positions(table, units, definition)
    columns = {
        "id": _cast(find_column(table, at.id), pa.large_string(), at.id),
        "ra": pa.chunked_array([ra]),
        "dec": pa.chunked_array([dec]),
    }
    if at.pm_ra is not None and at.pm_dec is not None:
        for name, source in ((MOTION_RA, at.pm_ra), (MOTION_DEC, at.pm_dec)):
            motion = _numbers(find_column(table, source), source)
            factor = _factor(units.get(source, ""), "mas / yr", source)
            columns[name] = pa.chunked_array([np.nan_to_num(motion * factor, nan=0.0)])
    return pa.table(columns | attached_columns(table, units, definition))


def attached_columns(
    table: pa.Table, units: Mapping[str, str], definition: Definition
) -> dict[str, pa.ChunkedArray]:
    """Return the attached columns in their types and units; ConfigError if one is of others."""
    return {c.name: _attached(table, units, definition, c.name) for c in definition.columns}


def columns_of(table: pa.Table, names: Sequence[str]) -> list[Floats]:
    """Return columns as numbers, NaN where null; ConfigError if one is missing or no number."""
    return [_numbers(find_column(table, name), name) for name in names]


def has_column(table: pa.Table, name: str) -> bool:
    """Return whether a column is there, by its name or the same in snake_case."""
    return _lookup(table, name) is not None


def find_column(table: pa.Table, name: str) -> pa.ChunkedArray:
    """Return a column by its name or the same in snake_case; ConfigError if there is none."""
    found = _lookup(table, name)
    if found is None:
        close = difflib.get_close_matches(name, table.column_names, n=3, cutoff=0.4)
        hint = f" (did you mean {', '.join(close)}?)" if close else ""
        raise ConfigError(
            f"the rows have no column {name}{hint}; they have "
            f"{', '.join(table.column_names[:30])}. Name it in the definition",
            column=name,
        )
    return found


def _lookup(table: pa.Table, name: str) -> pa.ChunkedArray | None:
    """Return a column by its name, or by the same name in snake_case."""
    if name in table.column_names:
        return table.column(name)
    same = [n for n in table.column_names if camel_case(n) == name]
    return table.column(same[0]) if same else None


def _cast(column: pa.ChunkedArray, kind: pa.DataType, name: str) -> pa.ChunkedArray:
    try:
        return column.cast(kind, safe=not pa.types.is_floating(kind))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ConfigError(f"column {name} of the rows is not {kind}: {error}") from error


def _numbers(column: pa.ChunkedArray, name: str) -> Floats:
    numbers = _cast(column, pa.float64(), name)
    return (pc.fill_null(numbers, np.nan) if numbers.null_count else numbers).to_numpy()


def _attached(
    table: pa.Table, units: Mapping[str, str], definition: Definition, name: str
) -> pa.ChunkedArray:
    """Return an attached column; of 64-bit offsets, so that text stays one chunk of the file."""
    column = next(c for c in definition.columns if c.name == name)
    source = definition.sources.get(name, name)
    kind = pa.large_string() if column.dtype == "string" else column.arrow_type
    found = _lookup(table, source)
    if found is None:
        if name in definition.sources:
            found = find_column(table, source)  # an error: a column that is named must be there
        return pa.chunked_array([pa.nulls(table.num_rows, kind)])
    factor = _factor(definition.units.get(name, units.get(source, "")), column.unit, source)
    if factor != 1.0:
        found = pc.multiply(_cast(found, pa.float64(), source), factor)
    return _cast(found, kind, source)


def _factor(unit: str, wanted: str, name: str) -> float:
    """Return what turns one unit into another; 1 where one of them is not stated."""
    if not unit or not wanted or unit == wanted:
        return 1.0
    import astropy.units as u

    try:
        a, b = (u.Unit(text) for text in (unit, wanted))
    except ValueError as error:
        raise ConfigError(f"column {name}: a unit is not known: {error}") from error
    if a.physical_type == b.physical_type and "mag" in (a.to_string(), b.to_string()):
        return 1.0
    try:
        return float(a.to(b))
    except (u.UnitConversionError, u.UnitTypeError) as error:
        raise ConfigError(
            f"column {name} of the rows is in {unit}; the definition says {wanted}"
        ) from error


def _positions(
    table: pa.Table, units: Mapping[str, str], definition: Definition
) -> tuple[Floats, Floats]:
    """Return positions in ICRS. [deg]"""
    at = definition.positions
    columns = [find_column(table, name) for name in (at.ra, at.dec)]
    if at.unit == "hms":
        ra, dec = _from_text(columns, at)
    else:
        for name in (at.ra, at.dec):
            stated = units.get(name, at.unit)
            if stated != at.unit:
                raise ConfigError(
                    f"column {name} of the rows is in {stated}; positions.unit of the definition "
                    f"says {at.unit}",
                    column=name,
                )
        ra, dec = (_numbers(c, n) for c, n in zip(columns, (at.ra, at.dec), strict=True))
        _check_unit(ra, dec, at, is_stated=at.ra in units and at.dec in units)
        if at.unit == "rad":
            ra, dec = np.degrees(ra), np.degrees(dec)
    if at.frame != "icrs":
        ra, dec = _to_icrs(ra, dec, at.frame)
    return ra, dec


def _check_unit(ra: Floats, dec: Floats, at: PositionColumns, *, is_stated: bool) -> None:
    """Refuse radians for degrees and the reverse; what the file states itself is taken."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # all NaN: said later
        extent = float(np.nanmax(np.abs(ra), initial=0.0)), float(np.nanmax(np.abs(dec), initial=0))
    in_radians = extent[0] <= 2.0 * np.pi + 1e-9 and extent[1] <= np.pi / 2.0 + 1e-9
    if at.unit == "rad" and not in_radians:
        raise ConfigError(
            f"positions.unit is rad, but positions go to {extent[0]:g} and {extent[1]:g}: these "
            "are degrees"
        )
    # Of the sky 1 part in 2000 is there in degrees, and all of it in radians.
    is_told = is_stated or at.known is not None or ra.size < _ENOUGH_FOR_RADIANS
    if at.unit == "deg" and in_radians and not is_told:
        raise ConfigError(
            "all positions are within 6.28 and 1.57: these look like radians. Set "
            'positions.unit = "rad"; if they are degrees, give an entry whose place is known '
            "as [positions.known]"
        )


def _from_text(columns: list[pa.ChunkedArray], at: PositionColumns) -> tuple[Floats, Floats]:
    import astropy.units as u
    from astropy.coordinates import Angle

    texts = [[text or "nan" for text in c.cast(pa.string()).to_pylist()] for c in columns]
    missing = np.array(["nan" in pair for pair in zip(*texts, strict=True)], dtype=bool)
    ra, dec = (np.full(len(texts[0]), np.nan) for _ in range(2))
    kept = np.flatnonzero(~missing)
    try:
        for values, text, unit in ((ra, texts[0], u.hourangle), (dec, texts[1], u.deg)):
            if kept.size:
                values[kept] = Angle([text[k] for k in kept.tolist()], unit=unit).deg
    except ValueError as error:
        raise ConfigError(f"columns {at.ra}, {at.dec}: not sexagesimal: {error}") from error
    return ra, dec


def _to_icrs(ra: Floats, dec: Floats, frame: str) -> tuple[Floats, Floats]:
    import astropy.units as u
    from astropy.coordinates import SkyCoord

    possible = np.isfinite(ra) & (np.abs(dec) <= 90.0)
    there = SkyCoord(ra[possible] * u.deg, dec[possible] * u.deg, frame=frame).icrs
    out_ra, out_dec = (np.full(ra.shape, np.nan) for _ in range(2))
    out_ra[possible], out_dec[possible] = there.ra.deg, there.dec.deg
    return out_ra, out_dec

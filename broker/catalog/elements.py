"""Files of orbital elements, as the Minor Planet Center, JPL and others give them out."""

import numpy as np
import pyarrow as pa

from broker.catalog.definition import ABSOLUTE_MAG, ELEMENTS, EPOCH, SLOPE, Definition, OrbitColumns
from broker.catalog.healpix import Floats
from broker.catalog.orbits import GAUSS_K
from broker.catalog.source import attached_columns, columns_of, find_column, has_column
from broker.errors import ConfigError
from broker.units import MJD_OF_JD


def read_elements(table: pa.Table, units: dict[str, str], definition: Definition) -> pa.Table:
    """Return the elements of a file as they are installed.

    Parameters
    ----------
    table : pa.Table
        The file's columns.
    units : dict
        The units that it states, of attached columns.
    definition : Definition
        Of kind `orbits`: where what is in it.

    Returns
    -------
    pa.Table
        `id` as text, `definition.ORBIT_COLUMNS`, and the attached columns.

    Raises
    ------
    ConfigError
        If a column is missing or is no number, or a row is no orbit.
    """
    at = definition.orbits
    ids = find_column(table, at.id).cast(pa.large_string())
    e, inclination, node, argument, epoch = columns_of(
        table, [at.eccentricity, at.inclination, at.node, at.argument, at.epoch]
    )
    shift = MJD_OF_JD if at.time == "jd" else 0.0
    epoch = epoch - shift
    perihelion = _perihelion(table, at, e)
    time = _perihelion_time(table, at, e, perihelion, epoch, shift)
    values = dict(zip(ELEMENTS, (perihelion, e, inclination, node, argument, time), strict=True))
    _check(values | {EPOCH: epoch}, ids, definition.name)
    values |= {EPOCH: epoch}
    values |= {ABSOLUTE_MAG: _or_nan(table, at.absolute_mag), SLOPE: _or_nan(table, at.slope)}
    return pa.table({"id": ids, **values, **attached_columns(table, units, definition)})


def _perihelion(table: pa.Table, at: OrbitColumns, e: Floats) -> Floats:
    """Return the perihelion distance. [au]"""
    if has_column(table, at.perihelion) or not has_column(table, at.semi_major):
        return columns_of(table, [at.perihelion])[0]
    (a,) = columns_of(table, [at.semi_major])
    return np.where(e < 1.0, a * (1.0 - e), np.nan)


def _perihelion_time(
    table: pa.Table, at: OrbitColumns, e: Floats, q: Floats, epoch: Floats, shift: float
) -> Floats:
    """Return when bodies are at the perihelion (TDB). [d]"""
    if has_column(table, at.perihelion_time) or not has_column(table, at.mean_anomaly):
        return columns_of(table, [at.perihelion_time])[0] - shift
    (anomaly,) = columns_of(table, [at.mean_anomaly])
    with np.errstate(divide="ignore", invalid="ignore"):
        daily = np.degrees(GAUSS_K) * np.abs((1.0 - e) / q) ** 1.5
        around = np.where(e < 1.0, (anomaly + 180.0) % 360.0 - 180.0, anomaly)
        return epoch - around / daily


def _or_nan(table: pa.Table, name: str) -> Floats:
    if not has_column(table, name):
        return np.full(table.num_rows, np.nan)
    return columns_of(table, [name])[0]


def _check(values: dict[str, Floats], ids: pa.ChunkedArray, name: str) -> None:
    """Raise ConfigError for rows that are no orbit."""
    perihelion, e, inclination = (values[column] for column in ELEMENTS[:3])
    bad = ~np.logical_and.reduce([np.isfinite(column) for column in values.values()])
    bad |= ~((perihelion > 0.0) & (e >= 0.0) & (inclination >= 0.0) & (inclination <= 180.0))
    jd = values[EPOCH] > 1e6
    if jd.any():
        raise ConfigError(
            f"{name}: the epoch of {ids[int(np.argmax(jd))]} is {values[EPOCH].max():.1f}, which "
            'is a Julian date: set orbits.time = "jd"',
            catalog=name,
        )
    if bad.any():
        row = int(np.argmax(bad))
        said = ", ".join(f"{column} {value[row]:g}" for column, value in values.items())
        raise ConfigError(
            f"{int(bad.sum())} entries of {name} are no orbits; the first is {ids[row]}: {said}",
            catalog=name,
        )

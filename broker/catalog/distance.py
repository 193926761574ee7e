"""Distances of catalogue entries: a column as it is, or a redshift as a comoving distance."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike

from broker.catalog.healpix import Floats
from broker.catalog.partition import Rows
from broker.errors import ConfigError

LARGEST_REDSHIFT = 1000.0

_NODES = 2049


@dataclass(frozen=True)
class Distance:
    """Which attached column is a distance, and how.

    Parameters
    ----------
    column : str
        Of numbers; an entry where it is null, negative or infinite has no distance.
    comoving : bool
        The column is a redshift, and lengths are comoving ones in Mpc: those of the cosmology of
        Planck 2018 (`astropy.cosmology.Planck18`), which is flat, so Euclid's distances are right.
        Otherwise lengths are in the unit of the column, whatever it is.
    """

    column: str
    comoving: bool = False

    @property
    def label(self) -> str:
        """A name for files."""
        return f"{self.column}-comoving" if self.comoving else self.column

    def values(self, rows: Rows, first: int = 0, end: int | None = None) -> Floats:
        """Return the column of some rows; NaN where an entry has no distance.

        Raises
        ------
        ConfigError
            If there is no such column of numbers.
        """
        if self.column not in rows.entries.column_names:
            raise ConfigError(f"{rows.name} has no column {self.column}")
        end = len(rows) if end is None else end
        column = rows.table.column(self.column).slice(first, end - first)
        if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
            raise ConfigError(f"{self.column} of {rows.name} is {column.type}, not a number")
        value = pc.fill_null(column.cast(pa.float64()), np.nan).to_numpy()
        most = LARGEST_REDSHIFT if self.comoving else np.finfo(np.float64).max
        return np.where((value >= 0.0) & (value <= most), value, np.nan)

    def lengths(self, values: ArrayLike) -> Floats:
        """Return lengths of values of the column; [Mpc] if comoving, else as they are."""
        value = np.asarray(values, dtype=np.float64)
        return comoving_mpc(value) if self.comoving else value


def comoving_mpc(redshift: ArrayLike) -> Floats:
    """Return the comoving distance at redshifts from 0 to `LARGEST_REDSHIFT`. [Mpc]

    A spline through astropy's values, to parts in 1e9: each of those is an integral.
    """
    redshift = np.asarray(redshift, dtype=np.float64)
    return np.asarray(_spline()(np.log1p(redshift)), dtype=np.float64)


@cache
def _spline() -> Callable[[Floats], Floats]:
    from astropy.cosmology import Planck18
    from scipy.interpolate import CubicSpline

    node = np.linspace(0.0, np.log1p(LARGEST_REDSHIFT), _NODES)
    value = Planck18.comoving_distance(np.expm1(node)).value
    value[0] = 0.0
    spline: Callable[[Floats], Floats] = CubicSpline(
        node, value, bc_type=((1, Planck18.hubble_distance.value), "not-a-knot")
    )
    return spline


def vectors(ra: ArrayLike, dec: ArrayLike, length: ArrayLike) -> Floats:
    """Return places in space, x to RA 0 and z to the north.

    Parameters
    ----------
    ra, dec : array_like, shape (n,)
        Directions. [deg]
    length : array_like, shape (n,)
        Distances, in any unit.

    Returns
    -------
    NDArray[np.float64], shape (n, 3)
        In that unit.
    """
    a, d = np.radians(np.asarray(ra, np.float64)), np.radians(np.asarray(dec, np.float64))
    unit = np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=-1)
    return np.asarray(unit * np.asarray(length, np.float64)[..., None])

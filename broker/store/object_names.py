"""All names of an object: detectors that overlap each gave it one in the visit it began in."""

from broker.detection.associate import merged_objects
from broker.store.objects import AssociationStore
from broker.store.table import Tables
from broker.types import Run
from broker.units import ARCSEC_PER_DEG

_AROUND_DEG = 3.0 / ARCSEC_PER_DEG
"""An object and its aliases lie within twice the radius of association, 1 arcsec."""


def names_of(tables: Tables, run: Run, name: int, ra: float, dec: float) -> list[int]:
    """Return all names of an object of our own images, the one that it is known by first.

    Parameters
    ----------
    tables, run : Tables, Run
        Where its diaSources are.
    name : int
        Any of its names.
    ra, dec : float
        Where one of its diaSources is. [deg]

    Raises
    ------
    ServiceError
        If a store does not answer.
    """
    known = AssociationStore(tables, run).around(ra, dec, _AROUND_DEG)
    if known.num_rows == 0:
        return [name]
    said = dict(zip(known["diaObjectId"].to_pylist(), merged_objects(known).tolist(), strict=True))
    chief = said.get(name, name)
    return [chief, *sorted(one for one, of in said.items() if of == chief and one != chief)]

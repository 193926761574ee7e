"""Forced photometry in the stream: a flux at every known diaObject, in every visit, found or not.

Which objects an image knows is settled when association comes to it, in the order of time, and
not before. So what is measured follows from the image and the objects as of its visit alone: the
places are those at which association saw them. Each flux is recorded once; a repeat, or a late
visit that moves an object's place, changes none that is there.
"""

from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from broker.detection.associate import object_places
from broker.imaging.kernels import F64
from broker.store.forced import (
    FORCED_SOURCES,
    ForcedStore,
    dia_forced_source_ids,
    pixels_of_new_objects,
)
from broker.store.objects import OBJECT_PIXEL
from broker.streaming.image_steps import Footprint
from broker.types import Coordinate


class Measured(Protocol):
    """Difference images to measure on; `DifferenceFiles` is one."""

    def measure(self, coordinate: Coordinate, ra: F64, dec: F64) -> tuple[F64, F64]:
        """Return fluxes and errors at places, NaN where they cannot be had. [nJy]"""
        ...

    def drop(self, coordinate: Coordinate) -> None:
        """Let a difference go."""
        ...


class ForcedPhotometry:
    """Measures, keeps and tells forced fluxes.

    Parameters
    ----------
    store : ForcedStore
        Where they are kept.
    differences : Measured
        What they are measured on.
    """

    def __init__(self, store: ForcedStore, differences: Measured) -> None:
        self._store, self._differences = store, differences

    def record(
        self, coordinate: Coordinate, footprint: Footprint, sources: pa.Table, known: pa.Table
    ) -> None:
        """Measure and keep the fluxes at all objects of one image.

        Those are the objects that other visits have seen, and those that begin in this image;
        what only another detector of the same visit has seen is not known here, whichever of the
        two comes first.

        Parameters
        ----------
        coordinate : Coordinate
            Of its message.
        footprint : Footprint
        sources : pa.Table
            Its diaSources with `diaObjectId`.
        known : pa.Table
            The diaSources around it that it may know of.
        """
        objects, ra, dec, pixels = _places(footprint, sources, known)
        flux, flux_err = self._differences.measure(coordinate, ra, dec)
        good = np.flatnonzero(np.isfinite(flux) & (flux_err > 0.0) & np.isfinite(flux_err))
        names = objects[good].tolist()
        columns = {
            "diaForcedSourceId": dia_forced_source_ids(names, *footprint.place),
            "diaObjectId": names,
            "visit": [footprint.visit] * good.size,
            "detector": [footprint.detector] * good.size,
            "midpointMjdTai": [footprint.midpoint_mjd_tai] * good.size,
            "ra": ra[good],
            "dec": dec[good],
            "psfFlux": flux[good].astype(np.float32),
            "psfFluxErr": flux_err[good].astype(np.float32),
            "band": [footprint.band] * good.size,
        }
        self._store.record(pa.table(columns, schema=FORCED_SOURCES), pixels[good])

    def history(self, footprint: Footprint, sources: pa.Table, *, days: float) -> pa.Table:
        """Return the forced fluxes of an image's objects in visits strictly before it.

        Images of the batch that are still to come are later, so what a first attempt recorded of
        them is not told.

        Parameters
        ----------
        footprint : Footprint
        sources : pa.Table
            Its diaSources with `diaObjectId` and `objectPixel`.
        days : float
            How far back. [d]
        """
        there = sources.filter(pc.is_valid(sources[OBJECT_PIXEL]))
        names = (there[name].to_pylist() for name in ("diaObjectId", OBJECT_PIXEL))
        time = footprint.midpoint_mjd_tai
        found = self._store.of_objects(
            sorted(set(zip(*names, strict=True))), start=time - days, end=time
        )
        return found.filter(pc.not_equal(found["visit"], footprint.visit))

    def drop(self, coordinate: Coordinate) -> None:
        """Let go what was measured on: the image's fluxes are recorded."""
        self._differences.drop(coordinate)


def _places(
    footprint: Footprint, sources: pa.Table, known: pa.Table
) -> tuple[NDArray[np.int64], F64, F64, NDArray[np.int64]]:
    """Return the objects of an image: identifiers, positions, pixels they are kept under."""
    new = sources.filter(pc.equal(sources["diaSourceId"], sources["diaObjectId"]))
    objects = new["diaObjectId"].to_numpy()
    ra, dec = new["ra"].to_numpy(), new["dec"].to_numpy()
    pixels = pixels_of_new_objects(ra, dec)
    if known.num_rows == 0:
        return objects, ra, dec, pixels
    names = (known[name].to_pylist() for name in ("diaObjectId", OBJECT_PIXEL))
    pixel_of = dict(zip(*names, strict=True))
    others, *at = object_places(known, footprint.midpoint_mjd_tai, footprint.visit)
    chosen = ~np.isin(others, objects)
    kept = np.array([pixel_of[name] for name in others[chosen].tolist()], np.int64)
    return (
        np.concatenate([objects, others[chosen]]),
        np.concatenate([ra, at[0][chosen]]),
        np.concatenate([dec, at[1][chosen]]),
        np.concatenate([pixels, kept]),
    )

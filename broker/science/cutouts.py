"""The cutouts of a batch of alerts, decoded once for all modules."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from broker.errors import AlertError

Pixels = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Cutouts:
    """One kind of cutout of a batch of alerts, grouped by size: surveys differ in it.

    Parameters
    ----------
    groups : tuple of (alert, pixels)
        For each size: indices of the alerts, shape (n,), and their images, shape (n, ny, nx),
        float32, NaN where there is no pixel.
    n_alerts : int
        Number of alerts; those in no group have no cutout, or one that cannot be read.
    """

    groups: tuple[tuple[NDArray[np.int64], Pixels], ...]
    n_alerts: int

    @classmethod
    def from_arrow(cls, column: pa.Array | pa.ChunkedArray) -> "Cutouts":
        """Decode a canonical cutout column; what cannot be read counts as absent."""
        from broker.imaging.cutout import decode_cutout

        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        images: dict[int, Pixels] = {}
        for index, value in enumerate(column):
            if value.is_valid:
                try:
                    images[index] = decode_cutout(value.as_py())
                except AlertError:
                    continue
        return cls.from_images(images, len(column))

    @classmethod
    def from_images(cls, images: dict[int, Pixels], n_alerts: int) -> "Cutouts":
        """Return the cutouts of some alerts, by their index in the batch."""
        sizes: dict[tuple[int, ...], list[int]] = {}
        for index, image in images.items():
            sizes.setdefault(image.shape, []).append(index)
        groups = []
        for shape, members in sorted(sizes.items()):
            pixels = np.empty((len(members), *shape), dtype=np.float32)
            for row, index in enumerate(members):
                pixels[row] = images[index]
            pixels.flags.writeable = False
            groups.append((np.array(members, dtype=np.int64), pixels))
        return cls(tuple(groups), n_alerts)

    def measure(
        self, function: Callable[[Pixels], NDArray[Any]], n_values: int
    ) -> NDArray[np.float64]:
        """Apply a function to all images of one size at a time.

        Parameters
        ----------
        function : callable
            Takes images of shape (n, ny, nx), returns values of shape (n, n_values). What it
            returns for an image must not depend on the others.
        n_values : int
            Number of values an image.

        Returns
        -------
        NDArray[np.float64], shape (n_alerts, n_values)
            NaN for alerts without a cutout.
        """
        result = np.full((self.n_alerts, n_values), np.nan)
        for alert, pixels in self.groups:
            result[alert] = function(pixels)
        return result

    def to_series(self) -> pd.Series:
        """Return one image of shape (ny, nx) an alert, None where there is none."""
        result = np.full(self.n_alerts, None, dtype=object)
        for alert, pixels in self.groups:
            for row, index in enumerate(alert):
                result[index] = pixels[row]
        return pd.Series(result)

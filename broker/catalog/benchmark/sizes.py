"""How large the benchmark's catalogues are."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sizes:
    """Sizes, and where files go.

    Parameters
    ----------
    rows : int
        Of the catalogue that the stream asks, of both sides of a join, and of the clusters.
    points : int
        Among which the nearest are looked for, and the largest of the growth.
    layout_rows : int
        Of the largest catalogue, most of whose tiles are holes.
    orbits : int
        Bodies.
    alerts : int
        Positions that are matched.
    out : Path or None
        Folder of the plot.
    """

    rows: int = 10_000_000
    points: int = 100_000_000
    layout_rows: int = 1_000_000_000
    orbits: int = 1_000_000
    alerts: int = 200_000
    out: Path | None = None

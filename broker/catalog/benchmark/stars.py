"""Synthetic stars, evenly over the sky, and positions to look for."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from broker.catalog.coverage import all_sky
from broker.catalog.distance import vectors
from broker.catalog.install import install_catalog
from broker.catalog.registry import Catalogs

NAME, RADIUS_ARCSEC = "gaia", 1.5
BATCH = 500
"""Alerts that a worker of the stream gets at a time."""


def even_sky(rng: np.random.Generator, n: int) -> tuple[Any, Any]:
    """Return positions that are evenly distributed over the sphere. [deg]"""
    return rng.uniform(0.0, 360.0, n), np.degrees(np.arcsin(rng.uniform(-1.0, 1.0, n)))


def places_near(rng: np.random.Generator, ra: Any, dec: Any, n: int) -> tuple[Any, Any]:
    """Return positions, every second one 0.3 arcsec from a star, the others anywhere. [deg]"""
    look_ra, look_dec = even_sky(rng, n)
    row = rng.integers(ra.size, size=(n + 1) // 2)
    look_ra[::2] = ra[row]
    look_dec[::2] = np.clip(dec[row] + rng.normal(0.0, 0.3, row.size) / 3600.0, -90.0, 90.0)
    return look_ra, look_dec


def star_table(rng: np.random.Generator, ra: Any, dec: Any) -> pa.Table:
    """Return rows as they are added to the catalogue `gaia`."""
    n = ra.size
    motion = rng.exponential(5.0, n).astype(np.float32)
    values = {"gMag": rng.uniform(10.0, 21.0, n).astype(np.float32), "properMotion": motion}
    ids = pa.array(np.arange(n)).cast(pa.large_string())
    return pa.table({"id": ids, "ra": ra, "dec": dec, **values})


def install_stars(path: Path, n_rows: int, seed: int, name: str = NAME) -> tuple[Any, Any, float]:
    """Add a catalogue; return its positions [deg] and the processor time of adding it [s]."""
    rng = np.random.default_rng(seed)
    ra, dec = even_sky(rng, n_rows)
    table = star_table(rng, ra, dec)
    began = time.process_time()
    install_catalog(path, name, table, "bench", coverage=all_sky())
    return ra, dec, time.process_time() - began


def match_rate(
    catalogs: Catalogs, look: tuple[Any, Any], size: int
) -> tuple[float, list[pa.Table]]:
    """Match in batches of a size; return positions per second of processor time, and matches."""
    began = time.process_time()
    got = [
        catalogs.match(look[0][k : k + size], look[1][k : k + size])
        for k in range(0, look[0].size, size)
    ]
    return look[0].size / (time.process_time() - began), got


def tree_of(ra: Any, dec: Any) -> tuple[Any, float]:
    """Return SciPy's tree of positions [deg], and the processor time of making it. [s]"""
    from scipy.spatial import cKDTree

    began = time.process_time()
    tree = cKDTree(vectors(ra, dec, np.ones(len(ra))))
    return tree, time.process_time() - began


def tree_rate(tree: Any, look: tuple[Any, Any], size: int) -> float:
    """Return positions per second of processor time of the tree's nearest within the radius."""
    chord = 2.0 * np.sin(np.radians(RADIUS_ARCSEC / 3600.0) / 2.0)
    began = time.process_time()
    for k in range(0, look[0].size, size):
        some = slice(k, k + size)
        places = vectors(look[0][some], look[1][some], np.ones(len(look[0][some])))
        tree.query(places, distance_upper_bound=chord)
    return float(look[0].size / (time.process_time() - began))

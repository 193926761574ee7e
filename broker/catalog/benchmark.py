"""How fast catalogues are, beside astropy on the same positions in the same run."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from broker.catalog.coverage import all_sky
from broker.catalog.install import install_catalog
from broker.catalog.neighbours import nearest_to
from broker.catalog.registry import Catalogs

_NAME, _RADIUS_ARCSEC = "gaia", 1.5
_BATCH, _K = 500, 1000


def bench_catalog(
    n_rows: int,
    *,
    n_alerts: int = 200_000,
    seed: int = 1,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, float]:
    """Measure import, match and search of a synthetic catalogue of stars.

    Half of the positions are within the radius of a star, half are anywhere.

    Parameters
    ----------
    n_rows : int
        Size of the catalogue.
    n_alerts : int
        How many positions.
    seed : int
        Of the positions.
    say : callable
        Told what is being done.

    Returns
    -------
    dict of str to float
        `importPerS` [rows/s]; `matchPerS` in batches of 500 and `matchLargePerS` in one batch
        [alerts/s], on one core; `astropyPerS`, of `match_coordinates_sky` with its tree built
        before; `ratio` of the first match to astropy; `agrees`, the share of positions for which
        astropy finds the same; `nearestS`, time for the 1000 nearest of a place. [s]
    """
    rng = np.random.default_rng(seed)
    ra, dec = _even_sky(rng, n_rows)
    look = _look(rng, ra, dec, n_alerts)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        say(f"importing {n_rows} rows")
        table = _table(rng, ra, dec)
        began = time.process_time()
        install_catalog(path, _NAME, table, "bench", coverage=all_sky())
        found = {"rows": float(n_rows), "importPerS": n_rows / (time.process_time() - began)}
        del table
        catalogs = Catalogs(path)
        catalogs.match(look[0][:_BATCH], look[1][:_BATCH])  # compiles
        say(f"matching {n_alerts} positions")
        found["matchPerS"], _ = _match_rate(catalogs, look, _BATCH)
        found["matchLargePerS"], matches = _match_rate(catalogs, look, n_alerts)
        rows = catalogs.rows(_NAME)
        assert rows is not None  # noqa: S101 - it was just added
        began = time.perf_counter()
        nearest_to(rows, 10.0, 20.0, min(_K, n_rows))
        found["nearestS"] = time.perf_counter() - began
    say("asking astropy")
    per_s, index, near = _astropy(ra, dec, look)
    found |= {"astropyPerS": per_s, "ratio": found["matchPerS"] / per_s}
    same = np.where(near, index, -1) == _numbers(matches[0])
    return found | {"agrees": float(same.mean())}


def _even_sky(rng: np.random.Generator, n: int) -> tuple[Any, Any]:
    return rng.uniform(0.0, 360.0, n), np.degrees(np.arcsin(rng.uniform(-1.0, 1.0, n)))


def _look(rng: np.random.Generator, ra: Any, dec: Any, n: int) -> tuple[Any, Any]:
    look_ra, look_dec = _even_sky(rng, n)
    row = rng.integers(ra.size, size=(n + 1) // 2)
    look_ra[::2] = ra[row]
    look_dec[::2] = np.clip(dec[row] + rng.normal(0.0, 0.3, row.size) / 3600.0, -90.0, 90.0)
    return look_ra, look_dec


def _table(rng: np.random.Generator, ra: Any, dec: Any) -> pa.Table:
    n = ra.size
    motion = rng.exponential(5.0, n).astype(np.float32)
    values = {"gMag": rng.uniform(10.0, 21.0, n).astype(np.float32), "properMotion": motion}
    ids = pa.array(np.arange(n)).cast(pa.large_string())
    return pa.table({"id": ids, "ra": ra, "dec": dec, **values})


def _match_rate(
    catalogs: Catalogs, look: tuple[Any, Any], size: int
) -> tuple[float, list[pa.Table]]:
    began = time.process_time()
    got = [
        catalogs.match(look[0][k : k + size], look[1][k : k + size])
        for k in range(0, look[0].size, size)
    ]
    return look[0].size / (time.process_time() - began), got


def _numbers(match: pa.Table) -> Any:
    return match.column(f"{_NAME}Id").cast(pa.int64()).fill_null(-1).to_numpy()


def _astropy(ra: Any, dec: Any, look: tuple[Any, Any]) -> tuple[float, Any, Any]:
    import astropy.units as u
    from astropy.coordinates import SkyCoord

    stars, alerts = (SkyCoord(*place, unit=u.deg) for place in ((ra, dec), look))
    alerts[:1].match_to_catalog_sky(stars)  # builds the tree, which astropy keeps
    began = time.process_time()
    index, away, _ = alerts.match_to_catalog_sky(stars)
    per_s = look[0].size / (time.process_time() - began)
    return per_s, index, away.arcsec <= _RADIUS_ARCSEC

"""Alerts on bodies of a catalogue of orbits, and values of a map at alerts."""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from broker.bench_rows import Row, at_least
from broker.catalog.benchmark.sizes import Sizes
from broker.catalog.benchmark.stars import BATCH, even_sky, match_rate
from broker.catalog.install import install_catalog
from broker.catalog.orbits import ephemeris
from broker.catalog.registry import Catalogs

_EPOCH, _WHEN, _NSIDE = 61_000.0, 61_003.3, 512
_ORBITS = 'kind = "orbits"\ndoc = "Bodies."\nradius_arcsec = 2.0\nversion = "1"\n'
_MAP = """
kind = "map"
doc = "Dust."
radius_arcsec = 1.0
version = "1"
[[columns]]
name = "reddening"
dtype = "float32"
unit = "mag"
doc = "E(B-V)."
source = "EBV"
"""


def rows(sizes: Sizes) -> list[Row]:
    """Return the rows of this step."""
    with tempfile.TemporaryDirectory() as folder:
        return [*_orbit_rows(Path(folder), sizes), *_map_rows(Path(folder), sizes)]


def _orbit_rows(path: Path, sizes: Sizes) -> list[Row]:
    rng = np.random.default_rng(6)
    catalogs = _installed(path / "orbits", "belt", _ORBITS, _belt(rng, sizes.orbits))
    moving = catalogs.moving("belt")
    n = min(sizes.alerts, 20_000)
    body = rng.integers(len(moving), size=n)
    seen = ephemeris(moving.elements.take(body), np.full(n, _WHEN), site=moving.site)
    # A night's alerts: half are bodies of the catalogue, half are anywhere in their field.
    ra, dec = seen.ra.copy(), seen.dec.copy()
    dec[1::2] = np.clip(dec[1::2] + rng.uniform(0.01, 0.05, dec[1::2].size), -90.0, 90.0)
    when = np.full(n, _WHEN)
    began = time.process_time()
    catalogs.match(ra[:1], dec[:1], when[:1])
    night_s = time.process_time() - began
    began = time.process_time()
    got = [
        catalogs.match(ra[k : k + BATCH], dec[k : k + BATCH], when[k : k + BATCH])
        for k in range(0, n, BATCH)
    ]
    per_s = n / (time.process_time() - began)
    match = pa.concat_tables(got).column("beltMatch").to_numpy()
    what = f"{sizes.orbits:.0e} bodies"
    return [
        Row(f"{what}: to prepare a night, s of processor", night_s, anchor="once a worker"),
        Row(f"{what}: match in batches of {BATCH}, alerts/s/core", per_s),
        at_least(f"{what}: found of those that are one, share", float(match[::2].mean()), 1.0),
    ]


def _belt(rng: np.random.Generator, n: int) -> pa.Table:
    a = rng.uniform(1.8, 3.5, n)
    return pa.table(
        {
            "id": np.char.add("b", np.arange(n).astype(str)),
            "a": a,
            "e": np.minimum(rng.rayleigh(0.12, n), 0.6),
            "i": np.minimum(rng.rayleigh(8.0, n), 170.0),
            "om": rng.uniform(0.0, 360.0, n),
            "w": rng.uniform(0.0, 360.0, n),
            "ma": rng.uniform(0.0, 360.0, n),
            "epoch": np.full(n, _EPOCH),
            "H": rng.uniform(12.0, 20.0, n),
        }
    )


def _map_rows(path: Path, sizes: Sizes) -> list[Row]:
    from astropy.io import fits
    from astropy_healpix import HEALPix  # type: ignore[import-untyped]

    rng = np.random.default_rng(7)
    values = rng.uniform(0.0, 3.0, 12 * _NSIDE**2)
    hdu = fits.BinTableHDU.from_columns([fits.Column("EBV", "D", array=values)])
    hdu.header.update({"ORDERING": "NESTED", "NSIDE": _NSIDE, "COORDSYS": "C"})
    hdu.writeto(path / "dust.fits")
    catalogs = _installed(path / "maps", "dust", _MAP, path / "dust.fits")
    look = even_sky(rng, sizes.alerts)
    catalogs.match(look[0][:BATCH], look[1][:BATCH])
    per_s, got = match_rate(catalogs, look, BATCH)
    grid = HEALPix(nside=_NSIDE, order="nested")
    found = pa.concat_tables(got).column("dustReddening").to_numpy()
    began = time.process_time()
    theirs = values[_pixels(grid, look)]
    their_per_s = look[0].size / (time.process_time() - began)
    same = float((found == theirs.astype(np.float32)).mean())
    return [
        Row(
            f"map of {values.size:.1e} pixels, in batches of {BATCH}, alerts/s/core",
            per_s,
            anchor=f"astropy-healpix, the pixel alone, all in one call: {their_per_s:.0f}",
        ),
        at_least("same value as by astropy-healpix, share", same, 0.99999),
    ]


def _pixels(grid: Any, look: tuple[Any, Any]) -> Any:
    import astropy.units as u

    return grid.lonlat_to_healpix(look[0] * u.deg, look[1] * u.deg)


def _installed(path: Path, name: str, text: str, what: Any) -> Catalogs:
    path.mkdir()
    definition = path.with_name(f"{name}.toml")
    definition.write_text(text, encoding="utf-8")
    install_catalog(path, name, what, definition=definition)
    return Catalogs(path)

"""What notices cost an alert, beside astropy."""

import time
from typing import Any

import numpy as np

from broker.bench_rows import Row, at_least
from broker.catalog.benchmark.sizes import Sizes
from broker.catalog.benchmark.stars import BATCH, even_sky
from broker.catalog.healpix import FINEST_ORDER, centres
from broker.notices.match import Known, Window, best_matches
from broker.notices.notice import INITIAL, Notice
from broker.notices.place import Ellipse, ProbabilityMap
from broker.units import separation_arcsec

_ELLIPSES, _MAPS, _MAP_ORDER = 26, 4, 7
_TRIGGER, _MOST_ALERTS = 61_000.0, 20_000
_EQUAL = 1e-5  # levels of maps are kept in 32 bits


def rows(sizes: Sizes) -> list[Row]:
    """Return the rows of this step: alerts in the time of 30 notices, 4 of them maps."""
    rng = np.random.default_rng(10)
    notices = _notices(rng)
    known = [Known(one) for one in notices]
    n = min(sizes.alerts, _MOST_ALERTS)
    ra, dec = even_sky(rng, n)
    mjd = _TRIGGER + rng.uniform(0.0, 1.0, n)
    window = Window()
    best_matches(known, ra[:BATCH], dec[:BATCH], mjd[:BATCH], window)
    times = []
    for _ in range(3):
        began = time.process_time()
        parts = [
            best_matches(known, ra[a : a + BATCH], dec[a : a + BATCH], mjd[a : a + BATCH], window)
            for a in range(0, n, BATCH)
        ]
        times.append(time.process_time() - began)
    began = time.process_time()
    best_matches([], ra, dec, mjd, window)
    without = time.process_time() - began
    theirs, expected = _astropy(notices, ra, dec)
    expected[expected > window.credible_level] = np.nan
    found = np.concatenate(
        [part.column("noticesCredibleLevel").to_numpy(zero_copy_only=False) for part in parts]
    )
    same = np.isclose(found, expected, rtol=0.0, atol=_EQUAL, equal_nan=True).mean()
    return [
        Row(
            f"join with {len(notices)} notices in force, in batches of {BATCH}, us/alert",
            1e6 * float(np.median(times)) / n,
            anchor="astropy and cdshealpix, all alerts in one call a notice: "
            f"{1e6 * theirs / n:.1f}; without notices {1e6 * without / n:.2f}",
        ),
        at_least("same credible level as of astropy, share", float(same), 0.9995),
    ]


def _notices(rng: np.random.Generator) -> list[Notice]:
    ra, dec = even_sky(rng, _ELLIPSES + _MAPS)
    places: list[Ellipse | ProbabilityMap] = []
    for k in range(_ELLIPSES):
        major = float(rng.uniform(1.0, 15.0))
        minor, angle = major * float(rng.uniform(0.2, 1.0)), float(rng.uniform(0.0, 180.0))
        places.append(Ellipse(float(ra[k]), float(dec[k]), major, minor, angle))
    for k in range(_ELLIPSES, ra.size):
        frame = "galactic" if k % 2 else "icrs"
        places.append(_blob(float(ra[k]), float(dec[k]), float(rng.uniform(3.0, 12.0)), frame))
    return [
        Notice(f"n{k:02d}", f"e{k:02d}", INITIAL, False, "bench", _TRIGGER, _TRIGGER, place)
        for k, place in enumerate(places)
    ]


def _blob(lon: float, lat: float, width: float, frame: str) -> ProbabilityMap:
    """Return a Gaussian of a width [deg], up to a credible level of 0.99."""
    pixels = np.arange(12 * 4**_MAP_ORDER, dtype=np.uint64)
    away = separation_arcsec(lon, lat, *centres(pixels, _MAP_ORDER)) / 3600.0
    likely = np.exp(-0.5 * (away / width) ** 2)
    order = np.argsort(-likely, kind="stable")
    level = np.empty(likely.size)
    level[order] = np.cumsum(likely[order]) / likely.sum()
    kept, shift = level <= 0.99, np.uint64(2 * (FINEST_ORDER - _MAP_ORDER))
    first, end = pixels[kept] << shift, (pixels[kept] + np.uint64(1)) << shift
    return ProbabilityMap(first, end, level[kept].astype(np.float32), frame)


def _astropy(notices: list[Notice], ra: Any, dec: Any) -> tuple[float, Any]:
    """Return the seconds of astropy, and each alert's smallest credible level."""
    import astropy.units as u
    from astropy.coordinates import SkyCoord
    from cdshealpix.nested import lonlat_to_healpix

    shift = 2 * (FINEST_ORDER - _MAP_ORDER)
    levels: dict[str, Any] = {}
    for one in notices:
        if isinstance(one.place, ProbabilityMap):
            levels[one.notice_id] = np.ones(12 * 4**_MAP_ORDER)
            pixels = (one.place.first >> np.uint64(shift)).astype(np.int64)
            levels[one.notice_id][pixels] = one.place.levels
    best = np.ones(ra.size)
    SkyCoord(0.0 * u.deg, 0.0 * u.deg).galactic  # noqa: B018 - loads what is measured
    began = time.process_time()
    alerts = SkyCoord(ra, dec, unit="deg")
    for one in notices:
        place = one.place
        if isinstance(place, Ellipse):
            centre = SkyCoord(place.ra, place.dec, unit="deg")
            away = centre.separation(alerts).deg
            turn = centre.position_angle(alerts).rad - np.radians(place.pa)
            along, across = away * np.cos(turn), away * np.sin(turn)
            squared = (along / place.major) ** 2 + (across / place.minor) ** 2
            level = 1.0 - (1.0 - place.containment) ** squared
        elif isinstance(place, ProbabilityMap):
            frame = alerts.galactic if place.frame == "galactic" else alerts
            lon, lat = frame.spherical.lon, frame.spherical.lat
            level = levels[one.notice_id][lonlat_to_healpix(lon, lat, _MAP_ORDER).astype(np.int64)]
        best = np.minimum(best, level)
    return time.process_time() - began, best

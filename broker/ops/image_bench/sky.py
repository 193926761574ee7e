"""The simulated sky: uniform, by its laws, the same however it is divided, whole at the borders."""

import hashlib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

import numpy as np

from broker.bench_rows import Row, at_least, at_most
from broker.catalog.healpix import pixel_side_arcsec, pixels_of
from broker.imaging.kernels import F64
from broker.simulation.cadence import field_wcs
from broker.simulation.exposure import draw_exposure
from broker.simulation.kernels import MAX_REACH_PX
from broker.simulation.observatory import simulate_night
from broker.simulation.optics import Optics
from broker.simulation.scene import scene_of
from broker.simulation.settings import DEMO, IDEAL_CAMERA, TEST, Settings
from broker.simulation.sky import PATCH_ORDER, Patch, draw_patch
from broker.units import ARCSEC_PER_DEG

_SEED = 21
_PATCHES, _BINS = 1000, 50
_LEAST_P = 0.01
_SUB_ORDER = 3
"""Orders of HEALPix below a patch: its stars are counted in 4³ parts."""
_LARGEST_LOSS = 1e-4
_FRAME = 512


def rows(side: int, repeats: int) -> list[Row]:  # noqa: ARG001  statistics, nothing is timed
    """Return probabilities of the draws, bytes that differ, and light lost at the borders."""
    patches = _patches()
    return [*_uniform(patches), *_laws(patches), _partitions(), _margins()]


def _patches() -> dict[int, Patch]:
    chosen = np.random.default_rng(_SEED).choice(12 * 4**PATCH_ORDER, _PATCHES, replace=False)
    return {int(number): draw_patch(_SEED, DEMO, int(number)) for number in chosen}


def _uniform(patches: dict[int, Patch]) -> list[Row]:
    """Return the probabilities that one star of each patch is drawn evenly from the sphere.

    Patches have equal areas and are chosen at random, so such stars are uniform on it.
    """
    from scipy.stats import kstest

    ra, dec = np.array([(p.stars.ra[0], p.stars.dec[0]) for p in patches.values()]).T
    height = (np.sin(np.radians(dec)) + 1.0) / 2.0
    return [
        at_least(
            "sky, right ascension, p of KS",
            float(kstest(ra / 360.0, "uniform").pvalue),
            _LEAST_P,
            "",
        ),
        at_least(
            "sky, sin(declination), p of KS", float(kstest(height, "uniform").pvalue), _LEAST_P, ""
        ),
    ]


def _laws(patches: dict[int, Patch]) -> list[Row]:
    """Return the probabilities of chi-squares of what is drawn, each by its own law."""
    stars = [p.stars for p in patches.values()]
    galaxies = [p.galaxies for p in patches.values()]
    shapes = {name: np.concatenate([getattr(g, name) for g in galaxies])
              for name in ("mag", "angle", "axis_ratio")}  # fmt: skip
    area = (pixel_side_arcsec(PATCH_ORDER) / ARCSEC_PER_DEG) ** 2
    even = {
        "magnitudes of stars": _by_count(np.concatenate([s.mag for s in stars]), DEMO.star_mags),
        "colours of stars": (np.concatenate([s.colour for s in stars]) - 0.1) / 1.4,
        "magnitudes of galaxies": _by_count(shapes["mag"], DEMO.galaxy_mags),
        "angles of galaxies": shapes["angle"] / np.pi,
        "axis ratios of galaxies": (np.log2(shapes["axis_ratio"]) + 1.0) / 2.0,
    }
    chances = {name: _chance(np.histogram(v, _BINS, (0.0, 1.0))[0]) for name, v in even.items()}
    chances["stars in the parts of a patch"] = _chance(_parts(patches))
    chances["numbers of stars in a patch"] = _chance(
        np.array([s.ra.size for s in stars]), DEMO.star_density * area
    )
    chances["numbers of galaxies in a patch"] = _chance(
        np.array([g.ra.size for g in galaxies]), DEMO.galaxy_density * area
    )
    return [
        at_least(f"sky, {name}, p of chi-square", p, _LEAST_P, "") for name, p in chances.items()
    ]


def _by_count(mag: F64, limits: tuple[float, float]) -> F64:
    """Return the share of objects that the counts, 10^(mag / 4), have brighter than each."""
    low, high = (10.0 ** (0.25 * m) for m in limits)
    return np.asarray((10.0 ** (0.25 * mag) - low) / (high - low))


def _parts(patches: dict[int, Patch]) -> Any:
    """Return how many stars each part of a patch has, all patches together."""
    counts = np.zeros(4**_SUB_ORDER, np.int64)
    for number, patch in patches.items():
        inside = pixels_of(patch.stars.ra, patch.stars.dec, PATCH_ORDER + _SUB_ORDER)
        part = inside.astype(np.int64) - number * counts.size
        counts += np.bincount(part, minlength=counts.size)
    return counts


def _chance(counts: Any, expected: float | None = None) -> float:
    """Return the two-sided probability of the chi-square of numbers that should be alike.

    Without an expectation it is their mean, which costs a degree of freedom.
    """
    from scipy.stats import chi2

    mean = float(np.mean(counts)) if expected is None else expected
    total = float(np.sum((counts - mean) ** 2) / mean)
    freedom = counts.size - (expected is None)
    return 2.0 * float(min(chi2.cdf(total, freedom), chi2.sf(total, freedom)))


def _partitions() -> Row:
    """Return how many exposures have other bytes where they are drawn apart from one another."""
    survey = replace(TEST, detectors=2)
    places = [(visit, d) for visit in range(2) for d in range(survey.detectors)]
    here = [_digest(survey, place) for place in places]
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        back = list(pool.map(_digest, [survey] * len(places), places[::-1]))[::-1]
    differ = sum(one != other for one, other in zip(here, back, strict=True))
    what = f"sky, exposures of {len(places)} with other bytes in other processes"
    return at_most(what, float(differ), 0.0, "")


def _digest(survey: Settings, place: tuple[int, int]) -> str:
    """Return the hash of the counts of an exposure: visit of the night, detector."""
    visit = simulate_night(seed=_SEED, settings=survey).visits[place[0]]
    counts = draw_exposure(_SEED, survey, visit, place[1]).raw.pixels
    return hashlib.sha256(counts.tobytes()).hexdigest()


def _margins() -> Row:
    """Return the largest share of an object's light in the frame that a cut at its border loses.

    Each object is drawn by itself: from the sky as a larger detector sees it, on a frame that ends
    where none of it is cut; and from what the detector itself sees, on the detector.
    """
    edge = 2 * MAX_REACH_PX
    small = replace(DEMO, camera=IDEAL_CAMERA, detectors=1, detector_px=_FRAME)
    large = replace(small, detector_px=_FRAME + 2 * edge)
    cut, whole = (_objects(settings) for settings in (small, large))
    touching, worst = 0, 0.0
    for name, light in whole.items():
        if not _near_border(light[0], edge):
            continue
        inner = _drawn(light, large)[edge : edge + _FRAME, edge : edge + _FRAME]
        there = float(np.sum(inner, dtype=np.float64))
        if there > 0.0:
            here = _drawn(cut[name], small) if name in cut else np.zeros(1)
            touching += 1
            worst = max(worst, abs(float(np.sum(here, dtype=np.float64)) / there - 1.0))
    what = f"margins, light lost of {touching} objects at the border"
    return at_most(what, worst if touching else np.inf, _LARGEST_LOSS, "1 without margins")


def _near_border(rows_: F64, edge: int) -> bool:
    """Return whether an object's light may cross the border of the frame within the larger one."""
    x, y = rows_[0] - edge, rows_[1] - edge
    depth = min(x, y, _FRAME - 1 - x, _FRAME - 1 - y)
    return bool(abs(depth) <= MAX_REACH_PX + 1)


def _objects(settings: Settings) -> dict[tuple[float, float], F64]:
    """Return the static objects by place: x, y, electrons and second moments of their parts."""
    wcs, light = field_wcs(settings, 0, 0), scene_of(_SEED, settings, 0, 0).static
    x, y = wcs.sky_to_pixel(light.ra, light.dec)
    scale2 = settings.scale_arcsec**2
    visit = simulate_night(seed=_SEED, settings=settings).visits[0]
    electrons = light.band_flux(visit.band) / visit.flux_per_electron
    table = np.column_stack(
        [x, y, electrons, light.xx / scale2, -light.xy / scale2, light.yy / scale2]
    )
    found: dict[tuple[float, float], list[F64]] = {}
    for ra, dec, row in zip(light.ra.tolist(), light.dec.tolist(), table, strict=True):
        found.setdefault((ra, dec), []).append(row)
    return {place: np.array(parts) for place, parts in found.items()}


def _drawn(parts: F64, settings: Settings) -> Any:
    frame = np.zeros((settings.detector_px, settings.detector_px), np.float32)
    x, y, electrons, *shape = parts.T
    Optics(1.5, _FRAME).draw(frame, (x, y), electrons, (shape[0], shape[1], shape[2]))
    return frame

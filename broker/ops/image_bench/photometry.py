"""Measure stars and galaxies with a PSF, a WCS and a zero point that are fitted, not known."""

from typing import Any

import numpy as np
import pyarrow as pa

from broker.bench_rows import Row, at_least, at_most
from broker.detection.direct import DirectResult, detect_sources, prepare
from broker.detection.galaxies.apertures import measure_places
from broker.detection.measure import Noise, fit_sources
from broker.detection.photocal import calibrate
from broker.detection.psf.stars import StarPsf, measure_psf
from broker.errors import AlertError
from broker.imaging.kernels import F64, Bools
from broker.imaging.wcs import Matrix, Wcs
from broker.ops.image_bench.rows import SKY
from broker.ops.image_bench.scenes import (
    UNIT,
    WIDTH,
    Scene,
    gaussian_stars,
    lattice,
    matched,
    profiles,
)
from broker.simulation.kernels import add_gaussians
from broker.units import separation_arcsec

_SNRS = (8.0, 10.0, 20.0, 50.0, 100.0, 300.0, 1000.0)
_PITCH = 40.0
_BETA = 3.5
_SHEAR = 0.05
_HALF_LIGHT = (2.5, 6.0)
_SMALL = (1.0, 3.0)
"""Half-light radii of the discs that are told from stars: half of the PSF's and more. [pixel]"""

_GALAXY_PITCH = 100.0
_GALAXY_FLUX = 40_000.0
"""S/N 50 and more. [electron]"""


def rows(side: int, repeats: int) -> list[Row]:
    """Measure point sources, their calibration, galaxies, and how they are told apart."""
    del repeats
    return [*_bound(side), *_calibrated(side), *_zero_points(), *_galaxies(side)]


def _bound(side: int) -> list[Row]:
    """Return the errors of fluxes and places over the Cramér-Rao bound of a known PSF."""
    rng = np.random.default_rng(11)
    x, y = lattice(max(side, 1024), _PITCH, rng)
    snr = rng.choice(_SNRS, x.size)
    scene = gaussian_stars(max(side, 1024), x, y, snr * UNIT, 12)
    got = detect_sources(scene.image)
    best = matched(scene, *_places(got))
    seen = best >= 0
    bound = _limits(scene)
    counts = got.sources["counts"].to_numpy()[best]
    flux = (counts - scene.flux) / bound[0]
    place = [(p[best] - t) / b
             for p, t, b in zip(_places(got), (x, y), bound[1:], strict=True)]  # fmt: skip
    place = np.hypot(*place) / np.sqrt(2.0)
    pull = (counts - scene.flux) / got.sources["countsErr"].to_numpy()[best]
    bright = seen & (snr >= 50.0)
    bias = float(np.mean(-2.5 * np.log10(counts[bright] / scene.flux[bright])))
    return [
        at_most("PSF flux error / bound, fitted PSF", _rms(flux[seen]), 1.05, "photutils 1.05"),
        at_most("centroid error / bound, fitted PSF", _rms(place[seen]), 1.05, "photutils 1.01"),
        at_most("PSF flux bias, S/N >= 50 [mag]", abs(bias), 0.003, "photutils .006"),
        at_least("pull of PSF fluxes, least", _rms(pull[seen]), 0.95, "1"),
        at_most("pull of PSF fluxes, most", _rms(pull[seen]), 1.05, "1"),
        Row("worst flux error / bound at any S/N",
            max(_rms(flux[seen & (snr == s)]) for s in _SNRS), "", "photutils 1.10", None),
    ]  # fmt: skip


def _limits(scene: Scene) -> tuple[F64, F64, F64]:
    """Return the bounds of flux, x and y: the Fisher errors at the truth, without noise."""
    side = scene.image.shape[0]
    clean = np.zeros((side, side), np.float32)
    width = np.full(scene.x.size, WIDTH)
    add_gaussians(clean, scene.x, scene.y, scene.flux, width, width, 1e-3)
    fits = fit_sources(
        clean,
        np.full(clean.shape, SKY, np.float32),
        np.rint(scene.x).astype(np.int64),
        np.rint(scene.y).astype(np.int64),
        psf_sigma=WIDTH,
        noise=Noise(1.0, SKY),
        unusable=np.zeros(clean.shape, bool),
    )
    return fits.flux_err, fits.x_err, fits.y_err


def _calibrated(side: int) -> list[Row]:
    """Return the errors of bright stars when PSF, WCS and zero point come from the image."""
    side = min(max(side, 1024), 1536)
    rng = np.random.default_rng(21)
    x, y = lattice(side, 50.0, rng)
    flux = 10 ** rng.uniform(3.6, 5.4, x.size)
    scene = profiles(
        side, x, y, flux,
        lambda g, _, u, v: g.Moffat(beta=_BETA, fwhm=4.7 * (1.0 + 0.05 * u)).shear(
            g1=_SHEAR, g2=0.05 * v
        ),
        22,
    )  # fmt: skip
    got = detect_sources(scene.image)
    true = scene.image.wcs
    ra, dec = true.pixel_to_sky(x, y)
    zero = 26.4
    mag = zero - 2.5 * np.log10(flux)
    # The catalogue has every other star, with errors of its own; the others are the test.
    known = np.arange(x.size) % 2 == 0
    off = true.shifted(1.7, -2.3)
    error = rng.normal(0.0, 0.01, x.size)
    wrong = Wcs(off.crval_ra, off.crval_dec, off.crpix_x, off.crpix_y, _turned(true.cd))
    found = calibrate(
        got.sources, wrong, scene.image.shape, ra=ra[known], dec=dec[known],
        mag=(mag + error)[known],
    )  # fmt: skip
    best = matched(scene, *_places(got))
    table = got.sources
    counts, err = (table[n].to_numpy()[best] for n in ("counts", "countsErr"))
    test = (best >= 0) & ~known & (flux > 150.0 * err)
    offset = found.zero_point - 2.5 * np.log10(counts) - mag
    sky = found.wcs.pixel_to_sky(*(p[best] for p in _places(got)))
    apart = separation_arcsec(*sky, ra, dec) / true.scale_arcsec
    limit = _rms((1.0857 * err / counts)[test])
    return [
        at_most("isolated stars, S/N > 150 [mag]", _rms(offset[test]), 0.010,
                f"photon noise {limit:.4f}"),
        at_most("astrometry of the same, an axis [px]", _rms(apart[test]) / np.sqrt(2.0), 0.02,
                "LSST 10 mas"),
    ]  # fmt: skip


def _turned(cd: Matrix) -> Matrix:
    angle = 5e-4
    turn = np.array([[1.0, -angle], [angle, 1.0]])
    (a, b), (c, d) = (turn @ np.array(cd)).tolist()
    return ((a, b), (c, d))


def _zero_points() -> list[Row]:
    """Return the zero point's error over the stated one, a tenth of the catalogue wrong."""
    wcs = Wcs(359.99, 60.0, 480.0, 520.0, ((-7e-5, 1e-6), (1.2e-6, 7e-5)))
    pulls = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        x, y = rng.uniform(20.0, 980.0, (2, 120))
        mag = rng.uniform(16.0, 21.0, 120)
        counts = 10 ** (0.4 * (26.4 - mag))
        error = np.sqrt(counts + 900.0)
        table = pa.table(
            {
                "x": x + rng.normal(0.0, 2.0 * error / counts),
                "y": y + rng.normal(0.0, 2.0 * error / counts),
                "counts": counts + rng.normal(0.0, error),
                "countsErr": error,
                "flags": np.zeros(120, np.int64),
                "sizeRatio": np.ones(120),
            }
        )
        mag = np.where(rng.random(120) < 0.1, mag + rng.uniform(-1.0, 1.0, 120), mag)
        ra, dec = wcs.pixel_to_sky(x, y)
        got = calibrate(table, wcs, (1000, 1000), ra=ra, dec=dec, mag=mag)
        pulls.append((got.zero_point - 26.4) / got.zero_point_err)
    rms = _rms(np.array(pulls))
    return [
        at_least("pull of the zero point, least", rms, 0.7, "1"),
        at_most("pull of the zero point, most", rms, 1.2, "1"),
    ]


def _galaxies(side: int) -> list[Row]:
    """Return bias and error of galaxies' fluxes, and how well stars are told from them."""
    side = min(max(side, 700), 800)
    psf = psf_of_stars(side)
    found: list[Row] = []
    for name, index, limit, anchor in (
        ("exponential", 1, 0.02, "SEP's AUTO .03"),
        ("de Vaucouleurs", 4, 0.05, "SEP's AUTO .23"),
        ("star", 0, 0.02, "-"),
    ):
        table, scene = _measured(side, index, _GALAXY_FLUX, psf, 31 + index)
        offset = -2.5 * np.log10(table["modelCounts"].to_numpy() / scene.flux)
        offset = offset[np.isfinite(offset)]
        petro = -2.5 * np.log10(table["petroCounts"].to_numpy() / scene.flux)
        found += [
            at_most(f"{name}, bias of the model flux [mag]", abs(float(np.mean(offset))), limit,
                    f"{anchor}, Petrosian {np.nanmean(petro):+.3f}"),
            at_most(f"{name}, rms of the model flux [mag]", _rms(offset), 0.05,
                    f"Petrosian {np.sqrt(np.nanmean(petro**2)):.3f}"),
        ]  # fmt: skip
    return [*found, *_separation(side, psf)]


def psf_of_stars(side: int) -> StarPsf:
    """Return the PSF that is fitted to drawn stars, an elongated Moffat profile."""
    rng = np.random.default_rng(41)
    x, y = lattice(side, 60.0, rng)
    scene = profiles(side, x, y, 10 ** rng.uniform(4.0, 5.0, x.size), _moffat, 42)
    clean, model, _ = prepare(scene.image)
    if model is None:
        raise AlertError("the stars that were drawn do not show their PSF")
    return measure_psf(clean, model)


def _moffat(galsim: Any, _k: int, _u: float, _v: float) -> Any:
    return galsim.Moffat(beta=_BETA, fwhm=4.7).shear(g1=_SHEAR, g2=0.0)


def _measured(
    side: int,
    index: int,
    flux: float,
    psf: StarPsf,
    seed: int,
    half_light: tuple[float, float] = _HALF_LIGHT,
) -> tuple[pa.Table, Scene]:
    """Return what is measured of galaxies of a Sérsic index, or of stars for 0."""
    rng = np.random.default_rng(seed)
    x, y = lattice(side, _GALAXY_PITCH, rng)
    radius = rng.uniform(*half_light, x.size)
    shear, turn = rng.uniform(0.0, 0.25, x.size), rng.uniform(0.0, np.pi, x.size)

    def shape(galsim: Any, k: int, u: float, v: float) -> Any:
        star = _moffat(galsim, k, u, v)
        if index == 0:
            return star
        kind = galsim.Exponential if index == 1 else galsim.DeVaucouleurs
        galaxy = kind(half_light_radius=radius[k]).shear(g=shear[k], beta=turn[k] * galsim.radians)
        return galsim.Convolve(galaxy, star)

    scene = profiles(side, x, y, np.full(x.size, flux), shape, seed + 1)
    clean = scene.image.with_arrays(pixels=scene.image.pixels - np.float32(SKY))
    return measure_places(clean, x, y, psf=psf), scene


def _separation(side: int, psf: StarPsf) -> list[Row]:
    """Return how many discs are kept where one star of a hundred is taken for a galaxy."""
    flux = 30.0 * UNIT
    star = _measured(side, 0, flux, psf, 51)[0]
    disc = _measured(side, 1, flux, psf, 53, _SMALL)[0]
    area = {}
    kept = {}
    for name, sign in (("extendedness", 1.0), ("starScore", -1.0)):
        one, two = (sign * np.nan_to_num(t[name].to_numpy(), nan=0.0) for t in (star, disc))
        area[name] = float(np.mean((two[:, None] > one) + 0.5 * (two[:, None] == one)))
        kept[name] = float(np.mean(two > np.quantile(one, 0.99)))
    return [
        at_least("stars against small discs, S/N 30, area under ROC", area["extendedness"], 0.95,
                 f"by width {area['starScore']:.3f}"),
        Row("discs kept with 1 % of the stars", kept["extendedness"], "",
            f"by width {kept['starScore']:.2f}", None),
    ]  # fmt: skip


def _places(got: DirectResult) -> tuple[F64, F64]:
    return got.sources["x"].to_numpy(), got.sources["y"].to_numpy()


def _rms(values: F64 | Bools) -> float:
    return float(np.sqrt(np.mean(np.square(values))))

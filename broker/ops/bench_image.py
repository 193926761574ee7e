"""How fast the image steps are, each beside a known program on the same data in the same process.

Times are processor seconds of this process, so another program on the machine does not count.
Repeats of both sides take turns; the median is given.
"""

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from broker.detection.bench import bench_detection
from broker.detection.dia import difference_and_detect
from broker.detection.forced import forced_flux
from broker.detection.galaxies import petrosian_photometry
from broker.detection.measure import Noise, fit_sources
from broker.imaging.background import fit_background
from broker.imaging.calibration import combine
from broker.imaging.cutout import cut, encode_cutout
from broker.imaging.image import Calibration, Image
from broker.imaging.isr import Amplifier, Box, Layout, Masters, remove_signature
from broker.imaging.kernels import F32
from broker.imaging.mask import empty_mask
from broker.imaging.psf import GaussianPsf
from broker.imaging.snaps import split_snaps
from broker.imaging.templates import Template
from broker.imaging.warp import coordinate_grid, image_coefficients, warp
from broker.imaging.wcs import Wcs
from broker.simulation.kernels import add_gaussians, add_plane, normal_table, read_out

SIGMA, SKY, READ, GAIN = 2.0, 200.0, 6.0, 1.5
_STARS_PER_MPIX = 240
_MPIX = 1e6
_CUTOUT = 63


@dataclass(frozen=True)
class Row:
    """One measurement.

    Parameters
    ----------
    what : str
    measured : float
    required : str
        Threshold, as `>= 200`; empty where there is none.
    anchor : str
        What another program, measured here or known, reaches.
    is_met : bool or None
        None where there is no threshold.
    """

    what: str
    measured: float
    required: str
    anchor: str
    is_met: bool | None


def _at_least(what: str, measured: float, least: float, anchor: str) -> Row:
    return Row(what, measured, f">= {least:g}", anchor, bool(measured >= least))


def _at_most(what: str, measured: float, most: float, anchor: str) -> Row:
    return Row(what, measured, f"<= {most:g}", anchor, bool(measured <= most))


def bench_image(*, side: int = 2048, repeats: int = 5, say: Callable[[str], None]) -> list[Row]:
    """Measure the image steps.

    Parameters
    ----------
    side : int
        Of the square images. [pixel]
    repeats : int
    say : callable
        Gets a word on each step that begins.

    Raises
    ------
    ConfigError
        If SEP is not installed.
    """
    rows: list[Row] = []
    steps: tuple[Callable[[int, int], list[Row]], ...] = (
        _detection,
        _signature,
        _stacks,
        _simulation,
        _sky,
        _measurement,
        _warping,
        _cutouts,
        _difference,
    )
    for step in steps:
        say((step.__doc__ or "").strip())
        rows += step(side, repeats)
    return rows


def _seconds(repeats: int, *calls: Callable[[], Any]) -> list[float]:
    """Return the median processor time of each call, the calls taking turns."""
    for call in calls:
        call()
    times = np.empty((repeats, len(calls)))
    for k in range(repeats):
        for i, call in enumerate(calls):
            start = time.process_time()
            call()
            times[k, i] = time.process_time() - start
    return [float(max(t, 1e-9)) for t in np.median(times, axis=0)]


def _field(side: int, *, seed: int = 1, sigma: float = SIGMA) -> tuple[F32, Any, Any, Any]:
    """Return counts without sky, and x, y, electrons of the stars."""
    rng = np.random.default_rng(1)
    n = int(_STARS_PER_MPIX * side * side / _MPIX)
    x, y = rng.uniform(0, side, (2, n))
    electrons = 10 ** rng.uniform(2.7, 4.7, n)
    light = np.full((side, side), SKY, np.float32)
    width = np.full(n, sigma)
    add_gaussians(light, x, y, electrons, width, width, 0.02)
    counts = read_out(light, np.uint64(seed), normal_table(), GAIN, READ, 1000.0, 65_000.0)
    return counts.astype(np.float32) - np.float32(1000.0 + SKY / GAIN), x, y, electrons


def _detection(side: int, repeats: int) -> list[Row]:
    """Compare detection with SEP."""
    del repeats
    found = bench_detection(side=side)
    gap = float(found["completeness"] - found["sepCompleteness"])
    return [
        _at_least("detection / SEP, speed", found["ratio"], 6.0, "SEP 1"),
        Row("detection, Mpix/s", found["megapixelsPerSecond"], "", _sep_speed(found), None),
        _at_least("detection - SEP, completeness", gap, -0.005, "0"),
    ]


def _sep_speed(found: dict[str, Any]) -> str:
    return f"SEP {found['sepMegapixelsPerSecond']:.0f}"


def _signature(side: int, repeats: int) -> list[Row]:
    """Compare signature removal with NumPy, in speed and result."""
    rng = np.random.default_rng(2)
    over = 32
    raw = rng.normal(2500.0, 40.0, (side, side + over)).astype(np.uint16)
    raw[:, side:] = 1000
    bias, dark, flat = (
        rng.normal(level, 0.01, (side, side)).astype(np.float32) for level in (3.0, 0.05, 1.0)
    )
    box = Box(0, side, 0, side)
    amplifier = Amplifier(box, box, Box(0, side, side, side + over), gain=GAIN, read_noise=READ,
                          saturation=6e4)  # fmt: skip
    layout, masters = Layout((side, side), (amplifier,)), Masters(bias, dark, flat)

    def ours() -> Any:
        return remove_signature([raw], layout, masters=masters, exposure_s=30.0)

    def plain() -> Any:
        level = raw[:, side:].astype(np.float32).mean(axis=1, keepdims=True)
        counts = raw[:, :side].astype(np.float32) - level
        full = counts >= 6e4
        charge = (counts - bias) * np.float32(GAIN)
        noise = np.maximum(charge, 0.0) + np.float32(READ**2 + GAIN**2 / 12.0)
        return (charge - dark * np.float32(30.0)) / flat, noise / flat**2, full

    error = float(np.max(np.abs(ours().pixels - plain()[0])))
    own, other = _seconds(repeats, ours, plain)
    mpix = side * side / _MPIX
    rows = [
        _at_least("signature removal, Mpix/s", mpix / own, 200.0, f"NumPy {mpix / other:.0f}"),
        _at_most("signature removal - NumPy [e-]", error, 1e-3, "0"),
    ]
    theirs = _ccdproc(raw, side, bias, dark, flat)
    if theirs is not None:
        (slow,) = _seconds(max(1, repeats // 2), theirs)
        rows.append(_at_least("signature removal / ccdproc, speed", slow / own, 10.0, "1"))
    return rows


def _ccdproc(raw: Any, side: int, bias: F32, dark: F32, flat: F32) -> Callable[[], Any] | None:
    """Return the same steps by ccdproc; None if it is not installed."""
    try:
        import ccdproc  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return None
    from astropy import units as u
    from astropy.nddata import CCDData

    electron = u.electron

    def run() -> Any:
        frame = CCDData(raw.astype(np.float32), unit="adu")
        frame = ccdproc.subtract_overscan(frame, overscan=frame[:, side:], overscan_axis=1)
        frame = ccdproc.trim_image(frame[:, :side])
        frame = ccdproc.subtract_bias(frame, CCDData(bias, unit="adu"))
        frame = ccdproc.create_deviation(
            frame, gain=GAIN * electron / u.adu, readnoise=READ * electron
        )
        frame = ccdproc.gain_correct(frame, GAIN * electron / u.adu)
        frame = ccdproc.subtract_dark(
            frame,
            CCDData(dark, unit="electron"),
            dark_exposure=1 * u.s,
            data_exposure=30 * u.s,
            scale=True,
        )
        return ccdproc.flat_correct(frame, CCDData(flat, unit=""), norm_value=1.0)

    return run


def _stacks(side: int, repeats: int) -> list[Row]:
    """Time snap pairs and the combination of calibration frames."""
    first, *_ = _field(side, seed=3)
    second, *_ = _field(side, seed=4)
    small = side // 4
    frames = [first[:small, k * 8 : k * 8 + small].copy() for k in range(20)]
    (snaps,) = _seconds(repeats, lambda: split_snaps(first, second, gain=GAIN, read_noise=READ))
    (stack,) = _seconds(max(1, repeats // 2), lambda: combine(frames))
    mpix = side * side / _MPIX
    return [
        Row("snap pair, Mpix/s", mpix / snaps, "", "L.A.Cosmic 0.7", None),
        Row("clipped mean of 20, Mpix/s", 20 * small**2 / _MPIX / stack, "", "ccdproc 21", None),
    ]


def _simulation(side: int, repeats: int) -> list[Row]:
    """Time the drawing of stars and noise."""
    rng = np.random.default_rng(5)
    n = 2000
    x, y = rng.uniform(0, side, (2, n))
    flux, width = 10 ** rng.uniform(2.7, 4.7, n), np.full(n, SIGMA)
    image = np.zeros((side, side), np.float32)
    add_plane(image, SKY, 0.0, 0.0)
    table = normal_table()
    key = np.uint64(1)

    def numpy_noise() -> Any:
        noise = np.random.default_rng(1).standard_normal(image.shape, np.float32)
        return (image + np.sqrt(image) * noise).astype(np.uint16)

    stars, noise, plain = _seconds(
        repeats,
        lambda: add_gaussians(image, x, y, flux, width, width, 0.02),
        lambda: read_out(image, key, table, GAIN, READ, 1000.0, 65_000.0),
        numpy_noise,
    )
    mpix = side * side / _MPIX
    return [
        _at_most("drawing a star [µs]", stars / n * 1e6, 3.0, "GalSim 178"),
        _at_least("noise and read-out, Mpix/s", mpix / noise, 150.0, f"NumPy {mpix / plain:.0f}"),
    ]


def _sky(side: int, repeats: int) -> list[Row]:
    """Compare the background with SEP."""
    import sep

    pixels, *_ = _field(side)
    pixels = pixels + np.float32(SKY / GAIN)
    unusable = np.zeros(pixels.shape, bool)
    own, other = _seconds(
        repeats,
        lambda: fit_background(pixels, unusable=unusable, psf_sigma=SIGMA),
        lambda: sep.Background(pixels, bw=64, bh=64).back(),
    )
    mpix = side * side / _MPIX
    level = fit_background(pixels, unusable=unusable, psf_sigma=SIGMA)
    bias = float(np.mean(level.level - np.float32(SKY / GAIN))) / level.sigma
    return [
        _at_least("background, Mpix/s", mpix / own, 60.0, f"SEP {mpix / other:.0f}"),
        _at_most("background, bias in sky sigma", abs(bias), 0.01, "SEP 0.018"),
    ]


def _measurement(side: int, repeats: int) -> list[Row]:
    """Time fits, forced photometry and Petrosian fluxes."""
    pixels, x, y, _ = _field(side)
    inside = (x > 20) & (x < side - 20) & (y > 20) & (y < side - 20)
    x, y = x[inside], y[inside]
    variance = np.full(pixels.shape, SKY / GAIN + (READ / GAIN) ** 2, np.float32)
    unusable = np.zeros(pixels.shape, bool)
    i, j = np.rint(x).astype(int), np.rint(y).astype(int)
    noise = Noise(GAIN, float(variance[0, 0]))
    many_x, many_y = np.tile(x, 10), np.tile(y, 10)
    few = slice(0, 100)
    fit, forced, petrosian = _seconds(
        repeats,
        lambda: fit_sources(pixels, variance, i, j, psf_sigma=SIGMA, noise=noise,
                            unusable=unusable),
        lambda: forced_flux(pixels, variance, many_x, many_y, psf_sigma=SIGMA, unusable=unusable),
        lambda: petrosian_photometry(pixels, variance, x[few], y[few], unusable=unusable),
    )  # fmt: skip
    return [
        _at_most("PSF fit [µs/source]", fit / x.size * 1e6, 10.0, "photutils 2200"),
        _at_least("forced photometry, 1000/s", many_x.size / forced / 1e3, 300.0, "photutils ~1"),
        _at_most("Petrosian flux [µs]", petrosian / 100 * 1e6, 300.0, "SEP 1200"),
    ]


def _warping(side: int, repeats: int) -> list[Row]:
    """Compare warping with SciPy's cubic spline, its map given."""
    from scipy.ndimage import map_coordinates

    image = _image(_field(side)[0], _wcs(side))
    turned = _wcs(side, turn=np.radians(3.0))
    grid_y, grid_x = coordinate_grid(image.wcs, turned, (side, side), step=1)
    places = np.stack([grid_y[:side, :side], grid_x[:side, :side]])
    own, other = _seconds(
        max(2, repeats // 2),
        lambda: warp(image, turned, (side, side)),
        lambda: map_coordinates(image.pixels, places, order=3, mode="mirror", output=np.float32),
    )
    mpix = side * side / _MPIX
    # 15 times reproject's bicubic is 1.9 times this.
    return [
        _at_least("warp / SciPy's spline, speed", other / own, 1.9, "1"),
        Row("warp, Mpix/s", mpix / own, "", f"SciPy {mpix / other:.0f}", None),
    ]


def _cutouts(side: int, repeats: int) -> list[Row]:
    """Compare cutouts with astropy and gzip."""
    import gzip

    from astropy.io import fits

    pixels, x, y, _ = _field(min(side, 512))
    wcs = _wcs(side)
    sigma = float(np.sqrt(SKY / GAIN + (READ / GAIN) ** 2))
    places = [(int(a), int(b)) for a, b in zip(x[:40], y[:40], strict=True)]

    def ours() -> list[bytes]:
        return [
            encode_cutout(cut(pixels, a, b, _CUTOUT), wcs=wcs.shifted(a, b), sigma=sigma)
            for a, b in places
        ]

    def theirs() -> list[bytes]:
        packed = []
        for a, b in places:
            file = io.BytesIO()
            fits.PrimaryHDU(cut(pixels, a, b, _CUTOUT)).writeto(file)
            packed.append(gzip.compress(file.getvalue(), 6))
        return packed

    own, other = _seconds(repeats, ours, theirs)
    size = float(np.mean([len(c) for c in ours()]))
    bytes_other = np.mean([len(c) for c in theirs()])
    n = len(places)
    return [
        _at_most("cutout [µs]", own / n * 1e6, 80.0, f"astropy + gzip {other / n * 1e6:.0f}"),
        _at_most("cutout [bytes]", size, 4200.0, f"astropy + gzip {bytes_other:.0f}"),
    ]


def _difference(side: int, repeats: int) -> list[Row]:
    """Time the difference, from sky subtraction to coded cutouts."""
    new, *_ = _field(side, seed=7)
    deep, *_ = _field(side, seed=8, sigma=1.8)
    image = _image(new + np.float32(SKY / GAIN), _wcs(side), sigma=SIGMA)
    reference = _image(deep, _wcs(side).shifted(0.3, -0.4).shifted(-0.3, 0.4), sigma=1.8)
    template = Template(reference, "bench", image_coefficients(reference))
    (own,) = _seconds(max(2, repeats // 2), lambda: difference_and_detect(image, template))
    scaled = own * 2048**2 / side**2
    return [_at_most("difference, all of it [s per 2048²]", scaled, 0.40, "HOTPANTS 7.6")]


def _wcs(side: int, turn: float = 0.0) -> Wcs:
    step = 0.25 / 3600.0
    cos, sin = step * float(np.cos(turn)), step * float(np.sin(turn))
    return Wcs(150.0, 2.0, side / 2.0, side / 2.0, ((-cos, sin), (sin, cos)))


def _image(pixels: F32, wcs: Wcs, *, sigma: float = SIGMA) -> Image:
    level = SKY / GAIN + (READ / GAIN) ** 2
    return Image(
        pixels,
        np.full(pixels.shape, level, np.float32),
        empty_mask((pixels.shape[0], pixels.shape[1])),
        wcs,
        GaussianPsf(sigma),
        Calibration(1, 0, "r", 60_000.0, 30.0, 27.0, GAIN, READ, 6e4),
    )

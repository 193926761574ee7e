"""Isolated point sources on noise: detection against theory, measurement against the bound."""

import math
from typing import Any

import numpy as np

from broker.bench_rows import Row, at_least, at_most
from broker.detection.detect import detect
from broker.detection.forced import forced_flux
from broker.detection.measure import Fits, Noise, fit_sources
from broker.imaging.kernels import F32, F64
from broker.imaging.psf import GaussianPsf
from broker.ops.image_bench.rows import MPIX, SIGMA, SKY, seconds
from broker.simulation.kernels import add_gaussians

_PITCH = 40
_DETECTED = (4.0, 4.5, 5.0, 5.5, 6.0, 7.0, 8.0, 10.0, 15.0, 30.0)
_MEASURED = (7.0, 10.0, 20.0, 50.0, 100.0, 300.0, 1000.0)
_FALSE_THRESHOLD = 4.5
_NORMAL_PIXELS, _SKY_PIXELS = 400.0 * MPIX, 150.0 * MPIX
_FILTER_RADIUS = 4
"""Of the detection's filter at this width. [pixel]"""

_STAMP = 63
UNIT = float(np.sqrt(SKY * 4.0 * np.pi) * SIGMA)
"""Flux of S/N 1 on the sky's noise. [e-]"""


def rows(side: int, repeats: int) -> list[Row]:
    """Measure completeness, false alarms, flux and place, forced fluxes, and stamps a second."""
    return [
        *_completeness(side),
        *_false_alarms(side),
        *_measurement(side),
        *_forced(side),
        _stamps(side, repeats),
    ]


def _scene(rng: Any, side: int, snr: float) -> tuple[F32, F64, F64]:
    """Return an image without sky, its noise that of every electron, and the sources' places."""
    light = np.full((side, side), SKY, np.float32)
    grid = np.arange(_PITCH // 2, side - _PITCH // 2, _PITCH, dtype=np.float64)
    y, x = (plane.ravel() for plane in np.meshgrid(grid, grid, indexing="ij"))
    x, y = x + rng.uniform(-0.5, 0.5, x.size), y + rng.uniform(-0.5, 0.5, y.size)
    width = np.full(x.size, SIGMA)
    add_gaussians(light, x, y, np.full(x.size, snr * UNIT), width, width, 1e-3)
    noise = np.sqrt(np.maximum(light, 0.0)) * rng.standard_normal(light.shape, np.float32)
    return light + noise - np.float32(SKY), x, y


def _completeness(side: int) -> list[Row]:
    from scipy.spatial import cKDTree
    from scipy.stats import norm

    rng = np.random.default_rng(31)
    variance = np.full((side, side), SKY, np.float32)
    shares: dict[float, list[float]] = {1.0: [], -1.0: []}
    for snr in _DETECTED:
        for sign in (1.0, -1.0):
            pixels, x, y = _scene(rng, side, sign * snr)
            peaks = detect(pixels, variance, psf_sigma=SIGMA)
            right = np.sign(peaks.snr) == sign
            tree = cKDTree(np.column_stack([peaks.x[right], peaks.y[right]]))
            distance, _ = tree.query(np.column_stack([x, y]))
            shares[sign].append(float(np.mean(distance < 3.0)))
    theory = norm.cdf(np.array(_DETECTED) - 5.0)
    found = []
    for sign, name in ((1.0, "positive"), (-1.0, "negative")):
        share = np.array(shares[sign])
        half = float(np.interp(0.5, share, _DETECTED))
        found += [
            at_least(
                f"{name} sources, completeness / theory, least of S/N 4-30",
                float(np.min(share / theory)), 0.98, "matched filter 1",
            ),
            at_most(f"{name} sources, S/N of half completeness", half, 4.95, "DP1 5.07"),
        ]  # fmt: skip
    return found


def _false_alarms(side: int) -> list[Row]:
    """Compare peaks on pure noise with what they must be: of pixels exactly, and of theory.

    The formula of random peaks is that of a continuous field: pixels miss the very top of a peak,
    which makes some 15 % fewer at 4.5 sigma. The sky's Poisson noise is skewed, which makes as many
    more of the positive ones. So normal noise is held against the exact number for pixels, and the
    sky's positive side against the formula. The range is that of 99 % of Poisson's
    distribution.
    """
    rng = np.random.default_rng(32)
    variance = np.full((side, side), SKY, np.float32)
    normal = poisson = 0
    images = max(1, round(_NORMAL_PIXELS / side**2))
    skies = max(1, round(_SKY_PIXELS / side**2))
    for _ in range(images):
        noise = np.float32(math.sqrt(SKY)) * rng.standard_normal((side, side), np.float32)
        normal += len(detect(noise, variance, psf_sigma=SIGMA, threshold=_FALSE_THRESHOLD))
    for _ in range(skies):
        sky = rng.poisson(SKY, (side, side)).astype(np.float32) - np.float32(SKY)
        found = detect(sky, variance, psf_sigma=SIGMA, threshold=_FALSE_THRESHOLD, negative=False)
        poisson += len(found)
    t = _FALSE_THRESHOLD
    formula = t * math.exp(-0.5 * t * t) / ((2.0 * math.pi) ** 1.5 * 2.0 * SIGMA**2)
    return [
        _against_poisson(
            "normal noise, both signs", normal, 2.0 * _peaks_a_pixel(t) * images * side**2
        ),
        _against_poisson("sky, positive, random peaks", poisson, formula * skies * side**2),
    ]


def _against_poisson(what: str, seen: int, expected: float) -> Row:
    from scipy.stats import poisson

    low, high = (float(poisson.ppf(q, expected)) / expected for q in (0.005, 0.995))
    share = seen / expected
    return Row(
        f"false alarms at {_FALSE_THRESHOLD:g} sigma / expected, {what}", share,
        f"{low:.2f}-{high:.2f}", f"theory 1, {expected:.0f} ± {math.sqrt(expected):.0f} peaks",
        bool(low <= share <= high),
    )  # fmt: skip


def _peaks_a_pixel(threshold: float) -> float:
    """Return how many pixels of filtered normal noise are above a threshold and their neighbours.

    The integral over the pixel's value z of the chance that the eight around it are lower, which
    have a normal distribution of 8 dimensions, given z. Nothing of the detection's code is in it.
    """
    from scipy.integrate import simpson
    from scipy.stats import multivariate_normal, norm

    offset = np.arange(-_FILTER_RADIUS, _FILTER_RADIUS + 1)
    edges = norm.cdf(np.append(offset - 0.5, offset[-1] + 0.5) / SIGMA)
    power = np.correlate(np.diff(edges), np.diff(edges), mode="full")
    along = power[2 * _FILTER_RADIUS :][:3] / power.max()
    around = np.array([(j, i) for j in (-1, 0, 1) for i in (-1, 0, 1) if (j, i) != (0, 0)])
    apart = np.abs(around[:, None, :] - around[None, :, :])
    near = along[np.abs(around[:, 0])] * along[np.abs(around[:, 1])]
    covariance = along[apart[..., 0]] * along[apart[..., 1]] - np.outer(near, near)
    values = np.linspace(threshold, threshold + 2.5, 26)
    # The chance hardly depends on the sample of the integration that is drawn.
    lower = [
        multivariate_normal.cdf(
            z * (1.0 - near), cov=covariance, allow_singular=True, maxpts=20_000,
            rng=np.random.default_rng(1),
        )
        for z in values
    ]  # fmt: skip
    return float(simpson(norm.pdf(values) * np.array(lower), x=values))


def _measurement(side: int) -> list[Row]:
    rng = np.random.default_rng(33)
    variance = np.full((side, side), SKY, np.float32)
    none = np.zeros((side, side), bool)
    worst = {"flux": 0.0, "place": 0.0, "bias": 0.0, "pull": 0.0}
    for snr in _MEASURED:
        flux = snr * UNIT
        pixels, x, y = _scene(rng, side, snr)
        fits = fit_sources(
            pixels, variance, np.rint(x).astype(int), np.rint(y).astype(int),
            psf_sigma=SIGMA, noise=Noise(1.0, SKY), unusable=none,
        )  # fmt: skip
        ratios = _against_bound(fits, flux, x, y)
        bias = -2.5 * math.log10(float(np.mean(fits.flux)) / flux) if snr >= 50.0 else 0.0
        for name, value in zip(worst, (*ratios[:2], abs(bias), ratios[2]), strict=True):
            worst[name] = max(worst[name], value)
    return [
        at_most("point source, flux rms / CRLB, S/N 7-1000", worst["flux"], 1.05, "photutils 1.0"),
        at_most("point source, place rms / CRLB, S/N 7-1000", worst["place"], 1.05, "SEP 1.1-3.3"),
        at_most("point source, |bias| from S/N 50 [mag]", worst["bias"], 0.003, "photutils 0.01"),
        at_most("point source, |pull - 1|, S/N 7-1000", worst["pull"], 0.05, "0"),
    ]


def _against_bound(fits: Fits, flux: float, x: F64, y: F64) -> tuple[float, float, float]:
    """Return rms of flux and place over the Cramer-Rao bound, and the pull's distance from 1."""
    bound = np.array([_bound(flux, a - round(a), b - round(b)) for a, b in zip(x, y, strict=True)])
    flux_rms = float(np.sqrt(np.mean((fits.flux - flux) ** 2 / bound[:, 0])))
    squares = np.concatenate([(fits.x - x) ** 2 / bound[:, 1], (fits.y - y) ** 2 / bound[:, 2]])
    pull = float(np.std((fits.flux - flux) / fits.flux_err))
    return flux_rms, float(np.sqrt(np.mean(squares))), abs(pull - 1.0)


def _bound(flux: float, dx: float, dy: float) -> F64:
    """Return the least variances of flux, x and y: Fisher's matrix by numerical derivatives."""
    psf, h = GaussianPsf(SIGMA), 1e-3
    px, py = psf.profile(dx, 12), psf.profile(dy, 12)
    sx = (psf.profile(dx + h, 12) - psf.profile(dx - h, 12)) / (2.0 * h)
    sy = (psf.profile(dy + h, 12) - psf.profile(dy - h, 12)) / (2.0 * h)
    shape = np.outer(py, px)
    slopes = np.stack([shape, flux * np.outer(py, sx), flux * np.outer(sy, px)]).reshape(3, -1)
    fisher = (slopes / (SKY + flux * shape.ravel())) @ slopes.T
    return np.asarray(np.diag(np.linalg.inv(fisher)), np.float64)


def _forced(side: int) -> list[Row]:
    rng = np.random.default_rng(34)
    pulls = []
    for snr in (0.0, 3.0):
        for _ in range(3):
            pixels, x, y = _scene(rng, side, snr)
            variance = np.full((side, side), SKY, np.float32)
            flux, error = forced_flux(
                pixels, variance, x, y, psf_sigma=SIGMA, unusable=np.zeros(pixels.shape, bool)
            )
            # The source's own light adds this share to the noise that the plane knows of.
            extra = 1.0 + snr * UNIT / (6.0 * np.pi * SIGMA**2 * SKY) * 2.0
            pulls.append((flux - snr * UNIT) / error / math.sqrt(extra))
    pull = float(np.std(np.concatenate(pulls)))
    return [at_most("forced photometry, |pull - 1|", abs(pull - 1.0), 0.03, "0")]


def _stamps(side: int, repeats: int) -> Row:
    """Time detection and fit of one source a stamp, the stamps laid side by side."""
    rng = np.random.default_rng(35)
    rows_of = side // _STAMP
    edge = rows_of * _STAMP
    light = np.full((edge, edge), SKY, np.float32)
    grid = _STAMP * (np.arange(rows_of) + 0.5)
    y, x = (plane.ravel() for plane in np.meshgrid(grid, grid, indexing="ij"))
    width = np.full(x.size, SIGMA)
    add_gaussians(light, x, y, np.full(x.size, 30.0 * UNIT), width, width, 1e-2)
    noise = np.sqrt(light) * rng.standard_normal(light.shape, np.float32)
    pixels: F32 = light + noise - np.float32(SKY)
    variance, none = np.full(light.shape, SKY, np.float32), np.zeros(light.shape, bool)

    def both() -> Any:
        peaks = detect(pixels, variance, psf_sigma=SIGMA)
        return fit_sources(
            pixels, variance, peaks.x, peaks.y,
            psf_sigma=SIGMA, noise=Noise(1.0, SKY), unusable=none,
        )  # fmt: skip

    (own,) = seconds(repeats, both)
    return at_least(
        "stamps of 63 x 63, detect and fit, 1000/s", x.size / own / 1e3, 30.0, "SEP 3.1"
    )

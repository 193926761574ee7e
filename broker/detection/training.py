"""Where the weights of the reliability come from: sources and artefacts that are known.

Difference images are drawn with point sources and with the ways in which a difference goes wrong:
stars off their place, of the wrong width or flux, hits of cosmic rays, hot pixels, beside masked
pixels. They are detected and measured as any other, and a logistic regression tells them apart.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from broker.detection.detect import detect
from broker.detection.dia import evidence_of
from broker.detection.difference import Difference
from broker.detection.forced import forced_flux
from broker.detection.measure import Noise, fit_sources
from broker.detection.reliability import features
from broker.imaging.image import Calibration, Image
from broker.imaging.kernels import F64
from broker.imaging.psf import GaussianPsf
from broker.imaging.subtract import gaussian_kernel
from broker.imaging.wcs import Wcs

SEED = 20_250_101
N_IMAGES = 24
"""What the weights in `broker.detection.reliability` were fitted to."""

_SIDE = 640
_PITCH = 40
_SKY = 600.0
_PRIOR = 0.02
"""Strength of the prior that keeps weights small, a source's share each."""

_REAL_SHARE = 0.6
KINDS = ("real", "shift", "width", "scale", "hit", "hot", "masked")


@dataclass(frozen=True)
class TrainingSet:
    """Measured features with their truth.

    Parameters
    ----------
    features : NDArray[np.float64], shape (n, n_features)
    is_real : NDArray[np.bool_], shape (n,)
    """

    features: F64
    is_real: NDArray[np.bool_]


def draw_training_set(rng: np.random.Generator, *, n_images: int) -> TrainingSet:
    """Return measured sources and artefacts of simulated difference images.

    Parameters
    ----------
    rng : Generator
    n_images : int
        Each has some 225 injections, of which one to two hundred are detected.
    """
    parts = [_one_image(rng) for _ in range(n_images)]
    return TrainingSet(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.is_real for part in parts]),
    )


def fit_weights(data: TrainingSet) -> tuple[F64, float]:
    """Return the weights and the bias of a logistic regression, both classes of equal weight.

    Parameters
    ----------
    data : TrainingSet

    Returns
    -------
    weights : NDArray[np.float64], shape (n_features,)
    bias : float
    """
    from scipy.optimize import minimize

    design = np.column_stack([data.features, np.ones(len(data.features))])
    sign = np.where(data.is_real, 1.0, -1.0)
    share = np.where(data.is_real, 0.5 / data.is_real.mean(), 0.5 / (1.0 - data.is_real.mean()))

    def loss(weights: F64) -> tuple[float, F64]:
        margin = sign * (design @ weights)
        pull = -sign * share / (1.0 + np.exp(np.clip(margin, -50.0, 50.0)))
        prior = _PRIOR * weights * np.append(np.ones(len(weights) - 1), 0.0)
        value = np.mean(share * np.logaddexp(0.0, -margin)) + 0.5 * float(prior @ weights)
        return float(value), design.T @ pull / len(design) + prior

    found = minimize(loss, np.zeros(design.shape[1]), jac=True, method="L-BFGS-B").x
    return found[:-1], float(found[-1])


def _one_image(rng: np.random.Generator) -> TrainingSet:
    sigma = rng.uniform(1.4, 2.4)
    light = np.zeros((_SIDE, _SIDE))
    pixels = np.zeros((_SIDE, _SIDE))
    unusable = np.zeros((_SIDE, _SIDE), bool)
    unit = np.sqrt(_SKY * GaussianPsf(sigma).effective_pixels)
    places, kinds = [], []
    for gy in range(_PITCH, _SIDE - _PITCH, _PITCH):
        for gx in range(_PITCH, _SIDE - _PITCH, _PITCH):
            kind = "real" if rng.random() < _REAL_SHARE else str(rng.choice(KINDS[1:]))
            x, y = gx + rng.uniform(-4, 4), gy + rng.uniform(-4, 4)
            snr = 4.5 * 10 ** rng.uniform(0.0, 1.3) * rng.choice([-1.0, 1.0])
            _inject(rng, kind, (pixels, light, unusable), (x, y, snr * unit, sigma))
            places.append((x, y))
            kinds.append(kind)
    noise = rng.normal(0.0, np.sqrt(_SKY + np.maximum(light, 0.0) + np.abs(pixels) * 0.5))
    difference = _difference((pixels + noise).astype(np.float32), light, unusable, sigma)
    return _measured(difference, np.array(places), np.array(kinds))


def _inject(
    rng: np.random.Generator,
    kind: str,
    planes: tuple[F64, F64, NDArray[np.bool_]],
    source: tuple[float, float, float, float],
) -> None:
    """Add one source or artefact to the planes: difference, static light, unusable pixels."""
    pixels, light, unusable = planes
    x, y, flux, sigma = source
    i, j = round(x), round(y)
    box = np.s_[j - 15 : j + 16, i - 15 : i + 16]
    right = GaussianPsf(sigma).stamp(x - i, y - j, 31)
    bright = abs(flux) * 10 ** rng.uniform(0.3, 1.5)
    if kind == "real":
        pixels[box] += flux * right
        if rng.random() < 0.4:  # on a host or a variable star
            light[box] += abs(flux) * 10 ** rng.uniform(-1.0, 1.2) * right
    elif kind == "shift":
        step = rng.uniform(0.1, 0.5, 2) * rng.choice([-1.0, 1.0], 2)
        moved = GaussianPsf(sigma).stamp(x - i + step[0], y - j + step[1], 31)
        pixels[box] += bright * (moved - right)
        light[box] += bright * right
    elif kind == "width":
        width = sigma * (1.0 + rng.uniform(0.06, 0.2) * rng.choice([-1.0, 1.0]))
        pixels[box] += 2.0 * bright * (GaussianPsf(width).stamp(x - i, y - j, 31) - right)
        light[box] += 2.0 * bright * right
    elif kind == "scale":
        star = abs(flux) * 30.0
        wrong = GaussianPsf(sigma * 1.03).stamp(x - i + 0.05, y - j, 31)
        pixels[box] += star * ((1.0 + rng.uniform(-0.03, 0.03)) * wrong - right)
        light[box] += star * right
    elif kind == "hit":
        angle = rng.uniform(0.0, 2.0 * np.pi)
        for along in range(int(rng.integers(1, 6))):
            at = j + round(along * np.sin(angle)), i + round(along * np.cos(angle))
            pixels[at] += abs(flux) * rng.uniform(0.15, 0.5)
    elif kind == "hot":
        pixels[j, i] += flux * rng.uniform(0.3, 1.0)
    else:
        column = i + int(rng.integers(-1, 2))
        unusable[j - 12 : j + 13, column] = True
        pixels[j - 12 : j + 13, column - 1] += 0.15 * flux * rng.uniform(0.5, 1.0)


def _difference(
    pixels: NDArray[np.float32], light: F64, unusable: NDArray[np.bool_], sigma: float
) -> Difference:
    variance = np.full(pixels.shape, _SKY, np.float32)
    calibration = Calibration(1, 0, "r", 61000.0, 30.0, 31.4, 1.0, 5.0, 6e4)
    wcs = Wcs.from_scale(10.0, 0.0, scale_arcsec=0.25, crpix=(_SIDE / 2, _SIDE / 2))
    mask = np.zeros(pixels.shape, np.uint16)
    star = light.astype(np.float32)
    science = Image(pixels + star, variance, mask, wcs, GaussianPsf(sigma), calibration)
    template = Image(star, variance / 8.0, mask, wcs, GaussianPsf(sigma), calibration)
    total = variance + star + np.square(np.float32(0.01) * star)
    clean = np.where(unusable, np.float32(0.0), pixels)
    kernel = gaussian_kernel(0.0, (_SIDE, _SIDE))
    return Difference(
        science,
        template,
        clean,
        total,
        total,
        unusable,
        star,
        sigma,
        sigma,
        1.0,
        1.0,
        _SKY,
        kernel,
        True,
        {},
    )


def _measured(difference: Difference, places: F64, kinds: NDArray[np.str_]) -> TrainingSet:
    """Return the features of what is detected near an injection."""
    from scipy.spatial import cKDTree

    peaks = detect(
        difference.pixels,
        difference.variance,
        psf_sigma=difference.psf_sigma,
        unusable=difference.unusable,
    )
    fits = fit_sources(
        difference.pixels,
        difference.variance,
        peaks.x,
        peaks.y,
        psf_sigma=difference.psf_sigma,
        noise=Noise(1.0, difference.floor),
        unusable=difference.unusable,
    )
    template_flux, _ = forced_flux(
        difference.template.pixels,
        difference.template.variance,
        fits.x,
        fits.y,
        psf_sigma=difference.psf_sigma,
        unusable=difference.unusable,
    )
    values = features(evidence_of(difference, peaks, fits, template_flux))
    distance, nearest = cKDTree(places).query(np.column_stack([fits.x, fits.y]))
    near = distance < 12.0
    is_real = (kinds[nearest] == "real") & (distance < 4.0)
    return TrainingSet(values[near], is_real[near])

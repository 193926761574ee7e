"""A difference with white noise: what is gained is a sharper PSF where the exposure was convolved.

Whether it is worth its time is measured by `broker bench image`: for a template that is deep and
sharp hardly; for a template broader than the exposure it gives the exposure's own PSF back.
"""

from dataclasses import replace

import numpy as np

from broker.detection.differencing.difference import Difference
from broker.detection.differencing.noise_planes import flat_shares, variance_plane
from broker.imaging.decorrelation import make_whitening


def decorrelate(difference: Difference) -> Difference:
    """Return a difference whose noise is white, by the kernel at its centre.

    Parameters
    ----------
    difference : Difference
        From an exposure that was not smoothed; another is returned as it is.

    Notes
    -----
    The kernel's change over the image is left out: the noise is white at the centre, and nearly so
    elsewhere.
    """
    if difference.scorecard.get("smoothing"):
        return difference
    ny, nx = difference.science.shape
    forward, kernel = difference.convolves_template, difference.kernel
    scale = kernel.scale if forward else 1.0 / kernel.scale
    noise = float(np.median(difference.science.variance[::4, ::4]))
    deep = float(np.median(difference.template.variance[::4, ::4])) * scale**2
    plain, convolved = (noise, deep) if forward else (deep, noise)
    whitening = make_whitening(kernel.at(nx / 2, ny / 2), plain=plain, convolved=convolved)
    pixels = whitening.apply(difference.pixels)
    pixels[difference.unusable] = 0.0
    ratio = whitening.width(difference.psf_sigma) / difference.psf_sigma
    widths = difference.width_map
    widths = replace(
        widths,
        terms=widths.terms * ratio,
        limits=(widths.limits[0] * ratio, widths.limits[1] * ratio),
    )
    ones = flat_shares(difference.science.shape)
    variance = variance_plane(
        difference.science.variance,
        difference.template.variance,
        difference.star_light,
        ones,
        ones,
        1.0 / difference.science.gain,
        scale,
        float(difference.template.meta.get("nVisits", 1)),
        difference.model_error,
    )
    return replace(
        difference,
        pixels=pixels,
        variance=variance,
        detection_variance=variance,
        psf_sigma=difference.psf_sigma * ratio,
        filter_sigma=difference.psf_sigma * ratio,
        position_error_scale=1.0,
        poisson_share=1.0,
        floor=noise,
        widths=widths,
        scorecard=difference.scorecard | {"decorrelated": 1},
    )

"""The difference, from sky subtraction to coded cutouts."""

import numpy as np

from broker.detection.dia import difference_and_detect
from broker.imaging.templates import Template
from broker.imaging.warp import image_coefficients
from broker.ops.image_bench.rows import (
    GAIN,
    SIGMA,
    SKY,
    Row,
    at_most,
    field,
    make_image,
    make_wcs,
    seconds,
)


def rows(side: int, repeats: int) -> list[Row]:
    """Time the difference, from sky subtraction to coded cutouts."""
    new, *_ = field(side, seed=7)
    deep, *_ = field(side, seed=8, sigma=1.8)
    image = make_image(new + np.float32(SKY / GAIN), make_wcs(side), sigma=SIGMA)
    reference = make_image(deep, make_wcs(side).shifted(0.3, -0.4).shifted(-0.3, 0.4), sigma=1.8)
    template = Template(reference, "bench", image_coefficients(reference))
    (own,) = seconds(max(2, repeats // 2), lambda: difference_and_detect(image, template))
    scaled = own * 2048**2 / side**2
    return [at_most("difference, all of it [s per 2048²]", scaled, 0.40, "HOTPANTS 7.6")]

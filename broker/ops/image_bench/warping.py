"""Warping beside SciPy's cubic spline, its map given."""

import numpy as np

from broker.imaging.warp import coordinate_grid, warp
from broker.ops.image_bench.rows import MPIX, Row, at_least, field, make_image, make_wcs, seconds


def rows(side: int, repeats: int) -> list[Row]:
    """Compare warping with SciPy's cubic spline, its map given."""
    from scipy.ndimage import map_coordinates

    image = make_image(field(side)[0], make_wcs(side))
    turned = make_wcs(side, turn=np.radians(3.0))
    grid_y, grid_x = coordinate_grid(image.wcs, turned, (side, side), step=1)
    places = np.stack([grid_y[:side, :side], grid_x[:side, :side]])
    own, other = seconds(
        max(2, repeats // 2),
        lambda: warp(image, turned, (side, side)),
        lambda: map_coordinates(image.pixels, places, order=3, mode="mirror", output=np.float32),
    )
    mpix = side * side / MPIX
    # 15 times reproject's bicubic is 1.9 times this.
    return [
        at_least("warp / SciPy's spline, speed", other / own, 1.9, "1"),
        Row("warp, Mpix/s", mpix / own, "", f"SciPy {mpix / other:.0f}", None),
    ]

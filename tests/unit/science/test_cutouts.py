"""Cutouts of any size and kind are decoded once; what cannot be read counts as absent."""

import numpy as np
import pyarrow as pa

from broker.imaging.cutout import encode_cutout
from broker.science import Cutouts, Runner, find_contributions, sample_alerts

SMALL = np.arange(25.0, dtype=np.float32).reshape(5, 5)
LARGE = np.arange(49.0, dtype=np.float32).reshape(7, 7)


def test_sizes_are_kept_apart_and_absent_ones_are_nan():
    values = [encode_cutout(x, lossless=True) for x in (SMALL, LARGE, SMALL + 1.0)]
    column = pa.array([values[0], None, values[1], b"damaged", values[2]], pa.binary())

    cutouts = Cutouts.from_arrow(column)
    sums = cutouts.measure(lambda pixels: pixels.sum(axis=(1, 2))[:, None], 1)
    series = cutouts.to_series()

    assert {pixels.shape for _, pixels in cutouts.groups} == {(2, 5, 5), (1, 7, 7)}
    np.testing.assert_array_equal(sums[:, 0], [300.0, np.nan, 1176.0, np.nan, 325.0])
    assert series[1] is None
    assert series[3] is None
    np.testing.assert_array_equal(series[4], SMALL + 1.0)


def test_an_image_may_be_had_as_an_array_an_alert(write_modules):
    folder = write_modules(
        plain="""
        @science_module(version="1.0.0", outputs=(Column("nPixels", "int32", "", "Pixels."),))
        def plain(cutout_template):
            '''Count pixels.'''
            sizes = [np.nan if image is None else image.size for image in cutout_template]
            return pd.DataFrame({"nPixels": np.array(sizes, dtype=float)})
        """
    )
    alerts = sample_alerts(60, seed=2, catalogs={})

    with Runner(find_contributions(folder, catalogs={}), isolate=False) as runner:
        got = runner.run(alerts).outputs.column(0).to_pylist()

    assert set(got) == {None, 63 * 63, 31 * 31}

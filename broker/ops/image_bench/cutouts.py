"""Cutouts beside astropy and gzip."""

import io

import numpy as np

from broker.imaging.cutout import cut, encode_cutout
from broker.ops.image_bench.rows import GAIN, READ, SKY, Row, at_most, field, make_wcs, seconds

_CUTOUT = 63


def rows(side: int, repeats: int) -> list[Row]:
    """Compare cutouts with astropy and gzip."""
    import gzip

    from astropy.io import fits

    pixels, x, y, _ = field(min(side, 512))
    wcs = make_wcs(side)
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

    own, other = seconds(repeats, ours, theirs)
    size = float(np.mean([len(c) for c in ours()]))
    bytes_other = np.mean([len(c) for c in theirs()])
    n = len(places)
    return [
        at_most("cutout [µs]", own / n * 1e6, 80.0, f"astropy + gzip {other / n * 1e6:.0f}"),
        at_most("cutout [bytes]", size, 4200.0, f"astropy + gzip {bytes_other:.0f}"),
    ]

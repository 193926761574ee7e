"""Signature removal beside NumPy and ccdproc, in speed and result."""

from collections.abc import Callable
from typing import Any

import numpy as np

from broker.bench_rows import Row, at_least, at_most
from broker.imaging.isr import Amplifier, Box, Layout, Masters, remove_signature, whole
from broker.imaging.kernels import F32
from broker.ops.image_bench.rows import GAIN, MPIX, READ, seconds


def rows(side: int, repeats: int) -> list[Row]:
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
    own, other = seconds(repeats, ours, plain)
    mpix = side * side / MPIX
    found = [
        at_least("signature removal, Mpix/s", mpix / own, 200.0, f"NumPy {mpix / other:.0f}"),
        at_most("signature removal - NumPy [e-]", error, 1e-3, "0"),
    ]
    theirs = _ccdproc(raw, side, bias, dark, flat)
    (slow,) = seconds(max(1, repeats // 2), theirs)
    frame, reduced = theirs(), ours()
    gap = float(np.max(np.abs(reduced.pixels - np.asarray(frame.data))))
    # Ours has the variance of rounding to whole counts beside; theirs starts without it.
    rounding = np.float32(GAIN**2 / 12.0) / flat**2
    ratio = (reduced.variance - rounding) / np.square(np.asarray(frame.uncertainty.array))
    return [
        *found,
        at_least("signature removal / ccdproc, speed", slow / own, 10.0, "1"),
        at_most("signature removal - ccdproc [e-]", gap, 1e-3, "0"),
        at_most(
            "signature removal, |variance / ccdproc's - 1|",
            float(np.max(np.abs(ratio - 1.0))),
            1e-3,
            "0",
        ),
        at_most("flats, |chi2 / dof - 1|", abs(_flat_chi2(side) - 1.0), 0.01, "0"),
    ]


def _flat_chi2(side: int) -> float:
    """Return the mean square of what is left of a lit flat, over the variance that is stated."""
    rng = np.random.default_rng(3)
    level, sensitivity = 20_000.0, rng.normal(1.0, 0.02, (side, side)).astype(np.float32)
    electrons = rng.poisson(level * sensitivity) + rng.normal(0.0, READ, (side, side))
    raw = np.rint(electrons / GAIN + 1000.0).astype(np.uint16)
    layout = whole((side, side), gain=GAIN, read_noise=READ, bias_level=1000.0)
    reduced = remove_signature([raw], layout, masters=Masters(flat=sensitivity))
    return float(np.mean((reduced.pixels - level) ** 2 / reduced.variance, dtype=np.float64))


def _ccdproc(raw: Any, side: int, bias: F32, dark: F32, flat: F32) -> Callable[[], Any]:
    """Return the same steps by ccdproc."""
    import ccdproc
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

"""The whole way: a raw detector of 16 amplifiers to coded cutouts, on one core and on two."""

import json
import os
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np

from broker.bench_rows import Row, at_least, at_most
from broker.detection.detect import detect
from broker.detection.dia import DiaSettings, detect_on_difference
from broker.detection.differencing.difference import subtract_template
from broker.detection.measure import Noise, fit_sources
from broker.imaging.image import Calibration, Image
from broker.imaging.isr import Amplifier, Box, Layout, Masters, Reduced, remove_signature
from broker.imaging.kernels import F64
from broker.imaging.mask import UNUSABLE, empty_mask
from broker.imaging.memory import WORKER
from broker.imaging.psf import GaussianPsf
from broker.imaging.templates import Template
from broker.imaging.warp import image_coefficients
from broker.ops.image_bench.rows import GAIN, MPIX, READ, SIGMA, SKY, make_wcs
from broker.simulation.kernels import add_gaussians, normal_table, read_out

BIAS = 1000.0
_OVERSCAN = 32
_FULL_SIDE = 4096
_STARS_PER_MPIX, _TRANSIENTS_PER_MPIX = 240.0, 12.0
_CUTOUT = 63
_TURN = 0.001
"""Of the template against the detector: as the sky turns between visits of a night. [radian]"""

_MOST_S, _MOST_MB, _MOST_COMPILE_S = 1.5, 1536.0, 5.0
_LEAST_SCALING, _MOST_SCALING = 1.9, 2.05


def rows(side: int, repeats: int) -> list[Row]:
    """Measure the chain in fresh processes: time, steps, scaling, memory, and first use."""
    side = 2 * side
    turns = max(3, repeats)
    first, second = _run(side, turns)
    scale = _FULL_SIDE**2 / side**2
    alone = {name: float(np.median(first[name])) for name in (*_STEPS, "chain")}
    return [
        at_most("chain [s per 4096²]", scale * alone["chain"], _MOST_S, "LSST 46 + 79 and more"),
        *(
            Row(f"chain, {step} [s per 4096²]", scale * alone[step], "", "", None)
            for step in _STEPS
        ),
        *_scaling(first, second),
        at_most("chain, memory of a process [MB]", first["memory"], _MOST_MB, "LSST 4300"),
        at_most("chain, loading compiled code [s]", first["first"], _MOST_COMPILE_S, "0"),
        at_least("chain, transients found / injected above S/N 10", first["found"], 0.97, "1"),
    ]


def _scaling(first: dict[str, Any], second: dict[str, Any]) -> list[Row]:
    """Return how much more two processes do than one, by processor time and by the clock.

    Turns alone and together alternate. Twice the median of those alone, over that of those
    together: what the two take from one another, memory and cache, is time of the processor. More
    than twice cannot be, and says that the machine was not the same for both.
    """
    found = []
    for kind in ("chain", "wall"):
        alone = np.concatenate([first[kind], second[kind]])
        both = np.concatenate([first[f"{kind} together"], second[f"{kind} together"]])
        found.append(2.0 * float(np.median(alone) / np.median(both)))
    own, clock = found
    what = "chain, two processes / one, by processor time"
    is_met = bool(_LEAST_SCALING <= own <= _MOST_SCALING)
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    return [
        Row(what, own, f"{_LEAST_SCALING:g}-{_MOST_SCALING:g}", "2", is_met),
        Row("chain, two processes / one, by the clock", clock, "", load, None),
    ]


def _run(side: int, turns: int) -> list[dict[str, Any]]:
    """Run the chain in two processes, alone and together by turns; return what each measured.

    Each has a core of its own if there are as many, and waits for the word before each turn.
    """
    cores = sorted(os.sched_getaffinity(0))
    children: list[Any] = []
    for k in range(2):
        call = f"measure({side}, {cores[k % len(cores)]})"
        code = f"from broker.ops.image_bench.chain import measure; {call}"
        children.append(
            subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | WORKER,
            )
        )
    found: list[dict[str, Any]] = [json.loads(child.stdout.readline()) for child in children]
    for _ in range(turns):
        for number, child in enumerate(children):
            _turn([child], [found[number]], "")
        _turn(children, found, " together")
    for child in children:
        child.communicate("end\n")
    return found


def _turn(children: list[Any], found: list[dict[str, Any]], words: str) -> None:
    """Let processes run the chain once, all at once, and add what they measured to the lists."""
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    for child, own in zip(children, found, strict=True):
        for name, value in json.loads(child.stdout.readline()).items():
            own.setdefault(name + words, []).append(value)


_STEPS = ("signature", "difference", "direct sources", "difference sources")


def measure(side: int, core: int) -> None:
    """Run the chain once for each line that is read, until `end`; write a line of JSON after each.

    Times are of the processor, `wall` by the clock. The first line tells of the first run, of
    memory, and of the transients found.
    """
    os.sched_setaffinity(0, {core})
    raw, layout, masters, template, truth = make_night(side)
    start = time.process_time()
    _, sources = run_chain(raw, layout, masters, template)
    first = time.process_time() - start
    again = sum(run_chain(raw, layout, masters, template)[0])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    answer = {"first": first - again, "memory": memory, "found": _share_found(sources, truth)}
    _say(answer)
    while sys.stdin.readline() == "go\n":
        start = time.perf_counter()
        steps, _ = run_chain(raw, layout, masters, template)
        wall = time.perf_counter() - start
        _say(dict(zip(_STEPS, steps, strict=True)) | {"chain": sum(steps), "wall": wall})


def _say(answer: dict[str, float]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def make_night(side: int) -> tuple[Any, Layout, Masters, Template, F64]:
    """Return a raw plane, how it was made, a template, and the places of bright transients."""
    rng = np.random.default_rng(11)
    stars = _random_stars(rng, side, _STARS_PER_MPIX, 2.7, 4.7)
    # 3 to 4 in the logarithm of electrons: S/N 10 to 100.
    new = _random_stars(rng, side, _TRANSIENTS_PER_MPIX, 3.2, 4.2)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    bias = 3.0 * np.sin(x / 97.0)
    dark = np.full((side, side), 0.05, np.float32)
    flat = (1.0 + 0.02 * np.cos(y / 211.0)).astype(np.float32)
    del x, y
    light = np.full((side, side), SKY, np.float32)
    for places in (stars, new):
        width = np.full(places.shape[1], SIGMA)
        add_gaussians(light, *places, width, width, 0.02)
    light *= flat
    light += dark * np.float32(30.0) + bias * np.float32(GAIN)
    counts = read_out(light, np.uint64(5), normal_table(), GAIN, READ, BIAS, 65_000.0)
    raw, layout = _amplifiers(counts)
    deep = np.full((side, side), 8.0 * SKY, np.float32)
    width = np.full(stars.shape[1], 1.8)
    # A template is on other pixels: a fraction of one off, and turned.
    wcs = make_wcs(side, _TURN).shifted(0.37, -0.21)
    there = wcs.sky_to_pixel(*make_wcs(side).pixel_to_sky(stars[0], stars[1]))
    add_gaussians(deep, *there, 8.0 * stars[2], width, width, 0.02)
    eight = read_out(deep, np.uint64(6), normal_table(), 1.0, READ, 0.0, 65_535.0)
    pixels = (eight.astype(np.float32) - np.float32(8.0 * SKY)) / np.float32(8.0)
    noise = (8.0 * SKY + READ**2) / 64.0
    image = Image(
        pixels,
        np.full(pixels.shape, noise, np.float32),
        empty_mask((side, side)),
        wcs,
        GaussianPsf(1.8),
        Calibration(0, 0, "r", 59_000.0, 240.0, 27.0, 1.0, READ, 6e4 * GAIN),
        {"nVisits": 8},
    )
    template = Template(image, "bench", image_coefficients(image))
    unit = np.sqrt((SKY + READ**2) * GaussianPsf(SIGMA).effective_pixels)
    return raw, layout, Masters(bias, dark, flat), template, new[:2, new[2] > 10.0 * unit]


def _random_stars(rng: Any, side: int, per_mpix: float, low: float, high: float) -> F64:
    """Return x, y and electrons, shape (3, n)."""
    n = int(per_mpix * side * side / MPIX)
    return np.stack([*rng.uniform(30.0, side - 30.0, (2, n)), 10.0 ** rng.uniform(low, high, n)])


def _amplifiers(counts: Any) -> tuple[Any, Layout]:
    """Return the plane that 2 x 8 amplifiers with overscans write, and their layout."""
    side = counts.shape[0]
    width, height = side // 8, side // 2
    raw = np.full((side, 8 * (width + _OVERSCAN)), np.uint16(BIAS))
    amplifiers = []
    for row in range(2):
        for column in range(8):
            y, x = row * height, column * (width + _OVERSCAN)
            target = Box(y, y + height, column * width, (column + 1) * width)
            data = Box(y, y + height, x, x + width)
            overscan = Box(y, y + height, x + width, x + width + _OVERSCAN)
            data.of(raw)[:] = target.of(counts)
            amplifiers.append(
                Amplifier(data, target, overscan, gain=GAIN, read_noise=READ, saturation=6e4)
            )
    return raw, Layout((side, side), tuple(amplifiers))


def _share_found(sources: Any, truth: F64) -> float:
    """Return the share of places with a diaSource within two pixels."""
    from scipy.spatial import cKDTree

    found = np.column_stack([sources["x"].to_numpy(), sources["y"].to_numpy()])
    distance, _ = cKDTree(found).query(truth.T)
    return float(np.mean(distance < 2.0))


def run_chain(
    raw: Any, layout: Layout, masters: Masters, template: Template
) -> tuple[list[float], Any]:
    """Return the seconds of each step, and the diaSources."""
    marks = [time.process_time()]

    def step(result: Any) -> Any:
        marks.append(time.process_time())
        return result

    # The image is given away: its planes are free once its sky is known.
    reduced = [step(remove_signature([raw], layout, masters=masters, exposure_s=30.0))]
    difference = step(subtract_template(_as_image(reduced.pop()), template))
    clean = difference.science
    unusable = clean.is_masked(UNUSABLE)
    peaks = detect(clean.pixels, clean.variance, psf_sigma=SIGMA, unusable=unusable, negative=False)
    step(
        fit_sources(
            clean.pixels,
            clean.variance,
            peaks.x,
            peaks.y,
            psf_sigma=SIGMA,
            noise=Noise(1.0, difference.floor),
            unusable=unusable,
        )
    )
    settings = DiaSettings(cutout_px=_CUTOUT)
    result = step(detect_on_difference(difference, template.version, settings=settings))
    return np.diff(marks).tolist(), result.sources


def night_calibration(visit: int) -> Calibration:
    """Return what a raw frame of the night says of itself."""
    zero_point = 27.0 - 2.5 * float(np.log10(GAIN))
    middle = 60_000.0 + 0.001 * visit
    return Calibration(visit, 0, "r", middle, 30.0, zero_point, GAIN, READ, 6e4)


def _as_image(reduced: Reduced) -> Image:
    calibration = Calibration(1, 0, "r", 60_000.0, 30.0, 27.0, 1.0, READ, 6e4 * GAIN)
    wcs = make_wcs(reduced.pixels.shape[0])
    planes = (reduced.pixels, reduced.variance, reduced.mask)
    return Image(*planes, wcs, GaussianPsf(SIGMA), calibration)

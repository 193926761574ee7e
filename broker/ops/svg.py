"""Small figures as text that a page can hold: no script, no file beside it."""

import base64
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

COLOURS = {
    "u": "#56b4e9",
    "g": "#008f5d",
    "r": "#d55e00",
    "i": "#8c564b",
    "z": "#7a5195",
    "y": "#444444",
}
OTHER = "#777777"

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 320.0, 150.0, 52.0, 30.0, 8.0


def histogram(edges: Sequence[float], counts: Sequence[int], label: str) -> str:
    """Return a histogram with its axis labelled at both ends and the middle."""
    most = max([*counts, 1])
    x, y = _scale(edges[0], edges[-1], 0.0, most)
    bars = "".join(
        f'<rect x="{x(a):.1f}" y="{y(n):.1f}" width="{max(x(b) - x(a) - 0.6, 0.4):.1f}" '
        f'height="{y(0) - y(n):.1f}" fill="#3b6fa0"/>'
        for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True)
    )
    return _figure(bars + _axes((edges[0], edges[-1]), (0.0, most), x, y, label, "alerts"), label)


def light_curve(history: Sequence[Mapping[str, Any]]) -> str:
    """Return the light curve of one alert: days before it, flux in µJy, a colour a band.

    Points are detections, open ones forced fluxes, triangles 5-sigma upper limits.
    """
    newest = max(entry["midpointMjdTai"] for entry in history)
    points = [(entry["midpointMjdTai"] - newest, *_flux_of(entry), entry) for entry in history]
    low = min([0.0, *(flux - error for _, flux, error, _ in points)])
    high = max([0.0, *(flux + error for _, flux, error, _ in points)])
    start = min(-0.5, min(day for day, *_ in points))
    margin = 0.06 * (high - low or 1.0)
    x, y = _scale(start * 1.03, -start * 0.03, low - margin, high + margin)
    marks = "".join(_point(x(day), y(flux), y, flux, error, e) for day, flux, error, e in points)
    bands = sorted({e["band"] for e in history if e["band"]}, key="ugrizy".find)
    key = "".join(
        f'<tspan fill="{COLOURS.get(band, OTHER)}" dx="6">{escape(band)}</tspan>' for band in bands
    )
    zero = f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y(0):.1f}" y2="{y(0):.1f}" stroke="#bbb"/>'
    axes = _axes((start, 0.0), _rounded(low, high), x, y, "days before the alert", "flux / µJy")
    words = f'<text x="{_LEFT + 4}" y="{_TOP + 8}">{key}</text>'
    return _figure(zero + marks + axes + words, "light curve")


def _flux_of(entry: Mapping[str, Any]) -> tuple[float, float]:
    flux, error = entry["psfFlux"], entry["psfFluxErr"] or 0.0
    return (5e-3 * error, 0.0) if flux is None else (1e-3 * flux, 1e-3 * error)


def _point(x: float, at: float, y: Any, flux: float, error: float, e: Mapping[str, Any]) -> str:
    colour = COLOURS.get(e["band"] or "", OTHER)
    if e["psfFlux"] is None:
        return f'<path d="M{x - 3:.1f},{at - 2:.1f}h6l-3,5z" fill="none" stroke="{colour}"/>'
    fill = colour if e["kind"] == 0 else "#fff"
    bar = f"M{x:.1f},{y(flux - error):.1f}V{y(flux + error):.1f}"
    return (
        f'<path d="{bar}" stroke="{colour}"/>'
        f'<circle cx="{x:.1f}" cy="{at:.1f}" r="2.4" fill="{fill}" stroke="{colour}"/>'
    )


def _scale(left: float, right: float, low: float, high: float) -> tuple[Any, Any]:
    width, height = _WIDTH - _LEFT - 8.0, _HEIGHT - _BOTTOM - _TOP
    return (
        lambda value: _LEFT + width * (value - left) / (right - left or 1.0),
        lambda value: _TOP + height * (1.0 - (value - low) / (high - low or 1.0)),
    )


def _axes(
    ends: tuple[float, float],
    heights: Sequence[float],
    x: Any,
    y: Any,
    below: str,
    beside: str,
) -> str:
    foot = _HEIGHT - _BOTTOM
    frame = f'<path d="M{_LEFT},{_TOP}V{foot}H{_WIDTH - 8}" fill="none" stroke="#444"/>'
    words = [
        f'<text x="{x(value):.1f}" y="{foot + 12}" text-anchor="{anchor}">{value:.4g}</text>'
        for value, anchor in zip(ends, ("start", "end"), strict=True)
    ]
    words += [
        f'<text x="{_LEFT - 4}" y="{y(value) + 3:.1f}" text-anchor="end">{_short(value)}</text>'
        for value in heights
    ]
    middle = (_LEFT + _WIDTH) / 2.0
    words.append(f'<text x="{middle}" y="{foot + 26}" text-anchor="middle">{escape(below)}</text>')
    up = f"rotate(-90 10 {foot / 2})"
    words.append(
        f'<text x="10" y="{foot / 2}" transform="{up}" text-anchor="middle">{escape(beside)}</text>'
    )
    return frame + "".join(words)


def _rounded(*values: float) -> list[float]:
    return [float(f"{value:.3g}") for value in values]


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000.0 else f"{value:.5g}"


def ticks(low: float, high: float) -> list[float]:
    """Return two to five round numbers between two values, steps of 1, 2 or 5."""
    span = max(high - low, 1e-12)
    power = 10.0 ** np.floor(np.log10(span / 3.0))
    step = next(m * power for m in (1.0, 2.0, 5.0, 10.0) if span / (m * power) <= 4.0)
    first = int(np.ceil(low / step - 1e-9))
    count = int(np.floor(high / step + 1e-9)) - first + 1
    return [float(f"{(first + k) * step:.12g}") for k in range(count)]


def _figure(content: str, title: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img" '
        f'aria-label="{escape(title)}">{content}</svg>'
    )


def png(pixels: NDArray[np.floating[Any]]) -> str:
    """Return an image as a data address of a grey PNG, north as it lies in the array.

    The scale goes from the 1st to the 99.5th percentile; what has no value is black.
    """
    finite = np.isfinite(pixels)
    low, high = np.percentile(pixels[finite], (1.0, 99.5)) if finite.any() else (0.0, 1.0)
    with np.errstate(invalid="ignore"):
        grey = np.clip((pixels - low) / (high - low or 1.0), 0.0, 1.0)
    levels = np.where(finite, 255.0 * grey, 0.0).astype(np.uint8)[::-1]
    rows = b"".join(b"\0" + row.tobytes() for row in levels)
    head = struct.pack(">IIBBBBB", levels.shape[1], levels.shape[0], 8, 0, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return an HTML table; numbers are aligned to the right."""
    lines = [f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr>"]
    for row in rows:
        cells = "".join(
            f'<td class="n">{_number(value)}</td>'
            if isinstance(value, int | float) and not isinstance(value, bool)
            else f"<td>{escape('–' if value is None else str(value))}</td>"
            for value in row
        )
        lines.append(f"<tr>{cells}</tr>")
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def _number(value: float) -> str:
    return f"{value}" if isinstance(value, int) else f"{value:.4g}"


def scatter(
    values: Sequence[float],
    colours: Sequence[str],
    marked: Sequence[bool],
    *,
    limits: Sequence[float] = (),
    label: str,
) -> str:
    """Return values one after the other as dots; a ring marks one, a line is a limit.

    Parameters
    ----------
    values : sequence of float
        NaN is left out.
    colours : sequence of str
    marked : sequence of bool
    limits : sequence of float
        Drawn where they are near enough to the values to be seen.
    label : str
    """
    known = np.array([v for v in values if np.isfinite(v)])
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    span = max(high - low, 1e-3 * max(abs(low), abs(high)), 1e-9)
    near = [v for v in limits if low - 3.0 * span <= v <= high + 3.0 * span]
    low, high = min([low, *near]), max([high, *near])
    margin = 0.06 * (high - low) or 0.06 * abs(high) or 0.5
    x, y = _scale(0.0, max(len(values) + 1.0, 2.0), low - margin, high + margin)
    lines = "".join(
        f'<line x1="{_LEFT}" x2="{_WIDTH - 8}" y1="{y(v):.1f}" y2="{y(v):.1f}" '
        'stroke="#b00" stroke-dasharray="4 3"/>'
        for v in near
    )
    dots = "".join(
        f'<circle cx="{x(n + 1.0):.1f}" cy="{y(v):.1f}" r="2" fill="{colour}"/>'
        + (
            f'<circle cx="{x(n + 1.0):.1f}" cy="{y(v):.1f}" r="4.5" fill="none" stroke="#b00"/>'
            if ring
            else ""
        )
        for n, (v, colour, ring) in enumerate(zip(values, colours, marked, strict=True))
        if np.isfinite(v)
    )
    ends = (1.0, float(max(len(values), 1)))
    heights = ticks(low - margin, high + margin)
    across = "".join(
        f'<line x1="{_LEFT}" x2="{_WIDTH - 8}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="#eee"/>'
        for v in heights
    )
    return _figure(across + lines + dots + _axes(ends, heights, x, y, "image", ""), label)

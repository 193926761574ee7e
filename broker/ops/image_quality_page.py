"""The scorecards of many images as one page of plots, without anything beside it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from broker.detection.quality.image_flags import CHECKS, ImageFlag, names, reasons
from broker.ops.svg import COLOURS, OTHER, scatter, table

_PLOTS: tuple[tuple[str, str], ...] = (
    ("seeing", "seeing / arcsec"),
    ("ellipticity", "ellipticity of stars"),
    ("zeroPointOff", "stars brighter (+) or fainter (-) than said / mag"),
    ("transparencySpread", "transparency, spread / mag"),
    ("limitingMag", "5-sigma limit / mag"),
    ("background", "sky / counts or electrons of the image"),
    ("noiseRatio", "noise over expected, squared"),
    ("skyShape", "shape of the sky / its brightness"),
    ("amplifierStep", "step at an amplifier / sky"),
    ("amplifierNoise", "noise of the oddest amplifier / others"),
    ("nStars", "stars above 10 sigma"),
    ("starShare", "share of expected stars"),
    ("kernelSum", "sum of the kernel"),
    ("differenceChi", "scatter of the difference / its error"),
    ("subtractionRatio", "star light left on the difference, share"),
    ("maskedShare", "masked share"),
    ("wcsShiftPx", "WCS off / pixel"),
    ("wcsRmsPx", "WCS rms / pixel"),
)

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2em auto;padding:0 1em;color:#222}
h1{font-size:1.4em}h2{font-size:1.1em;margin-top:2em}
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:10px}
figure{margin:0;border:1px solid #ddd;padding:6px}figcaption{font-size:13px}
svg{width:100%}svg text{font:10px system-ui,sans-serif;fill:#333}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:13px}
td,th{padding:2px 8px;border-bottom:1px solid #ddd;text-align:left}td.n{text-align:right}
.key span{margin-right:1em}
"""


def quality_page(cards: Sequence[Mapping[str, Any]], title: str) -> str:
    """Return the page: how many have which flag, a plot for each number, and what is wrong.

    Parameters
    ----------
    cards : sequence of dict
        Scorecards with flags, in the order of the plots.
    title : str
    """
    bad = [card for card in cards if int(card["flags"])]
    counts = Counter(name for card in bad for name in names(int(card["flags"])))
    bands = sorted({str(card.get("band") or "?") for card in cards}, key="ugrizy".find)
    key = "".join(
        f'<span style="color:{COLOURS.get(band, OTHER)}">● {escape(band)}</span>' for band in bands
    )
    plots = "".join(_plot(cards, name, label) for name, label in _PLOTS)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>{escape(title)}</h1><p>{len(cards)} images, {len(bad)} with a flag.</p>"
        f'<p class="key">{key} ○ flagged; lines: the limits of flags.</p>'
        f'<div class="plots">{plots}</div>'
        f"<h2>Flags</h2>{_flags(counts)}<h2>Images with a flag</h2>{_wrong(bad)}</body></html>\n"
    )


def _plot(cards: Sequence[Mapping[str, Any]], name: str, label: str) -> str:
    values = [float(card.get(name, np.nan)) for card in cards]
    if not np.isfinite(values).any():
        return ""
    checks = [check for check in CHECKS if check.number == name]
    limits = [v for check in checks for v in (check.least, check.most) if np.isfinite(v)]
    flags = 0
    for check in checks:
        flags |= int(check.flag)
    picture = scatter(
        values,
        [COLOURS.get(str(card.get("band")), OTHER) for card in cards],
        [any(c.flag.value & flags and not c.least <= v <= c.most for c in checks) for v in values],
        limits=limits,
        label=label,
    )
    return f"<figure>{picture}<figcaption>{escape(label)}</figcaption></figure>"


def _flags(counts: Mapping[str, int]) -> str:
    rows = []
    for check in CHECKS:
        limits = [
            f"{word} {value:g}"
            for word, value in (("below", check.least), ("above", check.most))
            if np.isfinite(value)
        ]
        name = check.flag.name or ""
        rows.append((name, counts.get(name, 0), check.number, " or ".join(limits), check.meaning))
    failed = ImageFlag.FAILED.name or ""
    rows.append((failed, counts.get(failed, 0), "", "", "It could not be subtracted or measured."))
    return table(("flag", "images", "number", "flagged", "meaning"), rows)


def _wrong(bad: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (str(card.get("image", "")), " ".join(names(int(card["flags"]))), " ".join(reasons(card)))
        for card in bad
    ]
    return table(("image", "flags", "why"), rows) if rows else "<p>None.</p>"

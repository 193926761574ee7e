"""A report on a module as one page that needs nothing beside it, and as JSON."""

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from broker.alerts.columns import CUTOUTS
from broker.errors import AlertError
from broker.imaging.cutout import decode_cutout
from broker.ops.svg import histogram, light_curve, png, table

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;color:#1c2430;background:#fff;max-width:1080px;
margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.25rem;margin-top:2.2rem;
border-bottom:1px solid #d5dbe3;padding-bottom:.2rem}h3{font-size:1.05rem;margin-top:1.6rem}
table{border-collapse:collapse;font-size:13.5px}td,th{padding:.25rem .7rem;text-align:left;
border-bottom:1px solid #e6eaf0;white-space:nowrap}th{color:#51607a;font-weight:600}
.n{text-align:right;font-variant-numeric:tabular-nums}.scroll{overflow-x:auto}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(310px,1fr));gap:1rem}
.card{border:1px solid #dfe4ec;border-radius:6px;padding:.7rem}.card p{margin:.2rem 0;
font-size:13px;color:#45526a}svg{width:100%;font:10px system-ui,sans-serif;fill:#333}
.cuts{display:flex;gap:.4rem}.cuts figure{margin:0;flex:1;text-align:center;font-size:11px;
color:#51607a}.cuts img{width:100%;image-rendering:pixelated;border:1px solid #ccd}
.good{color:#14713d}.bad{color:#b3261e;font-weight:600}dl{display:flex;flex-wrap:wrap;gap:1.6rem}
dt{font-size:12px;color:#51607a}dd{margin:0;font-size:1.2rem}
"""


def write_report(report: Mapping[str, Any], folder: Path) -> tuple[Path, Path]:
    """Write `<name>-report.html`, `.json` and a summary `.md`; return the first two.

    Parameters
    ----------
    report : mapping
        As `make_report` returns it.
    folder : Path
        Made if it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / f"{report['name']}-report.html"
    page.write_text(render_page(report), encoding="utf-8")
    data = folder / f"{report['name']}-report.json"
    data.write_text(json.dumps(plain_report(report), indent=1, allow_nan=False), encoding="utf-8")
    summary = folder / f"{report['name']}-report.md"
    summary.write_text(render_summary(report), encoding="utf-8")
    return page, data


def render_summary(report: Mapping[str, Any]) -> str:
    """Return the few figures that a reviewer sees first, in Markdown."""
    nights = ", ".join(report["nights"][:5])
    lines = [f"### `{report['name']}` on {report['alerts']:,} alerts of {nights}", ""]
    if report["topics"]:
        lines += ["| topic | passed | share | declared at most | |", "|---|---|---|---|---|"]
    for topic in report["topics"]:
        verdict = "" if topic["withinLimit"] else "**too many**"
        lines.append(
            f"| {topic['name']} | {topic['passed']} | {100 * topic['fraction']:.3g} % "
            f"| {100 * topic['maxPassFraction']:.3g} % | {verdict} |"
        )
    lines += ["", "| | ms an alert | MiB a batch | failures |", "|---|---|---|---|"]
    for one in (*report["modules"], *report["topics"]):
        cost = (one["cost"].get(key) for key in ("medianMs", "peakMb"))
        figures = " | ".join("–" if value is None else f"{value:.3g}" for value in cost)
        lines.append(f"| {one['name']} | {figures} | {'; '.join(one['failures']) or 'none'} |")
    changed = [one for one in report["differences"] if one["differ"]]
    if report["against"]:
        lines += ["", f"Against {report['against']}: " + (
            ", ".join(f"{one['column']} differs for {one['differ']}" for one in changed)
            or "no alert differs"
        )]  # fmt: skip
    return "\n".join(lines) + "\n"


def plain_report(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report as JSON has it: examples by their ids alone, null for NaN."""
    examples = {
        name: [{key: row[key][0].as_py() for key in ("survey", "diaSourceId")} for row in rows]
        for name, rows in report["examples"].items()
    }
    plain: dict[str, Any] = _plain({**report, "examples": examples})
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def render_page(report: Mapping[str, Any]) -> str:
    """Return the page of a report."""
    name = escape(report["name"])
    parts = [f"<h1>{name} on past alerts</h1>", _summary(report)]
    for topic in report["topics"]:
        parts.append(f"<h2>Topic {escape(topic['name'])}</h2><p>{escape(topic['doc'])}</p>")
        parts += _topic(topic)
        parts += _examples(report["examples"].get(topic["name"], []))
    for module in report["modules"]:
        label = f"{module['name']} {module['version']}"
        parts.append(f"<h2>Module {escape(label)}</h2><p>{escape(module['doc'])}</p>")
        parts += [_failures(module), _cost(module["cost"]), *_outputs(module["outputs"])]
        if not report["topics"]:  # those that the topics chose are shown there
            parts += _examples(report["examples"].get(module["name"], []))
    if report["against"]:
        parts += _differences(report)
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{name} on past alerts</title><style>{_STYLE}</style></head><body>"
    )
    return head + "\n".join(parts) + "</body></html>\n"


def _figures(values: Sequence[tuple[str, str]]) -> str:
    terms = "".join(f"<div><dt>{escape(k)}</dt><dd>{v}</dd></div>" for k, v in values)
    return f"<dl>{terms}</dl>"


def _summary(report: Mapping[str, Any]) -> str:
    nights = report["nights"]
    span = nights[0] if len(nights) == 1 else f"{nights[0]} – {nights[-1]} ({len(nights)} nights)"
    return _figures(
        [
            ("alerts", f"{report['alerts']:,}"),
            ("nights", escape(span)),
            ("packets that could not be read", str(report["unreadable"])),
            ("repeated packets", str(report["repeats"])),
            ("history entries dated later, cut", str(report["laterEntriesCut"])),
        ]
    ) + (
        "<p>Each alert was judged with what its own packet held: its history ends with itself, "
        "and nothing that came later was seen.</p>"
    )


def _topic(topic: Mapping[str, Any]) -> Iterator[str]:
    mark = "good" if topic["withinLimit"] else "bad"
    limit = f"{100 * topic['maxPassFraction']:.3g} %"
    yield _figures(
        [
            ("passed", f"{topic['passed']:,}"),
            ("of all alerts", f'<span class="{mark}">{100 * topic["fraction"]:.3g} %</span>'),
            ("declared at most", limit),
        ]
    )
    if not topic["withinLimit"]:
        yield f'<p class="bad">It passes more than the {limit} that it declares.</p>'
    yield _failures(topic)
    yield _cost(topic["cost"])
    rows = [(n["night"], n["alerts"], n["passed"], n["fraction"]) for n in topic["nights"]]
    yield "<h3>Night by night</h3>" + table(("night", "alerts", "passed", "share"), rows)
    others = [
        (o["topic"], o["passed"], o["both"], o["shareOfThis"], o["shareOfThat"])
        for o in topic["overlap"]
    ]
    yield "<h3>Shared with other topics</h3>" + table(
        ("topic", "it passed", "both", "share of this topic", "share of that topic"), others
    )


def _failures(about: Mapping[str, Any]) -> str:
    if not about["failures"]:
        return '<p class="good">No batch failed.</p>'
    rows = [(reason, n) for reason, n in about["failures"].items()]
    return '<p class="bad">It failed:</p>' + table(("reason", "alerts"), rows)


_COSTS = (
    ("medianMs", "ms an alert, median of batches"),
    ("p99Ms", "ms an alert, 99th percentile of batches"),
    ("aloneMedianMs", "ms for an alert alone, median"),
    ("aloneP99Ms", "ms for an alert alone, 99th percentile"),
    ("peakMb", "MiB for a batch of up to 500"),
    ("firstCallS", "s for the first call"),
)


def _cost(cost: Mapping[str, Any]) -> str:
    known = [(words, f"{cost[key]:.3g}") for key, words in _COSTS if cost.get(key) is not None]
    return "<h3>Cost</h3>" + (_figures(known) if known else "<p>It never ran.</p>")


def _outputs(outputs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield '<h3>Outputs</h3><div class="grid">'
    for about in outputs:
        unit = f" [{about['unit']}]" if about["unit"] else ""
        share = 100.0 * about["null"] / max(about["alerts"], 1)
        yield f'<div class="card"><b>{escape(about["name"])}</b><p>{escape(about["doc"])}</p>'
        if "histogram" in about:
            shape = about["histogram"]
            yield histogram(shape["edges"], shape["counts"], about["name"] + unit)
            low, a, middle, b, high = about["quantiles"]
            yield f"<p>median {middle:.4g} (16–84 %: {a:.4g} to {b:.4g}; "
            yield f"all: {low:.4g} to {high:.4g})</p>"
        elif about.get("counts"):
            yield table(("value", "alerts"), about["counts"])
        yield f"<p>null for {about['null']:,} alerts ({share:.3g} %)</p></div>"
    yield "</div>"


def _examples(rows: Sequence[pa.Table]) -> Iterator[str]:
    if not rows:
        yield "<h3>Examples</h3><p>No alert was chosen.</p>"
        return
    yield '<h3>Examples</h3><div class="grid">'
    for row in rows:
        alert = row.to_pylist()[0]
        yield f'<div class="card"><b>{escape(alert["survey"])} {escape(alert["diaSourceId"])}</b>'
        yield (
            f"<p>ra {alert['ra']:.5f}, dec {alert['dec']:+.5f} deg · "
            f"{escape(str(alert['band']))} · "
            f"S/N {alert['snr']:.1f} · {alert['nDiaSources'] or 0} detections</p>"
        )
        if alert["history"]:
            yield light_curve(alert["history"])
        yield f'<div class="cuts">{"".join(_cutouts(alert))}</div>'
        values = {name: value for name, value in alert.items() if "@" in name}
        shown = [f"{n.partition(':')[2]} {_short(v)}" for n, v in list(values.items())[:8]]
        yield f"<p>{escape(' · '.join(shown))}</p></div>"
    yield "</div>"


def _short(value: Any) -> str:
    if value is None:
        return "null"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cutouts(alert: Mapping[str, Any]) -> Iterator[str]:
    for name in CUTOUTS:
        words = name.removeprefix("cutout").lower()
        try:
            image = decode_cutout(alert[name]) if alert[name] else None
        except AlertError:
            image = None
        if image is not None:
            yield f'<figure><img alt="{words}" src="{png(image)}">{words}</figure>'


def _differences(report: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h2>Against {escape(report['against'])}</h2>"
    found = report["differences"]
    if not found:
        yield "<p>The two have no column or topic in common.</p>"
        return
    rows = [(one["column"], one["differ"], one["alerts"], one["largest"]) for one in found]
    yield table(("column", "alerts that differ", "of", "largest difference"), rows)
    for one in found:
        if one["listed"]:
            lines = [(d["survey"], d["diaSourceId"], d["before"], d["now"]) for d in one["listed"]]
            more = f", the first {len(lines)}" if one["differ"] > len(lines) else ""
            yield f"<details><summary>{escape(one['column'])}{more}</summary>"
            yield table(("survey", "diaSourceId", "before", "now"), lines) + "</details>"

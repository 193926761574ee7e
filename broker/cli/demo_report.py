"""The demo's one screen: gathered from topics, tables and truth, then printed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from broker.config import Config
from broker.ops.accounts import ALERTS_QUERY, accounts_of
from broker.ops.night_report import (
    Marks,
    NightReport,
    latencies,
    marks_of,
    new_since,
    percentiles,
    rates,
    requirements_of,
    score_night,
    sources_of,
)
from broker.science.installed import installed
from broker.store.alerts import AlertStore
from broker.store.ledger import Ledger
from broker.store.table import Tables
from broker.topics.topic import Topics
from broker.types import IMAGES


@dataclass(frozen=True)
class DemoReport:
    """A night's report, with what was sent beside its images."""

    night: NightReport
    sent: Mapping[str, int]

    def as_json(self) -> dict[str, Any]:
        """Return it by wire names."""
        night = self.night
        return {
            "night": night.night,
            "counts": night.counts,
            "sent": dict(self.sent),
            "topics": night.topics,
            "completeness": [
                {"snrLow": b.low, "snrHigh": b.high, "true": b.true, "found": b.found}
                for b in night.scores.bins
            ],
            "purity": night.scores.purity,
            "astrometricRmsMas": night.scores.astrometric_mas,
            "photometricRmsMmag": night.scores.photometric_mmag,
            "latencyP50S": night.latency_s[0],
            "latencyP95S": night.latency_s[1],
            "alertsPerS": night.alerts_per_s,
            "megabytesPerS": night.megabytes_per_s,
            "seconds": night.seconds,
            "ledger": {
                "rows": [row.as_json() for row in night.accounts.rows],
                "total": night.accounts.total.as_json(),
            },
            "requirements": [
                {"name": r.name, "value": r.value, "wanted": r.wanted, "isMet": r.is_met}
                for r in night.requirements
            ],
            "isGood": night.is_good,
            "picture": str(night.picture) if night.picture else None,
        }


def _names(config: Config) -> list[str]:
    run = config.the_run
    filters = installed(config).topics
    return [run.public_topic(topic, "slim") for topic in filters]


def take_marks(config: Config, topics: Topics) -> dict[tuple[str, int], int]:
    """Return where the run's topics end before a night."""
    run = config.the_run
    surveys = [run.alerts_topic(survey) for survey in ("sim", "ztf", "lsst")]
    return marks_of(topics, [*surveys, run.internal_topic(IMAGES), *_names(config)])


def make_report(
    config: Config,
    topics: Topics,
    tables: Tables,
    marks: Marks,
    simulated: Mapping[str, Any],
    summary: Mapping[str, Any],
    sent: Mapping[str, int],
) -> DemoReport:
    """Gather the figures of the night that has just been streamed."""
    run = config.the_run
    sources, published = sources_of(topics, run, marks)
    counts, spans = latencies(topics, _names(config), marks, published)
    accounts = accounts_of(topics, tables, run)
    scores = score_night(sources, config.run_path("truth") / f"{simulated['night']}.parquet")
    done = summary["queries"]
    number = done["alerts"]["batches"]
    batches = Ledger(tables, run).batches(ALERTS_QUERY)[-number:] if number else []
    megabytes = _megabytes(config, topics, marks)
    per_s = rates(batches, megabytes)
    stored = sum(batch.counts.get("stored", 0) for batch in batches)
    dead = sum(batch.counts.get("deadLetters", 0) for batch in batches)
    night = NightReport(
        night=simulated["night"],
        counts={
            "images": simulated["images"],
            "alerts": sources.num_rows,
            "packets": done["alerts"]["messages"],
            "stored": stored,
            "deadLetters": dead,
        },
        topics=counts,
        scores=scores,
        latency_s=percentiles(spans),
        alerts_per_s=per_s[0],
        megabytes_per_s=per_s[1],
        seconds=summary["seconds"],
        accounts=accounts,
        requirements=requirements_of(scores, accounts),
    )
    picture = draw_best(config, topics, tables, sources)
    return DemoReport(replace(night, picture=picture), sent)


def _megabytes(config: Config, topics: Topics, marks: Marks) -> float:
    """Return the size of the new messages of the alert topics. [MB]"""
    size = 0
    for survey in ("sim", "ztf", "lsst"):
        for message in new_since(topics, config.the_run.alerts_topic(survey), marks):
            size += len(message.value or b"")
    return size / 1e6


def draw_best(config: Config, topics: Topics, tables: Tables, sources: pa.Table) -> Path | None:
    """Draw the object that was seen most often, brightest first; None if there is none."""
    from broker.archive import Archive
    from broker.ops.packets import cutouts_of, find_packet
    from broker.ops.pictures import draw_object

    if sources.num_rows == 0:
        return None
    frame = sources.to_pandas()
    frame = frame[(frame.reliability > 0.9) & (frame.psfFlux > 0)]
    if frame.empty:
        return None
    ranked = frame.groupby("diaObjectId").agg(n=("snr", "size"), snr=("snr", "median"))
    best = ranked[ranked.n >= ranked.n.max() - 1].snr.idxmax()
    alerts = AlertStore(tables, config.the_run).object("sim", str(best))
    brightest = max(alerts, key=lambda alert: float(alert["snr"] or 0.0))
    packet = find_packet(Archive(config.archive_path, config.the_run), topics, brightest)
    cutouts = cutouts_of("sim", packet) if packet is not None else {}
    path = config.home / "pictures" / f"{config.run}-{best}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    words = f"{best}  ra {brightest['ra']:.5f}  dec {brightest['dec']:+.5f}"
    draw_object(alerts, cutouts, path, title=words)
    return path


def print_report(report: DemoReport, config: Config) -> None:
    """Print the one screen."""
    night = report.night
    console = Console(width=None if Console().is_terminal else 100)
    console.rule(f"Night {night.night}, run {config.run}")
    counts = night.counts
    others = ", ".join(f"{n} of {survey}" for survey, n in report.sent.items())
    console.print(
        f"{counts['images']} images → {counts['alerts']} alerts; with {others}: "
        f"{counts['packets']} packets in, {counts['stored']} rows stored, "
        f"{counts['deadLetters']} dead letters"
    )
    _print_topics(console, night)
    _print_completeness(console, night)
    console.print(
        f"Residuals above S/N 20: {night.scores.astrometric_mas:.1f} mas a coordinate, "
        f"{night.scores.photometric_mmag:.1f} mmag"
    )
    p50, p95 = night.latency_s
    console.print(
        f"Image published to topic: p50 {p50:.1f} s, p95 {p95:.1f} s; alerts query "
        f"{night.alerts_per_s:.0f} alerts/s, {night.megabytes_per_s:.1f} MB/s while it worked; "
        f"{night.seconds:.0f} s in all"
    )
    _print_ledger(console, night)
    _print_requirements(console, night)
    if night.picture:
        console.print(f"Picture: {night.picture}", soft_wrap=True)
    chosen = "" if config.the_run.is_live else f"--run {config.run} "
    console.print(
        f"In a browser: broker {chosen}serve, then http://{config.serve.host}:{config.serve.port}/",
        soft_wrap=True,
    )


def _print_topics(console: Console, night: NightReport) -> None:
    table = Table("topic", "packets")
    for name, number in sorted(night.topics.items()):
        table.add_row(name, str(number))
    _print_titled(console, "Topics", table)


def _print_completeness(console: Console, night: NightReport) -> None:
    title = f"Against the truth (purity after the cut {night.scores.purity:.3f})"
    table = Table("S/N", "true", "found", "completeness")
    for b in night.scores.bins:
        high = f"{b.high:g}" if np.isfinite(b.high) else "∞"
        share = f"{b.completeness:.3f}" if b.true else "–"
        table.add_row(f"{b.low:g}–{high}", str(b.true), str(b.found), share)
    _print_titled(console, title, table)


def _print_ledger(console: Console, night: NightReport) -> None:
    names = ("topic", "consumed", "stored", "duplicates", "deadLetters", "noTemplate", "missing")
    words = "closes" if night.accounts.is_closed else "DOES NOT CLOSE"
    table = Table()
    for name in names:
        # Names of topics differ at their ends.
        table.add_column(name, overflow="fold", no_wrap=name != "topic")
    for row in night.accounts.rows:
        values = row.as_json()
        table.add_row(*(str(values[name]) for name in names))
    _print_titled(console, f"Ledger: {words}", table)


def _print_requirements(console: Console, night: NightReport) -> None:
    table = Table("", "measured", "required", "")
    for r in night.requirements:
        mark = "[green]ok[/green]" if r.is_met else "[red]FAILED[/red]"
        table.add_row(r.name, f"{r.value:.4g}", r.wanted, mark)
    _print_titled(console, "Requirements", table)


def _print_titled(console: Console, title: str, table: Table) -> None:
    """Print a table below its title; a table's own title is no wider than the table."""
    console.print(title, style="italic")
    console.print(table)

"""`broker bench`: speed and memory, as ratios to a baseline of the same run."""

import dataclasses
import sys
from collections.abc import Mapping
from contextlib import ExitStack, closing
from typing import Any

import click

from broker.cli.assemble import make_tables, make_topics
from broker.cli.bench_catalog import catalog
from broker.cli.bench_client import client
from broker.cli.bench_faults import faults, fuzz, soak
from broker.cli.bench_science import science
from broker.cli.bench_serve import serve
from broker.cli.bench_sizing import sizing
from broker.cli.main import load
from broker.cli.output import BAD_DATA, emit_findings, emit_json, emit_rows, json_option
from broker.config import Config
from broker.topics.topic import Topics

_LEAST_RATIO, _LEAST_LSST_PER_S = 0.2, 280.0
_LATENCY_P50_S, _LATENCY_P95_S = 2.5, 5.0
_MOST_MEMORY_MB = 8 * 1024.0
_LEAST_DETECTION_RATIO = 6.0


@click.group()
def command() -> None:
    """Measure speed and memory; exit code 20 where something falls short.

    Example: broker bench stream --survey ztf
    """


command.add_command(faults)
command.add_command(fuzz)
command.add_command(soak)
command.add_command(science)
command.add_command(serve)
command.add_command(client)
command.add_command(sizing)


@command.command()
@click.option(
    "--survey",
    type=click.Choice(["ztf", "lsst"]),
    default="ztf",
    show_default=True,
    help="Whose packets; those of lsst have full histories.",
)
@click.option("-n", "alerts", type=click.IntRange(500), help="Packets; default 20000, lsst 6000.")
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="Measured passes of each kind, after one that warms up.",
)
@click.option("--latency/--no-latency", default=True, help="Measure latency at 100 alerts/s too.")
@click.option("--transactions", is_flag=True, help="Measure what Kafka's transactions cost, too.")
@click.option("--secure", is_flag=True, help="And what a Kafka with users costs; it is started.")
@json_option
@click.pass_context
def stream(
    ctx: click.Context, survey: str, alerts: int | None, rounds: int, latency: bool,
    transactions: bool, secure: bool, as_json: bool,
) -> None:  # fmt: skip
    """Drain waiting packets through queries 2 and 3, against reading and decoding alone.

    With the modules and filters installed, a reference catalogue of a million rows, HBase and the
    archive written. Kafka, HBase and Spark share this machine.

    Example: broker bench stream --survey ztf -n 20000
    """
    from broker.local.stack import up
    from broker.ops.bench_latency import bench_latency
    from broker.ops.bench_stream import bench_stream

    config = load(ctx)
    number = alerts or (20_000 if survey == "ztf" else 6_000)
    up(config)
    with ExitStack() as stack:
        topics = stack.enter_context(closing(make_topics(config)))
        tables = stack.enter_context(closing(make_tables(config)))
        guarded = _guarded(config, stack) if secure else None
        found = bench_stream(
            config, topics, tables, survey=survey, alerts=number, rounds=rounds,
            transactions=transactions, guarded=guarded, say=_say,
        )  # fmt: skip
        spans = bench_latency(config, topics, tables, say=_say) if latency else None
    rows = [*_rate_rows(found), *_cost_rows(found), *_latency_rows(spans), _memory_row(found)]
    parts = _part_rows(found)
    if as_json:
        emit_json({"bench": dataclasses.asdict(found), "rows": rows, "parts": parts})
    else:
        emit_rows(rows, ("what", "measured", "required", "isMet"), as_json=False)
        emit_rows(parts, ("kind", "part", "value", "unit"), as_json=False)
    if not all(row["isMet"] for row in rows if row["isMet"] is not None):
        sys.exit(BAD_DATA)


def _guarded(config: Config, stack: ExitStack) -> tuple[Config, Topics]:
    """Start a Kafka with users until the stack ends; return its settings and topics."""
    from broker.local.guarded import guarded_kafka

    found = stack.enter_context(guarded_kafka(config))
    return found, stack.enter_context(closing(make_topics(found)))


def _say(words: str) -> None:
    click.echo(words, err=True)


def _row(what: str, measured: float, required: str, is_met: bool | None) -> dict[str, Any]:
    return {"what": what, "measured": measured, "required": required, "isMet": is_met}


def _rate_rows(found: Any) -> list[dict[str, Any]]:
    rows = [
        _row(f"{found.survey} packets", found.alerts, f"mean {found.kilobytes:.0f} kB", None),
        _row("read and decode, alerts/s", found.baseline_per_s, "the baseline", None),
    ]
    if found.survey == "lsst":
        enough = found.full_per_s >= _LEAST_LSST_PER_S
        return [*rows, _row("whole path, alerts/s", found.full_per_s, ">= 280", enough)]
    enough = found.ratio >= _LEAST_RATIO
    return [
        *rows,
        _row("whole path, alerts/s", found.full_per_s, "", None),
        _row("whole path / baseline", found.ratio, ">= 0.2", enough),
    ]


def _cost_rows(found: Any) -> list[dict[str, Any]]:
    rows = []
    for name, drains in (
        ("in transactions", found.transacted),
        ("with users and TLS", found.guarded),
    ):
        if drains:
            seconds, spent = found.cost(drains)
            rows.append(_row(f"{name}, time / without", seconds, "", None))
            rows.append(_row(f"{name}, processor time / without", spent, "", None))
    return rows


def _latency_rows(spans: tuple[float, float, int] | None) -> list[dict[str, Any]]:
    if spans is None:
        return []
    p50, p95, _ = spans
    return [
        _row("latency at 100/s, p50 [s]", p50, "< 2.5", p50 < _LATENCY_P50_S),
        _row("latency at 100/s, p95 [s]", p95, "< 5", p95 < _LATENCY_P95_S),
    ]


def _memory_row(found: Any) -> dict[str, Any]:
    total = sum(found.pss_mb.values())
    return _row("memory of the whole stack [MB]", total, "<= 8192", total <= _MOST_MEMORY_MB)


def _part_rows(found: Any) -> list[dict[str, Any]]:
    def rows(kind: str, values: Mapping[str, float], unit: str) -> list[dict[str, Any]]:
        return [{"kind": kind, "part": k, "value": v, "unit": unit} for k, v in values.items()]

    return [
        *rows("processor, whole path", found.full[-1].core_ms, "core-ms/alert"),
        *rows("processor, baseline", found.baseline[-1].core_ms, "core-ms/alert"),
        *rows("time in stages", found.stages_ms, "ms/alert"),
        *rows("memory", found.pss_mb, "MB"),
    ]


@command.command()
@json_option
def detection(as_json: bool) -> None:
    """Compare the detection kernel with sep, on the same image at the same completeness.

    Needs sep, which the test extra brings.

    Example: broker bench detection
    """
    from broker.detection.bench import bench_detection

    found = bench_detection()
    rows = [{"what": name, "measured": value} for name, value in found.items()]
    if as_json:
        emit_json(found)
    else:
        emit_rows(rows, ("what", "measured"), as_json=False)
    if found["ratio"] < _LEAST_DETECTION_RATIO:
        sys.exit(BAD_DATA)


command.add_command(catalog)


@command.command()
@click.option(
    "--side",
    type=click.IntRange(512, 4096),
    default=2048,
    show_default=True,
    help="Side of the images [pixel].",
)
@click.option(
    "--repeats",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Measured passes of each step, after one that warms up.",
)
@click.option("--only", multiple=True, metavar="STEP", help="Only this step; may be repeated.")
@json_option
def image(side: int, repeats: int, only: tuple[str, ...], as_json: bool) -> None:
    """Measure the image steps, each beside a known program, on one core.

    Times are processor time. Needs the programs to compare with, which the test extra brings. The
    last step starts Kafka and HBase for itself where none answer.

    Example: broker bench image --side 1024 --only detection
    """
    from broker.ops.image_bench import bench_image

    found = bench_image(side=side, repeats=repeats, only=only, say=_say)
    emit_findings(found, as_json=as_json)

"""`broker batch tracklets`: what moved in a night."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from broker.cli.assemble import tables_of
from broker.cli.main import load
from broker.cli.output import emit_json, emit_rows, json_option
from broker.errors import AlertError

if TYPE_CHECKING:
    from broker.ops.tracklets import TrackletScores

_SHOWN = ("trackletId", "nDetections", "midpointMjdTai", "ra", "dec", "rate", "positionAngle",
          "chi2PerDof", "chance", "ssObjectId")  # fmt: skip


@click.command()
@click.option("--night", required=True, help="YYYYMMDD.")
@click.option("--survey", default="sim", show_default=True, help="Whose alerts.")
@click.option("--max-rate", type=click.FloatRange(0.0, 30.0, min_open=True), default=1.0,
              show_default=True, help="Fastest motion. [deg/d]")  # fmt: skip
@click.option("--max-span", type=click.FloatRange(0.0, 1.0, min_open=True), default=0.4,
              show_default=True, help="From first to last detection at most. [d]")  # fmt: skip
@click.option("--max-chance", type=click.FloatRange(0.0, min_open=True), default=0.1,
              show_default=True,
              help="Keep those of which chance makes at most so many in the night.")  # fmt: skip
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="A Parquet file.")
@click.option("--truth", "compare", is_flag=True,
              help="Compare with what was put into a simulated night.")  # fmt: skip
@json_option
@click.pass_context
def tracklets(
    ctx: click.Context, night: str, survey: str, max_rate: float, max_span: float,
    max_chance: float, out: Path | None, compare: bool, as_json: bool,
) -> None:  # fmt: skip
    """Link the alerts of a night that may move into tracklets: detections on one straight way.

    Those at places where something was an hour before or after are left out. For every tracklet
    it is said how many like it chance makes; those above --max-chance are left out, so that
    pairs count only where the sky is empty enough. With --truth, completeness and purity.

    Example: broker batch tracklets --night 20261120 --out tracklets.parquet
    """
    import pyarrow.parquet as pq

    from broker.detection.tracklets import Limits, find_tracklets
    from broker.ops.tracklets import candidates, score_tracklets, tracklet_table
    from broker.store.alerts import AlertStore

    config = load(ctx)
    truth = config.run_path("truth") / f"{night}.parquet"
    if compare and not truth.exists():
        raise AlertError(f"there is no truth of night {night} in run {config.run}: {truth}")
    with tables_of(ctx) as tables:
        among = candidates(AlertStore(tables, config.the_run).night(night), survey)
    if not among.alerts:
        raise AlertError(f"run {config.run} has no alerts of survey {survey} in night {night}")
    limits = Limits(max_rate=max_rate, max_span_days=max_span, max_chance=max_chance)
    found = find_tracklets(among.detections, limits)
    table = tracklet_table(found, among)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, out, compression="zstd")
    scores = None
    if compare:
        scores = score_tracklets(found, among, pq.read_table(truth), max_rate=max_rate)
    rows = table.to_pylist()
    if as_json:
        about = {"alerts": among.alerts, "candidates": len(among.dia_source_ids)}
        emit_json(about | {"tracklets": rows, "scores": _scores(scores)})
        return
    emit_rows(rows, _SHOWN, as_json=False)
    linked = sum(row["nDetections"] for row in rows)
    click.echo(
        f"{len(rows)} tracklets link {linked} of {len(among.dia_source_ids)} candidates, of "
        f"{among.alerts} alerts",
        err=True,
    )
    if scores is not None:
        emit_rows([_scores(scores) or {}], tuple(_scores(scores) or {}), as_json=False)


def _scores(scores: "TrackletScores | None") -> dict[str, Any] | None:
    """Return completeness and purity by name."""
    if scores is None:
        return None
    return {
        "movers": scores.movers,
        "linked": scores.linked,
        "completeness": scores.completeness,
        "faster": scores.faster,
        "tracklets": scores.tracklets,
        "purity": scores.purity,
        "theirDetections": scores.detections,
        "linkedDetections": scores.linked_detections,
        "otherCandidates": scores.others,
    }

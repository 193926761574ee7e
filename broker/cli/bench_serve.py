"""`broker bench serve`."""

import click

from broker.cli.assemble import make_tables, make_topics
from broker.cli.main import load
from broker.cli.output import emit_findings, json_option
from broker.cli.serve import CONNECTIONS


@click.command()
@click.option(
    "--alerts",
    type=click.IntRange(20_000),
    default=1_000_000,
    show_default=True,
    help="How many HBase has, written first.",
)
@click.option(
    "--users", type=click.IntRange(1), default=100, show_default=True, help="Who ask at once."
)
@click.option(
    "--stream/--no-stream", "beside", default=True, help="Also measure what serving costs a stream."
)
@click.option(
    "--survey",
    type=click.Choice(["ztf", "lsst"]),
    default="ztf",
    show_default=True,
    help="Whose packets are in that stream.",
)
@click.option(
    "--asks",
    type=click.FloatRange(1.0),
    default=20.0,
    show_default=True,
    help="Requests a second beside the stream.",
)
@click.option("--keep", is_flag=True, help="Leave the alerts there, for the next time.")
@json_option
@click.pass_context
def serve(
    ctx: click.Context, alerts: int, users: int, beside: bool, survey: str, asks: float,
    keep: bool, as_json: bool,
) -> None:  # fmt: skip
    """Measure how fast the API answers from HBase, beside a plain read of HBase.

    Writes made-up alerts into tables of their own (run bench-serve-N) and serves them. Then lets
    queries 2 and 3 take 280 alerts a second, without and with users who ask.

    Example: broker bench serve --alerts 20000
    """
    from broker.local.stack import up
    from broker.ops.serve_bench import Pace, bench_serve
    from broker.store.tables import drop_tables
    from broker.types import Run

    config, run = load(ctx), Run(f"bench-serve-{alerts}")
    up(config, names=("kafka", "hbase", "thrift"))
    topics, tables = make_topics(config), make_tables(config, connections=CONNECTIONS)
    try:
        found = bench_serve(
            config, topics, tables, run, alerts=alerts, users=users,
            pace=Pace(survey, asks_per_s=asks) if beside else None,
            say=lambda words: click.echo(words, err=True),
        )  # fmt: skip
    finally:
        if not keep:
            drop_tables(tables, run)
            topics.delete(run.alerts_topic("lsst"))
        topics.close()
        tables.close()
    emit_findings(found, as_json=as_json)

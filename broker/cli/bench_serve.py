"""`broker bench serve`."""

import click

from broker.cli.assemble import make_tables
from broker.cli.main import load
from broker.cli.output import emit_findings, json_option


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
@click.option("--keep", is_flag=True, help="Leave the alerts there, for the next time.")
@json_option
@click.pass_context
def serve(ctx: click.Context, alerts: int, users: int, keep: bool, as_json: bool) -> None:
    """Measure how fast the API answers from HBase, beside a plain read of HBase.

    Writes made-up alerts into tables of their own (run bench-serve-N) and serves them.

    Example: broker bench serve --alerts 20000
    """
    from broker.local.stack import up
    from broker.ops.bench_serve import bench_serve
    from broker.store.tables import drop_tables
    from broker.types import Run

    config, run = load(ctx), Run(f"bench-serve-{alerts}")
    up(config, names=("kafka", "hbase", "thrift"))
    tables = make_tables(config)
    try:
        found = bench_serve(
            config,
            tables,
            run,
            alerts=alerts,
            users=users,
            say=lambda words: click.echo(words, err=True),
        )
    finally:
        if not keep:
            drop_tables(tables, run)
        tables.close()
    emit_findings(found, as_json=as_json)

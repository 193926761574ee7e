"""`broker metrics`: the numbers that Prometheus reads."""

from contextlib import closing

import click

from broker.cli.assemble import make_tables, make_topics
from broker.cli.main import load


@click.command()
@click.pass_context
def command(ctx: click.Context) -> None:
    """Print the metrics of a run, as Prometheus reads them.

    The same is at the address /metrics of `broker serve`.

    Example: broker metrics
    """
    from broker.ops.metrics import Metrics

    config = load(ctx)
    with closing(make_topics(config)) as topics, closing(make_tables(config)) as tables:
        metrics = Metrics(config.the_run, topics=topics, tables=tables, folder=config.home)
        click.echo(metrics.page(), nl=False)

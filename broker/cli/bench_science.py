"""`broker bench science`."""

import click

from broker.cli.output import emit_findings, json_option


@click.command()
@click.option(
    "-n", "alerts", type=click.IntRange(100), default=4000, show_default=True, help="Packets."
)
@click.option(
    "--batch",
    type=click.IntRange(50),
    default=500,
    show_default=True,
    help="Alerts in a batch, as the stream has them.",
)
@click.option(
    "--turns",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Measured passes of each kind, after one that warms up.",
)
@click.option("--without", multiple=True, metavar="NAME", help="Leave this module or topic out.")
@json_option
def science(alerts: int, batch: int, turns: int, without: tuple[str, ...], as_json: bool) -> None:
    """Measure all modules with 30 filters, the runner's overhead, one filter more, and watchlists.

    On one core, in processor time, on simulated packets of ZTF's form. Beside each module that
    has one stands Fink's published rate for the same purpose.

    Example: broker bench science -n 2000
    """
    from broker.ops.bench_science import bench_science
    from broker.ops.bench_watchlists import bench_watchlists

    size = {"alerts": alerts, "batch": batch, "turns": turns}

    def say(words: str) -> None:
        click.echo(words, err=True)

    found = bench_science(**size, without=frozenset(without), say=say)
    found += bench_watchlists(**size, say=say)
    emit_findings(found, as_json=as_json)

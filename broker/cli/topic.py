"""`broker topic`: what topics there are, and what is on them."""

from pathlib import Path

import click

from broker.cli.assemble import topics_of
from broker.cli.main import load
from broker.cli.output import emit_json, emit_rows, json_option
from broker.cli.topic_notes import deprecate, show
from broker.cli.topic_packets import lag, read
from broker.cli.topic_share import check, status


@click.group()
def command() -> None:
    """List topics and read packets from them.

    Example: broker topic read young-supernova --from earliest --limit 3
    """


command.add_command(check)
command.add_command(status)
command.add_command(read)
command.add_command(lag)
command.add_command(show)
command.add_command(deprecate)


@command.command("list")
@click.option("--all", "show_all", is_flag=True, help="Input and internal topics too.")
@json_option
@click.pass_context
def list_topics(ctx: click.Context, show_all: bool, as_json: bool) -> None:
    """List the topics of this run, with the messages each one holds.

    Example: broker topic list
    """
    run = load(ctx).the_run
    prefix = "public." if run.is_live else f"run.{run.name}."
    rows = []
    with topics_of(ctx) as topics:
        for name in topics.names():
            is_public = name.startswith(prefix) and name.endswith((".slim", ".full"))
            if is_public or (show_all and (run.is_live or name.startswith(prefix))):
                ranges = topics.ranges(name)
                held = sum(part.end - part.first for part in ranges)
                rows.append({"topic": name, "partitions": len(ranges), "messages": held})
    emit_rows(rows, ("topic", "partitions", "messages"), as_json=as_json)


@command.command()
@click.argument("name")
@click.option("--where", required=True, help="What chooses an alert: one expression over columns.")
@click.option("--doc", required=True, help="For whom the topic is, in one sentence.")
@click.option(
    "--max-pass",
    type=click.FloatRange(0.0, 1.0, min_open=True),
    default=0.01,
    show_default=True,
    help="Of a night's alerts it may choose at most this part.",
)
@click.option(
    "--on",
    "files",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Try it on packets in a file or folder; refused if more pass than --max-pass.",
)
@click.option("--dry-run", is_flag=True, help="Check it only.")
@json_option
@click.pass_context
def new(
    ctx: click.Context,
    name: str,
    where: str,
    doc: str,
    max_pass: float,
    files: tuple[Path, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make a topic NAME of the alerts for which an expression is true; no code is needed.

    It may use the columns of `broker module list` and of every alert, AND, OR, NOT, IN, BETWEEN,
    IS NULL, comparisons, arithmetic, abs, sqrt, log10, least, greatest. What is null is not
    true. Names, types and cost are checked now; the topic begins when query 2 is next started.

    Example: broker topic new bright-new --where "snr > 20 AND age_days < 2" --doc "For a test."
    """
    from broker.cli.module_alerts import read_alerts
    from broker.errors import ConfigError
    from broker.science.installed import installed
    from broker.science.user_filters import measure, store_user_filter, user_filter

    config = load(ctx)
    among = installed(config)
    if name in among.topics:
        raise ConfigError(f"there is a topic {name} already; take another name", topic=name)
    chosen = user_filter(
        name,
        where,
        doc=doc,
        max_pass_fraction=max_pass,
        among=among,
        file=str(config.filters_path / f"{name}.toml"),
    )
    alerts = read_alerts(files, config.catalog_path) if files else None
    tried = measure(chosen, among, alerts)
    if not dry_run:
        store_user_filter(chosen, config.filters_path)
    row = {
        "topic": name,
        "file": None if dry_run else chosen.file,
        "reads": list(chosen.inputs),
        "msPerAlert": tried.ms_per_alert,
        "passed": tried.passed if files else None,
        "alerts": tried.n_alerts if files else None,
    }
    if as_json:
        emit_json(row)
        return
    emit_rows([row], tuple(row), as_json=False)
    if not dry_run:
        click.echo("The topic begins when the query of alerts is next started.", err=True)

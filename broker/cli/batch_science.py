"""`broker batch reprocess`: archived nights once more through science modules."""

import dataclasses

import click

from broker.cli.assemble import tables_of
from broker.cli.main import load
from broker.cli.output import emit_json, emit_rows, json_option


@click.command()
@click.option("--night", "nights", multiple=True, required=True, help="YYYYMMDD; several.")
@click.option(
    "--modules", required=True, help="Names with commas; NAME@next is the version beside."
)
@click.option("--survey", "surveys", multiple=True, help="Only this survey's alerts; several.")
@json_option
@click.pass_context
def reprocess(
    ctx: click.Context, nights: tuple[str, ...], modules: str, surveys: tuple[str, ...],
    as_json: bool,
) -> None:  # fmt: skip
    """Run modules on archived nights, and add their outputs to the alerts that are stored.

    Each alert is judged by its own packet, as it was live. Outputs are kept under module and
    version, so those of other versions stay; doing it again changes nothing. Nothing is published.

    Example: broker batch reprocess --night 20261120 --modules rise_rate,decline
    """
    from broker.batch.reprocess import reprocess as run
    from broker.spark.session import make_session, stop_session

    config = load(ctx)
    with tables_of(ctx):
        session = make_session(config, "reprocess")
        try:
            names = [name.strip() for name in modules.split(",") if name.strip()]
            done = run(session, config, nights=nights, modules=names, surveys=surveys)
        finally:
            stop_session(session)
    if as_json:
        emit_json(dataclasses.asdict(done))
        return
    row = {
        "modules": ", ".join(done.modules),
        "packets": done.packets,
        "stored": done.stored,
        "notStored": done.not_stored,
        "unreadable": done.unreadable,
        "failed": "; ".join(f"{n}: {why}" for n, (_, why) in done.failures.items()),
    }
    emit_rows([row], tuple(row), as_json=False)

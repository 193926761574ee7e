"""`broker stream`: the Spark queries, and images once more."""

from typing import Any

import click

from broker.cli.main import load
from broker.cli.output import emit_json, emit_rows, json_option, progress

_QUERIES = {
    "images": "Make alerts from CCD images.",
    "alerts": "Run the science on alerts and fill the topics.",
    "archive": "Keep the raw packets as files.",
    "notices": "Join notices of events to the alerts.",
    "all": "Run the four queries in one process.",
}
_COUNTS = ("done", "failed", "no-template", "gone", "waited", "new", "retracted", "lifted")


@click.group()
def command() -> None:
    """Run one of the four queries, or all of them; process images once more.

    Example: broker stream all --until-idle
    """


def _query(name: str) -> click.Command:
    """Return the command that runs a query."""

    def work(ctx: click.Context, until_idle: bool, as_json: bool) -> None:
        from broker.streaming.query import QUERIES, run_queries

        chosen = QUERIES if name == "all" else (name,)
        summary = run_queries(load(ctx), chosen, until_idle=until_idle)
        if as_json:
            emit_json(summary)

    work.__doc__ = f"""{_QUERIES[name]}

    Stop with Ctrl-C: the batch in work is finished first.

    Example: broker stream {name} --until-idle
    """
    made: Any = click.pass_context(work)
    made = json_option(made)
    made = click.option("--until-idle", is_flag=True, help="End when all input is through.")(made)
    done: click.Command = click.command(name)(made)
    return done


for _name in _QUERIES:
    command.add_command(_query(_name))


@command.command()
@click.option("--visit", "visits", type=int, multiple=True, help="This one only; may be repeated.")
@click.option("--detector", "detectors", type=int, multiple=True, help="Likewise.")
@click.option("--night", default="", help="YYYYMMDD: the images of this night only.")
@click.option(
    "--again",
    is_flag=True,
    help="All images, also those that the newest templates were used for: after a new software.",
)
@json_option
@click.pass_context
def reprocess(
    ctx: click.Context,
    visits: tuple[int, ...],
    detectors: tuple[int, ...],
    night: str,
    again: bool,
    as_json: bool,
) -> None:
    """Process images once more with the newest templates; withdraw what is no longer found.

    Without options: the images that were done with older templates. What was missed becomes an
    alert, what is not found again is withdrawn (topic public.retractions), nothing is deleted.
    The images query must not run meanwhile. Exit code 20 if an image could not be processed.

    Example: broker stream reprocess --night 20251110
    """
    from broker.streaming.image_again import reprocess_run

    with progress("images") as advance:
        counts = reprocess_run(
            load(ctx),
            visits=visits,
            detectors=detectors,
            night=night,
            again=again,
            advance=advance,
        )
    whole = {name: counts.get(name, 0) for name in _COUNTS}
    if as_json:
        emit_json(whole)
    else:
        emit_rows([whole], _COUNTS, as_json=False)
    if whole["failed"] or whole["gone"] or whole["no-template"]:
        ctx.exit(20)

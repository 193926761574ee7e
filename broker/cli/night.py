"""`broker night`: what happened in a night, told in the morning."""

import sys

import click

from broker.cli.assemble import tables_of, topics_of
from broker.cli.ledger import is_night
from broker.cli.main import load
from broker.cli.output import BAD_DATA, emit_json, json_option


@click.group()
def command() -> None:
    """Look back on a night of a run.

    Example: broker night report --night 20261120
    """


@command.command()
@click.option("--night", required=True, help="The night (YYYYMMDD), from its noon to the next.")
@click.option(
    "--to",
    "addresses",
    multiple=True,
    metavar="ADDRESS",
    help="Send it there as well: an address of mail, or one (http, https) that JSON is posted to.",
)
@json_option
@click.pass_context
def report(ctx: click.Context, night: str, addresses: tuple[str, ...], as_json: bool) -> None:
    """Report a night: messages, latency, topics, dead letters, modules, and the ledger.

    Mail goes the way that the settings under `push` say. Run it from a timer every morning. Exit
    code 20 if a message is not in exactly one place; the report is sent all the same.

    Example: broker night report --night 20261120 --to operators@example.org
    """
    from broker.ops.night_duty import night_on_duty
    from broker.ops.push import check_address
    from broker.ops.push_send import mail, post

    if not is_night(night):
        raise click.UsageError(f"--night {night!r} is no night: write YYYYMMDD")
    for address in addresses:
        check_address(address, is_mail=not _is_hook(address))
    config = load(ctx)
    with topics_of(ctx) as topics, tables_of(ctx) as tables:
        found = night_on_duty(topics, tables, config.the_run, night)
    if as_json:
        emit_json(found.as_json())
    else:
        click.echo(found.text, nl=False)
    for address in addresses:
        if _is_hook(address):
            post(address, found.as_json())
        else:
            mail(config.push, address, found.subject, found.text)
        click.echo(f"sent to {address}", err=True)
    if not found.is_good:
        sys.exit(BAD_DATA)


def _is_hook(address: str) -> bool:
    return address.startswith(("http://", "https://"))

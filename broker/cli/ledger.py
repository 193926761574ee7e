"""`broker ledger`: what became of every message."""

import sys
from datetime import UTC, datetime

import click

from broker.cli.assemble import tables_of, topics_of
from broker.cli.main import load
from broker.cli.output import BAD_DATA, emit_json, emit_rows, json_option

_COLUMNS = ("query", "topic", "consumed", "stored", "duplicates", "deadLetters", "noTemplate",
            "missing")  # fmt: skip


@click.command()
@click.option("--night", help="Only what was consumed in this night (YYYYMMDD).")
@click.option("--audit", is_flag=True, help="List each message that is not in exactly one place.")
@json_option
@click.pass_context
def command(ctx: click.Context, night: str | None, audit: bool, as_json: bool) -> None:
    """Show, by query and topic, where the messages that were consumed have ended.

    consumed = stored + duplicates + deadLetters + noTemplate + missing, counted by Kafka's
    offsets. Exit code 20 if a message is missing or, with --audit, in more than one place.

    Example: broker ledger --audit
    """
    from broker.ops.accounts import accounts_of

    if night is not None and not is_night(night):
        raise click.UsageError(f"--night {night!r} is no night: write YYYYMMDD")
    with topics_of(ctx) as topics, tables_of(ctx) as tables:
        accounts = accounts_of(topics, tables, load(ctx).the_run, night=night)
    rows = [row.as_json() for row in accounts.rows]
    total = {name: accounts.total.as_json()[name] for name in _COLUMNS[2:]}
    problems = [
        {"query": p.query, "coordinate": str(p.coordinate), "what": p.what}
        for p in accounts.problems
    ]
    if as_json:
        document = {"rows": rows, "total": total, "unread": accounts.unread}
        emit_json(document | ({"problems": problems} if audit else {}))
    else:
        emit_rows([*rows, {"query": "total", **total}], _COLUMNS, as_json=False)
        if audit:
            for problem in problems:
                click.echo(f"{problem['query']} {problem['coordinate']}: {problem['what']}")
            words = "closes" if accounts.is_closed else f"has {len(problems)} problems"
            click.echo(f"The ledger {words}; {accounts.unread} messages wait to be read.", err=True)
    if accounts.total.missing or (audit and not accounts.is_closed):
        sys.exit(BAD_DATA)


def is_night(text: str) -> bool:
    """Return whether a text is a date as nights are named by."""
    try:
        return len(text) == 8 and bool(datetime.strptime(text, "%Y%m%d").replace(tzinfo=UTC))
    except ValueError:
        return False

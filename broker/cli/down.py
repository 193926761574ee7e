"""`broker down`: stop the local servers."""

import click

from broker.cli.main import load


@click.command()
@click.pass_context
def command(ctx: click.Context) -> None:
    """Stop the servers that `broker up` started; their data stay.

    Example: broker down
    """
    from broker.local.stack import down

    stopped = down(load(ctx))
    click.echo(f"stopped {', '.join(stopped)}" if stopped else "nothing was running", err=True)

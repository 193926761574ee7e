"""`broker health`: whether everything works, and what to do if it does not."""

import sys
from contextlib import closing
from dataclasses import asdict, replace

import click

from broker.cli.assemble import make_tables
from broker.cli.main import load
from broker.cli.output import emit_rows, json_option
from broker.errors import ServiceError


@click.command()
@click.option(
    "--patience-s",
    type=click.FloatRange(min=0.5),
    default=10.0,
    show_default=True,
    help="How long to wait for an answer of each server [s].",
)
@json_option
@click.pass_context
def command(ctx: click.Context, patience_s: float, as_json: bool) -> None:
    """Write and read through Kafka, HBase, schemas, stream and API, and say what is wrong.

    A part that is not in use reads `off`, which is no fault. Exit code 21 if a part has failed.

    Example: broker health
    """
    from broker.ops.health import check_health
    from broker.topics.kafka import KafkaTopics

    config = load(ctx)
    config = replace(config, hbase=replace(config.hbase, timeout_s=patience_s))
    with (
        closing(KafkaTopics(config.kafka.bootstrap, timeout_s=patience_s)) as topics,
        closing(make_tables(config)) as tables,
    ):
        checks = check_health(config, topics, tables)
    emit_rows(map(asdict, checks), ("part", "state", "seconds", "words", "advice"), as_json=as_json)
    bad = [check for check in checks if check.is_bad]
    for check in bad:
        click.echo(f"{check.words}; {check.advice}", err=True)
    if bad:
        sys.exit(ServiceError.exit_code)

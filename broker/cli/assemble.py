"""The concrete parts behind the ports, for commands: Kafka and HBase as the settings name them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from broker.cli.main import load
from broker.config import Config
from broker.errors import AlertError, ConfigError
from broker.store.alerts import AlertStore
from broker.store.table import Tables
from broker.topics.topic import Topics
from broker.types import Run

_ALERTS = "alert"
"""The table that every run with tables has."""


def make_topics(config: Config) -> Topics:
    """Return the topics on Kafka; packets of schemas that were added can be read from now on."""
    from broker.alerts.adapters import look_for_schemas
    from broker.topics.kafka import KafkaTopics

    look_for_schemas(config.home)
    return KafkaTopics(config.kafka.bootstrap)


def make_tables(config: Config, *, connections: int = 1) -> Tables:
    """Return the tables in HBase; so many calls may be on their way at once."""
    from broker.alerts.adapters import look_for_schemas
    from broker.store.hbase import HBaseTables

    look_for_schemas(config.home)
    return HBaseTables(
        config.hbase.host,
        config.hbase.thrift_port,
        timeout_s=config.hbase.timeout_s,
        connections=connections,
    )


@contextmanager
def topics_of(ctx: click.Context) -> Iterator[Topics]:
    """Yield the topics, closed afterwards."""
    topics = make_topics(load(ctx))
    try:
        yield topics
    finally:
        topics.close()


@contextmanager
def tables_of(ctx: click.Context) -> Iterator[Tables]:
    """Yield the tables, closed afterwards.

    Raises
    ------
    ConfigError
        If the run has none: no query has ever been started in it.
    """
    config = load(ctx)
    tables = make_tables(config)
    try:
        _require_run(config.the_run, tables.names())
        yield tables
    finally:
        tables.close()


def _require_run(run: Run, tables: list[str]) -> None:
    if run.table(_ALERTS) not in tables:
        known = sorted(n.removesuffix(f".{_ALERTS}") for n in tables if n.endswith(f".{_ALERTS}"))
        raise ConfigError(
            f"run {run.name} has no tables: no query has been started in it yet; runs with tables: "
            f"{', '.join(known) or 'none'}",
            run=run.name,
        )


def find_alert(tables: Tables, run: Run, dia_source_id: str, survey: str | None) -> dict[str, Any]:
    """Return a stored alert by its id, in one survey or in the first that has it.

    Raises
    ------
    AlertError
        If no survey asked has it.
    """
    store = AlertStore(tables, run)
    for name in _surveys(survey):
        alert = store.alert(name, dia_source_id)
        if alert is not None:
            return alert
    where = f"survey {survey}" if survey else "any survey"
    raise AlertError(f"there is no alert {dia_source_id} in {where} of run {run.name}")


def find_object(
    tables: Tables, run: Run, dia_object_id: str, survey: str | None
) -> list[dict[str, Any]]:
    """Return the stored alerts of an object, oldest first.

    Raises
    ------
    AlertError
        If no survey asked has it.
    """
    store = AlertStore(tables, run)
    for name in _surveys(survey):
        alerts = store.object(name, dia_object_id)
        if alerts:
            return alerts
    where = f"survey {survey}" if survey else "any survey"
    raise AlertError(f"there is no object {dia_object_id} in {where} of run {run.name}")


def _surveys(survey: str | None) -> list[str]:
    from broker.alerts.adapters import find_adapters

    known = sorted(find_adapters())
    if survey is not None and survey not in known:
        raise click.UsageError(f"there is no survey {survey!r}; known are {', '.join(known)}")
    return [survey] if survey else known

"""How fast the API answers from HBase, beside a plain read of HBase in the same run."""

import importlib

from broker.bench_rows import Row
from broker.config import Config
from broker.ops.serve_bench.asks import ask_alone
from broker.ops.serve_bench.crowd import ask_at_once
from broker.ops.serve_bench.fill import Say, add_packets, fill
from broker.ops.serve_bench.pace import Pace
from broker.ops.serve_bench.server import Client, serving
from broker.store.table import Tables
from broker.topics.topic import Topics
from broker.types import Run

__all__ = ["Pace", "bench_serve"]


def bench_serve(
    config: Config,
    topics: Topics,
    tables: Tables,
    run: Run,
    *,
    alerts: int,
    users: int,
    pace: Pace | None,
    say: Say,
) -> list[Row]:
    """Fill a run with alerts if it has none, serve it, and measure.

    Parameters
    ----------
    config : Config
        Names the servers.
    topics, tables : Topics, Tables
        Kafka and HBase.
    run : Run
        Whose tables are filled and read.
    alerts : int
        How many it has.
    users : int
        How many ask at once.
    pace : Pace, optional
        Also measure what users who ask at an even rate cost a stream.
    say : callable
        Is told what is being done.

    Returns
    -------
    list of Row
    """
    fill(tables, run, alerts, say)
    objects = add_packets(topics, tables, run)
    with serving(config, run) as server:
        say("Asking …")
        client = Client(server.port)
        rows = ask_alone(client, tables, run, alerts=alerts, with_packets=objects)
        client.close()
        rows += ask_at_once(server.port, tables, run, alerts=alerts, users=users)
        if pace is not None:
            # Spark is loaded for this only.
            step = importlib.import_module("broker.ops.serve_bench.beside_stream")
            rows += step.beside_stream(
                config, topics, tables, server, alerts=alerts, pace=pace, say=say
            )
        return rows

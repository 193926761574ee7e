"""`broker bench client`."""

import dataclasses
import sys
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import click

from broker.cli.main import load
from broker.cli.output import BAD_DATA, emit_rows, json_option
from broker.config import Config


@click.command()
@click.option("-n", "packets", type=click.IntRange(1000), default=20_000, show_default=True,
              help="Packets of a turn.")  # fmt: skip
@click.option("--turns", type=click.IntRange(1), default=3, show_default=True,
              help="Measured turns, after one that warms up.")  # fmt: skip
@click.option(
    "--secure", is_flag=True, help="Also from a Kafka with users and TLS, started for it."
)
@json_option
@click.pass_context
def client(ctx: click.Context, packets: int, turns: int, secure: bool, as_json: bool) -> None:
    """Measure how fast the client reads slim packets on one core, beside a loop without it.

    The loop has the Kafka client and fastavro only. Kafka must run; processor time is counted.

    Example: broker bench client -n 5000
    """
    from broker.client.bench import LEAST_PER_S, bench_client
    from broker.ops.packets_made import slim_packets

    config = dataclasses.replace(load(ctx), run=f"bench-{uuid.uuid4().hex[:8]}")
    schemas, made = slim_packets(500)
    found = bench_client(config, schemas, made, number=packets, turns=turns)
    rows = [{"what": "a plain loop [packets/s]", "measured": found.plain,
             "anchor": f"{found.mean_bytes:.0f} bytes a packet"}]  # fmt: skip
    for what, rate in (
        ("subscribe [packets/s]", found.loose),
        ("subscribe, in a group [packets/s]", found.group),
        ("subscribe, as data frames [packets/s]", found.frames),
    ):
        is_met = rate >= LEAST_PER_S
        rows.append({"what": what, "measured": rate, "required": f">= {LEAST_PER_S:.0f}",
                     "anchor": f"{rate / found.plain:.2f} of the plain loop",
                     "isMet": is_met})  # fmt: skip
    if secure:
        rows.append(_secure_row(config, schemas, made, number=packets, turns=turns))
    emit_rows(rows, ("what", "measured", "required", "anchor", "isMet"), as_json=as_json)
    if not all(row.get("isMet", True) for row in rows):
        sys.exit(BAD_DATA)


def _secure_row(
    config: Config, schemas: Mapping[int, Any], packets: Sequence[bytes], *, number: int, turns: int
) -> dict[str, Any]:
    """Return a row of the table: a subscription over TLS, beside one without, in turns."""
    from broker.client.bench_secure import bench_secure
    from broker.local.guarded import guarded_kafka

    with guarded_kafka(config) as guarded:
        both = {"plain": config, "secure": guarded}
        rates = bench_secure(both, schemas, packets, number=number, turns=turns)
    return {
        "what": "subscribe, TLS and SCRAM [packets/s]",
        "measured": rates["secure"],
        "anchor": f"{rates['secure'] / rates['plain']:.2f} of the same without",
    }

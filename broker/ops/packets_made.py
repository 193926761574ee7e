"""Packets as a topic has them, made for measuring: simulated alerts with all modules' outputs."""

from broker.alerts.outgoing import PacketFormat, module_columns
from broker.avro import Schema
from broker.catalog.registry import definitions
from broker.ops.bench_science import simulated_batches
from broker.science import Runner, find_contributions


def slim_packets(number: int) -> tuple[dict[int, Schema], list[bytes]]:
    """Return the schema by its id, and the slim packets of some simulated alerts."""
    found = find_contributions(catalogs=definitions())
    matches = tuple(column for match in definitions().values() for column in match)
    form = PacketFormat(matches, module_columns(found.qualified_columns))
    packets = []
    with Runner(found, isolate=False) as runner:
        for batch in simulated_batches(number, 500):
            outcome = runner.run(batch)
            topics = [["young-supernova"]] * batch.num_rows
            pairs = form.encode(
                batch, outputs=outcome.outputs, status=outcome.status, topics=topics
            )
            packets += [slim for slim, _ in pairs]
    return dict([form.schemas["slim"]]), packets

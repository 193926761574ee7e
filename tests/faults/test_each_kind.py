"""One fault of each family under load, on servers of their own; afterwards nothing is lost."""

import pytest

from broker.config import Config, load_config
from broker.ops.faults import KINDS, bench_faults, draw
from broker.ops.faults.steps import STEPS

pytestmark = pytest.mark.servers

CHOSEN = (
    *("storing", "published", "worker", "kafka", "thrift", "hbase", "cut-kafka", "pause-stream"),
    *("api", "images-worker", "disk-full", "outage", "burst"),
)
chosen = pytest.mark.parametrize("kind", CHOSEN)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    config = Config(home=tmp_path_factory.mktemp("faults"), cache=load_config().cache)
    small = {"pause_s": 2.0, "outage_s": 3.0, "burst_alerts": 1500}
    return bench_faults(config, CHOSEN, seed=5, **small, say=print)


@chosen
@pytest.mark.timeout(2400)  # all faults are in the first one; 9 min on a quiet machine
def test_a_broker_survives(bench, kind):
    (row,) = (row for row in bench.rows if row.kind == kind)

    assert row.problem == ""
    assert row.recovery_s is not None
    assert (row.lost, row.twice, row.unequal) == (0, 0, 0)
    assert row.entered > 0


def test_a_kill_after_publishing_repeats_packets_with_equal_bytes(bench):
    (row,) = (row for row in bench.rows if row.kind == "published")

    assert row.repeats > 0


def test_rows_and_packets_are_those_of_an_undisturbed_run(bench):
    assert bench.differences == []


def test_a_hundred_faults_have_each_kind_four_times_and_each_step_five_times():
    drawn = draw(100, 1)

    known = {name for name, k in KINDS.items() if k.is_drawn and not k.needs_transactions}
    assert len(drawn) == 100
    assert {kind for kind in known if drawn.count(kind) >= 4} == known
    assert min(drawn.count(step) for step in STEPS) >= 5
    assert draw(100, 1) == drawn != draw(100, 2)

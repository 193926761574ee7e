"""The measurement of image steps refuses what cannot be, and says what it could not measure."""

import pytest

from broker.bench_rows import Row
from broker.errors import ConfigError
from broker.ops import image_bench
from broker.ops.image_bench.chain import _scaling
from broker.ops.image_bench.lattice import _against_poisson
from broker.ops.image_bench.step import run_step


def turns(alone, together):
    return {"chain": alone, "wall": alone, "chain together": together, "wall together": together}


@pytest.mark.parametrize(
    ("together", "is_met"), [([1.0, 1.02], True), ([1.2, 1.1], False), ([0.9, 0.8], False)]
)
def test_two_processes_do_neither_much_less_nor_more_than_twice_the_work_of_one(together, is_met):
    one = turns([1.0, 1.0], together)
    row, clock = _scaling(one, one)
    assert row.is_met is is_met
    assert row.measured == pytest.approx(2.0 / (sum(together) / 2.0))
    assert clock.is_met is None


@pytest.mark.parametrize(("seen", "is_met"), [(1000, True), (1075, True), (1120, False)])
def test_false_alarms_are_held_against_the_range_of_their_number(seen, is_met):
    row = _against_poisson("noise", seen, 1000.0)
    assert row.is_met is is_met
    assert row.required == "0.92-1.08"
    assert "1000 ± 32" in row.anchor


def test_a_step_that_cannot_be_measured_says_why():
    with pytest.raises(ConfigError, match="nothing could not be measured: No module named"):
        run_step("nothing", 64, 1)


def test_a_step_that_cannot_be_measured_falls_short_and_the_others_go_on(monkeypatch):
    def fail(name, side, repeats):
        if name == "kafka":
            raise ConfigError("the step kafka could not be measured: no servers")
        return [Row("good", 1.0, "", "", True)], 2.0

    monkeypatch.setattr(image_bench, "run_step", fail)
    said = []
    found = image_bench.bench_image(only=("kafka", "sky"), say=said.append)

    assert [row.is_met for row in found] == [True, False, None]
    assert "no servers" in found[1].what
    assert len(said) == 4

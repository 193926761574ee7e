"""What Rubin needs follows from what one alert was measured to need."""

import json

import pytest
from click.testing import CliRunner

from broker.cli.main import cli
from broker.errors import ConfigError
from broker.ops.sizing import needs

BENCH = {
    "survey": "lsst",
    "alerts": 100,
    "kilobytes": 200.0,
    "full": [
        {"alerts": 100, "seconds": 1.0, "core_ms": {"python": 4.0, "kafka": 0.5}},
        {"alerts": 100, "seconds": 1.0, "core_ms": {"python": 2.0, "kafka": 1.5}},
    ],
}


def test_cores_are_rate_times_cost_with_room_to_catch_up():
    found = {need.part: need for need in needs(BENCH, (1.0, 10.0))}

    rate = 10_000_000 / 36_000.0
    assert found["python"].amounts == pytest.approx((rate * 3e-3 * 2, rate * 3e-2 * 2))
    assert found["kafka"].per_alert == 1.0
    assert found["cores in all"].amounts == pytest.approx((rate * 4e-3 * 2, rate * 4e-2 * 2))
    assert found["archive, a night [TB]"].amounts == pytest.approx((2.0, 20.0))
    kept = found["Kafka's input, kept nights and copies [TB]"]
    assert kept.amounts == pytest.approx((42.0, 420.0))


@pytest.mark.parametrize("bench", [{}, {"full": [], "kilobytes": 1.0}, {"full": 3}, []])
def test_what_is_no_measurement_is_refused(bench):
    with pytest.raises(ConfigError, match="no result of broker bench stream"):
        needs(bench, (1.0,))


def test_the_command_prints_a_column_a_multiple(tmp_path):
    file = tmp_path / "bench.json"
    file.write_text(json.dumps({"bench": BENCH, "rows": [], "parts": []}))

    done = CliRunner().invoke(
        cli, ["bench", "sizing", str(file), "--times", "2", "--json"], catch_exceptions=False
    )

    (total,) = (row for row in json.loads(done.output) if row["part"] == "cores in all")
    assert total["2× Rubin"] == pytest.approx(10_000_000 / 36_000 * 4e-3 * 2 * 2)

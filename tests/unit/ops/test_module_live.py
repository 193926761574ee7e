"""Costs of modules in the stream, and two stored versions beside each other."""

import pandas as pd
import pytest

from broker.errors import ConfigError
from broker.ops.module_live import compare_stored, live_costs, version_beside
from broker.science import Column, science_module
from broker.science.registry import order_contributions
from broker.store.ledger import Batch

OUTPUTS = (Column("slope", "float32", "", "S."), Column("word", "string", "", "W."))


@science_module(version="1.0.0", outputs=OUTPUTS)
def slope(psf_flux: pd.Series) -> pd.DataFrame:
    return pd.DataFrame({"slope": psf_flux, "word": "x"})


def test_costs_are_of_all_batches_and_memory_the_largest():
    batches = [
        Batch("alerts", 1, (), {"stored": 100}, {"seconds": {"module:a": 0.1, "store": 9.0}}),
        Batch(
            "alerts", 2, (), {"stored": 300},
            {"seconds": {"module:a": 0.1, "module:b": 0.3}, "peakMb": {"a": 2.0}},
        ),
        Batch("alerts", 3, (), {"stored": 100}, {"seconds": {}, "peakMb": {"a": 1.0}}),
        Batch("alerts", 4, (), {"deadLetters": 3}, {"seconds": {"module:b": 0.0}}),
    ]  # fmt: skip

    costs = live_costs(batches)

    assert costs["a"].ms_per_alert == pytest.approx(0.5)
    assert costs["a"].slowest_ms_per_alert == pytest.approx(1.0)
    assert (costs["a"].batches, costs["a"].alerts, costs["a"].peak_mb) == (2, 400, 2.0)
    assert costs["b"].ms_per_alert == pytest.approx(1.0)
    assert costs["b"].peak_mb is None
    assert set(costs) == {"a", "b"}


def test_two_versions_are_compared_alert_by_alert():
    def stored(number, **outputs):
        versions = {f"slope@{v.replace('_', '.')[1:]}": made for v, made in outputs.items()}
        return {"survey": "ztf", "diaSourceId": str(number), "outputs": versions}

    records = [
        stored(1, v1_0_0={"slope": 1.0, "word": "a"}, v1_1_0={"slope": 1.0, "word": "b"}),
        stored(2, v1_0_0={"slope": 1.0, "word": None}, v1_1_0={"slope": 1.5, "word": None}),
        stored(3, v1_0_0={"slope": None, "word": "a"}, v1_1_0={"slope": 2.0, "word": "a"}),
        stored(4, v1_0_0={"slope": 1.0, "word": "a"}),
        stored(5, v1_1_0={"slope": 1.0, "word": "a"}),
        stored(6),
    ]

    made = compare_stored(records, slope, "1.0.0", "1.1.0")

    assert (made["alerts"], made["onlyBefore"], made["onlyAfter"]) == (3, 1, 1)
    number, word = made["columns"]
    assert (number["differ"], word["differ"]) == (2, 1)
    assert number["largest"] == pytest.approx(0.5)
    assert [(d["diaSourceId"], d["before"], d["now"]) for d in number["listed"]] == [
        ("2", 1.0, 1.5),
        ("3", None, 2.0),
    ]


def test_a_module_that_nothing_runs_beside_is_said():
    with pytest.raises(ConfigError, match="slope@next"):
        version_beside(order_contributions([slope], {}), "slope")

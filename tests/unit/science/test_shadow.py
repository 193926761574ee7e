"""A version that runs beside the one in use: computed and stored, seen by nothing else."""

import pickle

import pytest

from broker.errors import ConfigError
from broker.science import Runner, find_contributions, sample_alerts
from broker.science.checks import CHECKS, subjects

ALERTS = sample_alerts(40, seed=3, catalogs={}, cutouts=False)
NOW = "return {'scoreValue': 2.0 * psf_flux}"
NEXT = "return {'scoreValue': 3.0 * psf_flux}"
READER = """
@topic_filter(topic="high", max_pass_fraction=1.0)
def high(score_value, psf_flux):
    '''For tests.'''
    return score_value > 2.5 * psf_flux.abs()
"""
CHOOSES = """
@topic_filter(topic="other", max_pass_fraction=1.0)
def other(score_value):
    '''For tests.'''
    return score_value > 0
"""


@pytest.fixture
def both(write_modules, module):
    folder = write_modules(
        **{
            "score": module("score", NOW),
            "score@next": module("score", NEXT, version="1.1.0") + CHOOSES,
            "reader": READER,
        }
    )
    return find_contributions(folder, catalogs={})


@pytest.mark.parametrize("isolate", [False, True])
def test_it_is_computed_beside_and_no_filter_sees_it(both, isolate):
    with Runner(both, isolate=isolate) as runner:
        outcome = runner.run(ALERTS)

    now = outcome.outputs.column("score@1.0.0:scoreValue").to_numpy()
    beside = outcome.shadow_outputs.column("score@1.1.0:scoreValue").to_numpy()
    assert outcome.outputs.column_names == ["score@1.0.0:scoreValue"]
    assert (beside[now > 0] > now[now > 0]).all()
    assert outcome.status == {"score": "ok"}
    assert outcome.shadow_status == {"score@next": "ok"}
    assert list(outcome.passes) == ["high"]
    assert not outcome.passes["high"].any()  # 2 of the version in use, not 3
    assert {"score", "score@next", "high"} <= outcome.seconds.keys()


def test_it_is_in_no_packet_and_can_be_left_out(both):
    assert list(both.qualified_columns) == ["score@1.0.0:scoreValue"]
    assert list(both.shadow_columns) == ["score@1.1.0:scoreValue"]
    assert both.without(frozenset({"score@next"})).shadows == ()
    assert pickle.loads(pickle.dumps(both)).shadows[0].label == "score@1.1.0"


def test_one_that_fails_hurts_nothing_else(write_modules, module):
    folder = write_modules(
        **{
            "score": module("score", NOW),
            "score@next": module("score", "raise ValueError('no')", version="1.1.0"),
        }
    )
    with Runner(find_contributions(folder, catalogs={}), isolate=False) as runner:
        outcome = runner.run(ALERTS)

    assert outcome.status == {"score": "ok"}
    assert outcome.failures == {"score@next": "ValueError: no (line 9)"}
    assert outcome.shadow_outputs.column(0).null_count == 40


def test_every_check_can_be_asked_of_it(both):
    (subject,) = subjects(both, "score@next")

    for check in CHECKS:
        if "neighbours" in check.__name__ or "declared" in check.__name__:
            check(subject)
    assert subject.answer(ALERTS).column_names == ["score@1.1.0:scoreValue"]


@pytest.mark.parametrize(
    ("name", "version", "words"),
    [("score", "1.0.0", "has version 1.0.0 too"), ("other", "2.0.0", "no module other")],
)
def test_one_that_runs_beside_nothing_is_refused(write_modules, module, name, version, words):
    folder = write_modules(
        **{
            "score": module("score", NOW),
            f"{name}@next": module(name, NEXT.replace("score", name), version=version),
        }
    )
    with pytest.raises(ConfigError, match=words):
        find_contributions(folder, catalogs={})


def test_the_memory_that_each_takes_is_measured_in_the_child(write_modules, module):
    big = "x = np.ones(20_000_000)\nreturn {'bigValue': psf_flux + x[0]}"
    folder = write_modules(
        big=module("big", big), small=module("small", "return {'smallValue': psf_flux}")
    )

    with Runner(find_contributions(folder, catalogs={})) as runner:
        first, second = (runner.run(ALERTS).peak_mb for _ in range(2))

    assert 150 < first["big"] < 200  # 160 MB of doubles
    assert first["small"] < 20
    assert set(second) == {"big", "small"}

"""What a night must reach: strict for a large one, fair to a small one."""

import dataclasses

import numpy as np
import pytest

from broker.ops.accounts import Accounts
from broker.ops.night_report import requirements_of
from broker.simulation.scores import Bin, Scores
from broker.store.audit import AuditRow

GOOD = Scores(
    bins=(Bin(5.0, 6.0, 100, 70), Bin(8.0, np.inf, 1000, 990)),
    alerts=1200,
    reliable=1100,
    false=10,
    lost_by_cut=0,
    flux_pull=1.0,
    ra_pull=1.0,
    dec_pull=1.0,
    n_pulls=900,
    astrometric_mas=20.0,
    photometric_mmag=20.0,
)
CLOSED = Accounts((AuditRow("alerts", "alerts.sim", 9, 9, 0, 0, 0, 0),), (), 0)


def failed(accounts=CLOSED, **changed):
    found = requirements_of(dataclasses.replace(GOOD, **changed), accounts)
    return [requirement.name for requirement in found if not requirement.is_met]


def test_a_good_night_meets_all():
    assert failed() == []


@pytest.mark.parametrize("pull", [0.89, 1.16])
def test_a_large_night_is_judged_strictly(pull):
    assert failed(flux_pull=pull) == ["rms of flux pulls"]
    assert failed(ra_pull=pull, dec_pull=pull) == ["rms of position pulls"]


def test_honest_errors_pass_however_few_there_are_and_wrong_ones_do_not():
    """The rms of n normal pulls scatters by 1 / sqrt(2 n)."""
    rng = np.random.default_rng(8)
    for number in (20, 80, 270):
        for _ in range(50):
            honest = float(np.sqrt(np.mean(rng.normal(size=number) ** 2)))
            assert failed(flux_pull=honest, n_pulls=number) == []
        assert failed(flux_pull=2.0, n_pulls=number) == ["rms of flux pulls"]


def test_nothing_to_judge_by_is_not_good():
    nothing = {"flux_pull": np.nan, "ra_pull": np.nan, "dec_pull": np.nan, "n_pulls": 0}
    assert failed(**nothing) == ["rms of flux pulls", "rms of position pulls"]


@pytest.mark.parametrize(
    ("row", "unread", "names"),
    [
        (AuditRow("alerts", "alerts.sim", 9, 8, 0, 0, 0, 1), 0,
         ["messages missing", "ledger problems"]),
        (AuditRow("alerts", "alerts.sim", 9, 9, 0, 0, 0, 0), 3, ["messages unread"]),
    ],
)  # fmt: skip
def test_a_ledger_that_does_not_close_is_not_good(row, unread, names):
    assert failed(Accounts((row,), (), unread)) == names


def test_a_night_of_artefacts_or_gaps_is_not_good():
    assert failed(false=120) == ["false share after the reliability cut"]
    gaps = (Bin(5.0, 6.0, 100, 40), Bin(8.0, np.inf, 1000, 900))
    assert failed(bins=gaps) == ["completeness at S/N > 8", "completeness at S/N 5–6"]

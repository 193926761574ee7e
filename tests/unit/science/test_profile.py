"""Time and memory are told of the module that spends them, and of its lines."""

import numpy as np
import pytest

from broker.science import find_contributions, sample_alerts
from broker.science.profile import one_by_one, profile, profile_lines

SLOW = """
import time

@science_module(version="1.0.0", outputs=(Column("slow", "float64", "", "Slow."),))
def slow(psf_flux: pd.Series) -> pd.Series:
    '''Sleep.'''
    for _ in range(4):
        time.sleep(0.05)  # here
    return 2.0 * psf_flux.astype(float)

@science_module(version="1.0.0", outputs=(Column("large", "float64", "", "Large."),))
def large(slow: pd.Series) -> pd.Series:
    '''Take 24 MiB for a moment.'''
    return slow + np.zeros(3 << 20).sum()
"""


@pytest.fixture(scope="module")
def alerts():
    return sample_alerts(10, catalogs={}, cutouts=False)


def test_time_and_memory_are_of_the_one_that_spends_them(write_modules, alerts):
    found = find_contributions(write_modules(slow=SLOW), catalogs={})
    slow, large = sorted(profile(found, alerts), key=lambda p: p.name, reverse=True)

    assert slow.ms_per_alert >= 20.0  # four times 50 ms over ten alerts
    assert slow.peak_mb < 1.0
    assert large.ms_per_alert < slow.ms_per_alert  # what it reads from is not counted
    assert 23.0 < large.peak_mb < 26.0


def test_an_alert_alone_costs_what_the_call_costs(write_modules, alerts):
    found = find_contributions(write_modules(slow=SLOW), catalogs={})

    assert (one_by_one(found, alerts.slice(0, 3), "slow") >= 200.0).all()


def test_the_line_that_takes_the_time_is_found(write_modules, alerts):
    found = find_contributions(write_modules(slow=SLOW), catalogs={})
    lines = profile_lines(found, alerts, "slow")
    dearest = max(lines, key=lambda line: line.ms)

    assert dearest.text == "time.sleep(0.05)  # here"
    assert dearest.times == 4
    assert dearest.ms >= 200.0
    assert [line.number for line in lines] == sorted(line.number for line in lines)
    assert np.sum([line.ms for line in lines if line is not dearest]) < dearest.ms

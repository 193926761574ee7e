"""Spoilt packets are alerts or refused with a reason; nothing breaks and nothing grows."""

import resource
from collections import Counter

import numpy as np
import pytest

from broker.errors import AlertError
from broker.imaging.cutout import decode_cutout
from broker.ops.fuzz import IMAGES, MUTATIONS, SURVEYS, bomb, judge, mutate, seeds_of

NUMBER = {"sim": 700, "ztf": 400, "lsst": 400, IMAGES: 500}


@pytest.mark.parametrize("survey", SURVEYS)
def test_each_spoilt_packet_is_an_alert_or_refused_with_a_reason(survey):
    rng = np.random.default_rng([17, SURVEYS.index(survey)])
    others = [packet for name in SURVEYS for packet in seeds_of(name)]
    assert all(judge(survey, packet).is_alert for packet in seeds_of(survey))

    seen = Counter()
    for _ in range(NUMBER[survey]):
        name, packet = mutate(rng, seeds_of(survey), others)
        try:
            verdict = judge(survey, packet)
        except Exception as error:
            raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error
        assert verdict.is_alert == (not verdict.reason)
        seen[verdict.is_alert] += 1

    assert min(seen[True], seen[False]) >= 5


def test_every_mutation_changes_a_packet():
    rng = np.random.default_rng(1)
    packets = seeds_of("sim")
    for name, spoil in MUTATIONS.items():
        assert any(spoil(rng, packets[0], seeds_of("lsst")) != packets[0] for _ in range(5)), name


def test_a_cutout_that_unpacks_to_80_mb_is_refused_in_bounded_memory():
    data = bomb()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    for _ in range(3):
        with pytest.raises(AlertError, match="larger than 64 MB"):
            decode_cutout(data)

    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert len(data) < 100_000
    assert grown_kb < 200_000

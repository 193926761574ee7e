"""Detection is several times as fast as SEP on the same image, in the same run."""

import pytest

from broker.detection.bench import bench_detection


def test_detection_is_six_times_as_fast_as_sep_at_the_same_completeness():
    got = bench_detection()

    assert got["completeness"] == pytest.approx(got["sepCompleteness"], abs=0.02)
    assert got["ratio"] >= 6.0

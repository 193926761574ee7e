"""Which images are processed once more, and that nobody else writes objects meanwhile."""

import subprocess
import sys

import pytest

from broker.config import Config
from broker.errors import AlertError, ConfigError
from broker.store.objects import DONE, FAILED, DetectorRow
from broker.streaming.image_again import chosen_images
from broker.streaming.writer import become_writer, only_writer

NIGHT, NEXT = 61_000.6, 61_001.6


def row(visit, detector, status=DONE, mjd=NIGHT):
    return DetectorRow(visit, detector, status, scorecard={"midpointMjdTai": mjd} if mjd else {})


ROWS = [row(1, 0), row(1, 1), row(2, 0, mjd=NEXT), row(2, 1, FAILED), row(3, 0, mjd=None)]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, {(1, 0), (1, 1), (2, 0), (3, 0)}),
        ({"visits": (1, 3)}, {(1, 0), (1, 1), (3, 0)}),
        ({"visits": (1, 2), "detectors": (0,)}, {(1, 0), (2, 0)}),
        ({"night": "20251121"}, {(1, 0), (1, 1)}),
        ({"night": "20251122"}, {(2, 0)}),
    ],
)
def test_images_are_chosen_by_visit_detector_and_night_if_they_are_done(asked, found):
    assert chosen_images(ROWS, **asked) == found


def test_asking_for_images_that_are_not_there_is_an_error():
    with pytest.raises(AlertError, match="no image that is done"):
        chosen_images(ROWS, visits=(2,), detectors=(1,))


def test_objects_have_one_writer_at_a_time_across_processes(tmp_path):
    config = Config(home=tmp_path)
    other = [
        sys.executable,
        "-c",
        "import sys, pathlib; from broker.config import Config\n"
        "from broker.errors import ConfigError\n"
        "from broker.streaming.writer import only_writer\n"
        "try:\n    with only_writer(Config(home=pathlib.Path(sys.argv[1]))): print('free')\n"
        "except ConfigError as error: print(error.message)",
        str(tmp_path),
    ]

    def told():
        return subprocess.run(other, capture_output=True, text=True, check=True).stdout

    with only_writer(config):
        assert "a writer already" in told()
        with pytest.raises(ConfigError, match="a writer already"):
            become_writer(config)
    assert told() == "free\n"
    become_writer(config)
    become_writer(config)  # as a query that is started again does
    assert "a writer already" in told()

"""The end of a topic is announced, told and taken back; a citation names what was used."""

import pytest

from broker import __version__
from broker.errors import ConfigError
from broker.ops.topic_notes import Deprecation, announce, citation, deprecation, withdraw


def test_an_announced_end_is_told_until_it_is_taken_back(tmp_path):
    assert deprecation(tmp_path, "old") is None
    announce(tmp_path, Deprecation("old", "2027-01-31", 'It is "too" wide.', "new"))

    found = deprecation(tmp_path, "old")

    assert found.sentence == 'It ends on 2027-01-31: It is "too" wide. Use new instead.'
    assert withdraw(tmp_path, "old")
    assert not withdraw(tmp_path, "old")
    assert deprecation(tmp_path, "old") is None


@pytest.mark.parametrize(("topic", "ends"), [("../x", "2027-01-31"), ("old", "soon")])
def test_an_announcement_that_cannot_be_kept_is_refused(topic, ends):
    with pytest.raises(ConfigError):
        Deprecation(topic, ends, "why")


def test_a_citation_names_topic_run_and_versions():
    text = citation("young-supernova", "live", ("rise_rate@1.0.0",))

    assert all(word in text for word in ("young-supernova", "live", __version__, "rise_rate@1.0.0"))

"""What cannot be meant is refused before any server is asked."""

import pytest
from click.testing import CliRunner

from broker.cli.demo import _packets_of_files
from broker.cli.main import cli
from broker.errors import AlertError

USAGE = 2


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("replay FILE --to alerts.ztf --rate fast", "use max, 100/s or 10x"),
        ("replay FILE --to alerts.ztf --until soon", "no ISO time"),
        ("module run rise_rate -n 0", "x>=1"),
        ("module profile rise_rate -n -3", "x>=1"),
        ("batch density reference --order 99 --out map.fits", "0<=x<=10"),
    ],
)
def test_a_value_out_of_range_is_a_usage_error(tmp_path, monkeypatch, command, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_bytes(b"packet")

    done = CliRunner().invoke(cli, command.split())

    assert done.exit_code == USAGE
    assert words in done.output


def test_a_folder_without_packets_is_named_and_others_are_sorted_by_survey(tmp_path):
    with pytest.raises(AlertError, match=r"there is no \.avro file in"):
        _packets_of_files(tmp_path)

    (tmp_path / "container.avro").write_bytes(b"Obj\x01")
    (tmp_path / "framed.avro").write_bytes(b"\x00\x00\x00\x00\x01")
    made = _packets_of_files(tmp_path)
    assert made == {"ztf": [b"Obj\x01"], "lsst": [b"\x00\x00\x00\x00\x01"]}

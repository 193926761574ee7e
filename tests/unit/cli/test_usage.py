"""What cannot be meant is refused before any server is asked."""

import subprocess
import sys
import tomllib

import pytest
from click.testing import CliRunner

from broker.cli.demo import _packets_of_files
from broker.cli.main import _EXTRAS, cli
from broker.errors import AlertError

USAGE, SET_UP = 2, 21


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


@pytest.mark.parametrize(
    ("library", "command", "extra"),
    [("psutil", "status", "stream"), ("kafka", "topic list", "client")],
)
def test_a_library_that_is_not_installed_is_named_with_the_extra_that_brings_it(
    tmp_path, library, command, extra
):
    code = (
        f"import sys; sys.modules[{library!r}] = None; sys.argv[1:] = {command.split()}\n"
        "from broker.cli.main import main; main()"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == SET_UP
    assert done.stdout == ""
    assert done.stderr == (
        f"broker: this needs {library}, which is not installed: "
        f"pip install 'nightjar-broker[{extra}]'\n"
    )


def test_each_extra_that_is_named_exists(pytestconfig):
    project = tomllib.loads((pytestconfig.rootpath / "pyproject.toml").read_text())["project"]

    assert set(project["optional-dependencies"]) == set(_EXTRAS)

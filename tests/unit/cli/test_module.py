"""`broker module`: what a contributor types, from a new folder to its results."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from broker.cli.main import cli
from broker.errors import AlertError, ConfigError

PACKETS = os.environ.get("BROKER_SAMPLE_PACKETS", "")


def called(*arguments):
    """Run a command in this process; return its standard output and its error, if any."""
    done = CliRunner().invoke(cli, ["module", *map(str, arguments)])
    return done.stdout, done.exception


def test_the_list_has_modules_before_filters_and_says_what_they_read():
    said, error = called("list", "--json")

    assert error is None
    rows = {row["name"]: row for row in json.loads(said)}
    kinds = [row["kind"] for row in json.loads(said)]
    assert kinds == sorted(kinds, reverse=True)
    assert rows["rise_rate"]["outputs"] == ["riseRate", "riseRateErr"]
    assert "context_class" in rows["young-supernova"]["inputs"]
    assert all(row["doc"] for row in rows.values())


@pytest.mark.slow
def test_a_new_module_passes_its_own_checks_and_test(tmp_path):
    folder = tmp_path / "mine"

    said, error = called("new", "my_module", "--path", folder, "--json")
    assert error is None
    assert {Path(f).name for f in json.loads(said)["files"]} == {
        "module.py",
        "test_module.py",
        "README.md",
    }

    said, error = called("check", "my_module", "--path", folder, "--json")
    assert error is None
    assert len(json.loads(said)) > 10
    assert all(row["ok"] for row in json.loads(said))

    said, error = called("run", "my_module", "--path", folder, "-n", 30, "--json")
    assert error is None
    rows = json.loads(said)
    assert len(rows) == 30
    assert any(isinstance(row["myModuleChange"], float) for row in rows)
    assert any(row["myModuleChange"] is None for row in rows)

    test = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    done = subprocess.run(test, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["MyModule", "my-module", "2nd", "import"])
def test_a_name_that_python_cannot_import_is_refused(name, tmp_path):
    _, error = called("new", name, "--path", tmp_path)

    assert isinstance(error, ConfigError)
    assert "snake_case" in error.message
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_is_left_as_it_is(tmp_path):
    called("new", "my_module", "--path", tmp_path)
    (tmp_path / "my_module" / "module.py").write_text("mine", encoding="utf-8")

    _, error = called("new", "my_module", "--path", tmp_path)

    assert isinstance(error, ConfigError)
    assert (tmp_path / "my_module" / "module.py").read_text(encoding="utf-8") == "mine"


def test_a_check_that_fails_ends_with_bad_data_and_says_why(tmp_path):
    called("new", "my_module", "--path", tmp_path)
    file = tmp_path / "my_module" / "module.py"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("(psf_flux - ", "(psf_flux - psf_flux.mean() - "), "utf-8")

    said, error = called("check", "my_module", "--path", tmp_path, "--json")

    assert isinstance(error, AlertError)
    assert error.exit_code == 20
    failed = {row["check"] for row in json.loads(said) if not row["ok"]}
    assert failed == {"no alert depends on its neighbours"}


def test_a_name_that_is_not_there_is_refused_with_those_that_are():
    _, error = called("check", "no_such_module")

    assert isinstance(error, ConfigError)
    assert "rise_rate" in error.message


def test_a_topic_can_be_asked_too():
    said, error = called("run", "random-sample", "-n", 5, "--json")

    assert error is None
    assert [row["passes"] for row in json.loads(said)] == [False] * 5


def test_a_file_that_is_no_packet_is_bad_data(tmp_path):
    file = tmp_path / "packet.avro"
    file.write_bytes(b"\x00\x00\x00\x00\x01nonsense")

    _, error = called("run", "rise_rate", "--on", file)

    assert isinstance(error, AlertError)
    assert "no packet of a known survey" in error.message


@pytest.mark.skipif(not PACKETS, reason="BROKER_SAMPLE_PACKETS names no folder of real packets")
@pytest.mark.parametrize(
    ("place", "survey", "n"), [("ztf", "ztf", 36), ("lsst/packets/v9.0-full.avro", "lsst", 1)]
)
def test_real_packets_of_each_survey_can_be_run_on(place, survey, n):
    said, error = called("run", "light_curve_features", "--on", Path(PACKETS) / place, "--json")

    assert error is None
    rows = json.loads(said)
    assert len(rows) == n
    assert {row["survey"] for row in rows} == {survey}
    assert all(isinstance(row["lcCountR"], int) for row in rows)

"""What a person types for programs on images and for releases, and what is said of mistakes."""

import pytest
from click.testing import CliRunner

from broker.cli.main import cli
from broker.errors import ConfigError


def call(*words):
    return CliRunner().invoke(cli, ["batch", *map(str, words)], terminal_width=200)


def test_a_release_is_made_under_either_name():
    one, other = call("release", "--help"), call("images", "release", "--help")

    assert one.exit_code == other.exit_code == 0
    assert "Make a data release" in one.output
    assert "Make a data release" in other.output
    assert "Run PROGRAM" in call("images", "--help").output


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["no_such.py:run", "."], "no file no_such.py"),
        (["no-such-program", "."], "no program no-such-program"),
        (["true", "nowhere"], "no file or folder nowhere"),
        (["true {gain}", "."], "no settings"),
        (["true", ".", "--set", "gain"], "name=value"),
    ],
)
def test_mistakes_are_said_before_spark_starts(words, problem, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    done = call("images", *words, "--out", "out")

    assert isinstance(done.exception, ConfigError)
    assert problem in done.exception.message
    assert not (tmp_path / "out").exists()


def test_a_program_and_a_folder_are_needed():
    assert call("images", "true", "--out", "out").exit_code == 2
    assert call("images", "true", ".").exit_code == 2
    assert call("release", "--out", "out").exit_code == 2

"""Every command says what it does, and shows an example that would be accepted."""

import re
import subprocess

import click
import pytest
import words
from click.testing import CliRunner

from broker.cli.main import cli


def walk(command, path):
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path[-1])
        for name in command.list_commands(context):
            yield from walk(command.get_command(context, name), (*path, name))


COMMANDS = list(walk(cli, ("broker",)))
names = pytest.mark.parametrize(
    ("path", "command"), COMMANDS, ids=[" ".join(path) for path, _ in COMMANDS]
)


@names
def test_help_tells_what_a_command_does_and_how_it_is_called(path, command):
    done = CliRunner().invoke(cli, [*path[1:], "--help"], terminal_width=200)

    assert done.exit_code == 0
    examples = re.findall(r"Examples?: (.+)", done.output)
    assert examples, "help has no line `Example: …`"
    for example in examples:
        for typed in words.commands(example.strip()):
            assert words.problem_of(typed) is None
            if not isinstance(command, click.Group):
                called = [word for word in typed if not word.startswith("-")]
                assert set(path) <= set(called), f"{example} does not show {' '.join(path)}"


@names
def test_every_option_says_what_it_does(path, command):
    silent = [
        parameter.name
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.help and not parameter.hidden
    ]

    assert not silent


def test_every_make_target_that_a_person_types_is_in_the_list():
    done = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=words.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    shown = set(re.findall(r"^make (\w+) ", done.stdout, re.MULTILINE))
    assert {"setup", "demo", "test", "check", "bench", "up", "down", "clean"} <= shown
    assert shown <= words.make_targets()


def test_an_unknown_command_is_a_usage_error():
    assert CliRunner().invoke(cli, ["nothing"]).exit_code == 2

"""Reads what a text tells its reader to type, and whether that exists."""

import dataclasses
import re
import shlex
from pathlib import Path

import click

import broker
from broker.cli.main import cli
from broker.config import Config

ROOT = Path(broker.__file__).parent.parent
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_NOT_SETTINGS = {"BROKER_CONFIG", "BROKER_SAMPLE_PACKETS"}


def blocks(text, *languages):
    """Return the fenced blocks of some languages."""
    return [body for language, body in _FENCE.findall(text) if language in languages]


def prose(text):
    """Return a text without its fenced blocks."""
    return _FENCE.sub("", text)


def commands(block):
    """Return the commands of a shell block as lists of words: pipes and comments cut."""
    joined = block.replace("\\\n", " ")
    for line in joined.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
        lexer.whitespace_split = True
        words = []
        for word in [*lexer, "|"]:
            if set(word) <= set("|&;"):
                while words and re.match(r"^[A-Z_]+=", words[0]):
                    words.pop(0)  # a variable set for this command alone
                if words:
                    yield words
                words = []
            else:
                words.append(word)


def problem_of(words):
    """Return what is wrong with a `broker …` or `make …` command; None if nothing is."""
    program, *arguments = words
    if program == "make":
        missing = [a for a in arguments if "=" not in a and a not in make_targets()]
        return f"make has no {missing}" if missing else None
    if Path(program).name != "broker":
        return None
    return _problem_of_broker(cli, arguments, click.Context(cli, info_name="broker"))


def _problem_of_broker(command, arguments, context):
    try:
        parsed = command.make_parser(context).parse_args(args=list(arguments))
    except click.UsageError as error:
        return error.format_message()
    if not isinstance(command, click.Group):
        return _count_problem(command, parsed[0])
    rest = parsed[1]
    if not rest:
        return None
    inner = command.get_command(context, rest[0])
    if inner is None:
        return f"{context.command_path} has no {rest[0]}"
    child = click.Context(inner, info_name=rest[0], parent=context, **inner.context_settings)
    return _problem_of_broker(inner, rest[1:], child)


def _count_problem(command, values):
    missing = [
        parameter.name
        for parameter in command.params
        if isinstance(parameter, click.Argument)
        if parameter.required and not values.get(parameter.name)
    ]
    return f"{command.name} needs {missing}" if missing else None


def make_targets():
    """Return the targets of the Makefile."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))


def unknown_settings(text):
    """Return the variables BROKER_… in a text that are no setting."""
    known = set(_NOT_SETTINGS)
    for field in dataclasses.fields(Config):
        known.add(f"BROKER_{field.name.upper()}")
        if dataclasses.is_dataclass(factory := field.default_factory):
            known |= {
                f"BROKER_{field.name.upper()}__{inner.name.upper()}"
                for inner in dataclasses.fields(factory)
            }
    found = set(re.findall(r"\bBROKER_[A-Z][A-Z_]*[A-Z]\b", text))
    return sorted(found - known - {"BROKER_SECTION__KEY"})


def missing_paths(text, folder):
    """Return the paths of a text's links and code spans that do not exist.

    A code span counts as a path if its first part is a folder of the project or of the text's
    own folder; one with a placeholder or a pattern in it does not.
    """
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    spans = [s for s in re.findall(r"`([^`\n]+)`", prose(text)) if re.fullmatch(r"[\w./-]+", s)]
    missing = [link for link in links if "://" not in link and not (folder / link).exists()]
    for span in spans:
        bases = [base for base in (folder, ROOT) if (base / span.split("/")[0]).is_dir()]
        if "/" in span and bases and not any((base / span).exists() for base in (folder, ROOT)):
            missing.append(span)
    return missing

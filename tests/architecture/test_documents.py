"""What a README tells its reader to type exists, and so do the files that it names."""

import pytest
import words

READMES = sorted(
    path
    for path in words.ROOT.rglob("*.md")
    if not any(part.startswith(".") for part in path.relative_to(words.ROOT).parts)
)
PACKAGES = sorted(path.parent for path in (words.ROOT / "broker").glob("*/__init__.py"))

names = pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(words.ROOT)))


@names
def test_commands_of_a_readme_exist_with_their_options(path):
    text = path.read_text(encoding="utf-8")
    problems = {
        " ".join(command): problem
        for block in words.blocks(text, "sh", "bash", "shell", "console")
        for command in words.commands(block)
        if (problem := words.problem_of(command))
    }

    assert not problems


@names
def test_settings_and_paths_of_a_readme_exist(path):
    text = path.read_text(encoding="utf-8")

    assert not words.unknown_settings(text)
    assert not words.missing_paths(text, path.parent)


@names
def test_python_of_a_readme_compiles(path):
    for block in words.blocks(path.read_text(encoding="utf-8"), "python"):
        compile(block, str(path), "exec")


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_each_package_has_a_short_readme(package):
    text = (package / "README.md").read_text(encoding="utf-8")

    assert text.startswith("# ")
    assert len(text.splitlines()) <= 120


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (["broker", "up"], None),
        (["broker", "--run", "test", "status", "--json"], None),
        (["BROKER", "nothing"], None),
        (["broker", "nothing"], "has no nothing"),
        (["broker", "status", "--nothing"], "No such option"),
        (["make", "help"], None),
        (["make", "nothing"], "make has no"),
    ],
)
def test_the_check_itself_finds_what_does_not_exist(command, problem):
    found = words.problem_of(command)

    assert (found is None) if problem is None else (problem in found)

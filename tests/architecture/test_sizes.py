"""Files and functions stay short, and nothing in the library prints."""

import ast
from pathlib import Path

import pytest

import broker

ROOT = Path(broker.__file__).parent.parent
FILES = sorted(
    path
    for package in ("broker", "science_modules")
    for path in (ROOT / package).rglob("*.py")
    if path.name != "test_module.py"
)
LONGEST_FILE, LONGEST_BODY = 400, 60

names = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))


def functions(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body_lines(function):
    """Lines of a function below its signature and docstring."""
    body = function.body
    if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        body = body[1:]
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


@names
def test_a_file_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


@names
def test_functions_are_short(path):
    long = {f.name: n for f in functions(path) if (n := body_lines(f)) > LONGEST_BODY}

    assert not long


@names
def test_the_library_does_not_print(path):
    if "cli" in path.parts:
        return
    calls = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if node.func.id in ("print", "breakpoint")
    ]

    assert not calls


def test_most_functions_are_short():
    lengths = sorted(body_lines(f) for path in FILES for f in functions(path))

    assert lengths[int(0.9 * len(lengths))] <= 30

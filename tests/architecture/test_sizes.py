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


def body_lines(function):
    """Lines of a function below its signature and docstring."""
    body = function.body
    if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        body = body[1:]
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


@pytest.fixture(scope="module")
def nodes():
    """Return the functions and the calls of each file."""
    found = {}
    for path in FILES:
        all_nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        functions = [n for n in all_nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        found[path] = functions, [n for n in all_nodes if isinstance(n, ast.Call)]
    return found


def test_files_are_short():
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}

    assert not {str(path): n for path, n in lines.items() if n > LONGEST_FILE}


def test_functions_are_short(nodes):
    lengths = {
        f"{path}:{f.name}": body_lines(f)
        for path, (functions, _) in nodes.items()
        for f in functions
    }

    assert not {name: n for name, n in lengths.items() if n > LONGEST_BODY}
    assert sorted(lengths.values())[int(0.9 * len(lengths))] <= 30


def test_the_library_does_not_print(nodes):
    calls = [
        f"{path}:{call.lineno}"
        for path, (_, all_calls) in nodes.items()
        if "cli" not in path.parts
        for call in all_calls
        if isinstance(call.func, ast.Name) and call.func.id in ("print", "breakpoint")
    ]

    assert not calls

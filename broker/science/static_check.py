"""Reads a contribution's source before it is loaded: no network, file, process or thread.

Nothing is run. What is said comes with the file and the line. It is a guard against mistakes and
bad habits, not a prison: whatever gets past it runs in a process of its own, with limits.
"""

import ast
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from broker.errors import ConfigError
from broker.science.static_rules import (
    CALLS,
    FILE_READERS,
    IMPORTS,
    METHODS,
    NAMES,
    OWN_PACKAGES,
    PURE,
    longest_match,
)


@dataclass(frozen=True, order=True)
class Finding:
    """Something that a contribution may not do.

    Parameters
    ----------
    file : str
        Where.
    line : int
        On which line.
    what : str
        What it does there: `imports socket, which is the network`.
    """

    file: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: it {self.what}"


def require_harmless(package: str, folder: str) -> None:
    """Refuse a module folder whose source does what no contribution may do.

    Parameters
    ----------
    package, folder : str
        The package of module folders, which is imported already, and the folder in it.

    Raises
    ------
    ConfigError
        If something is found; the message says what and where.
    """
    for place in importlib.import_module(package).__path__:
        file = Path(place) / folder / "module.py"
        if not file.exists():
            continue
        found = check_source(file)
        if found:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            raise ConfigError(
                f"{found[0]}{more}; a contribution has no network, file, process or thread, and "
                "reads files beside it in setup= only",
                file=found[0].file,
                line=found[0].line,
            )
        return


def harmful_folders(path: str | Path = "") -> dict[str, list[Finding]]:
    """Return what is found in each module folder that has something, by the folder's name.

    Parameters
    ----------
    path : str or Path
        Folder of module folders; empty means the installed package `science_modules`.
    """
    places = [path] if str(path) else importlib.import_module("science_modules").__path__
    files = [file for place in places for file in sorted(Path(place).glob("*/module.py"))]
    return {file.parent.name: found for file in files if (found := check_source(file))}


def check_source(file: Path) -> list[Finding]:
    """Return what a `module.py`, and the files of its folder that it imports, may not do.

    A file that is no Python has nothing to be found: its import says what is wrong.
    """
    waiting, seen = [file], set[Path]()
    found: list[Finding] = []
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError, OSError):
            continue
        found += _Source(path, tree).findings()
        waiting += _beside(tree, path)
    return sorted(found)


def _beside(tree: ast.Module, path: Path) -> Iterator[Path]:
    """Yield files of the same folder that a file imports."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom):
            base = (node.module or "").split(".")[-1]
            names = [base, *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".")[-1] for alias in node.names]
        for name in names:
            other = path.parent / f"{name}.py"
            if name and other != path and other.exists():
                yield other


class _Source:
    """One file: its imported names, and which functions only run as `setup=`."""

    def __init__(self, path: Path, tree: ast.Module) -> None:
        self._path, self._tree = path, tree
        self._known = dict(_imported(tree))
        self._setup = _setup_nodes(tree)
        self._near = _names_from_file(tree)

    def findings(self) -> list[Finding]:
        """Return what is not allowed, by line; a line and a cause once."""
        found = dict.fromkeys(
            Finding(str(self._path), getattr(node, "lineno", 0), what)
            for node in ast.walk(self._tree)
            for what in self._of(node)
        )
        return list(found)

    def _of(self, node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from self._imports(alias.name)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                yield from self._imports(f"{node.module}.{alias.name}")
        elif isinstance(node, ast.Name) and node.id in NAMES and node.id not in self._known:
            if not (node.id == "open" and self._reads_beside(node)):
                yield f"uses {node.id}, which is {NAMES[node.id]}"
        elif isinstance(node, ast.Name):
            rule = longest_match(self._known.get(node.id, ""), CALLS)
            if rule and (rule not in FILE_READERS or not self._reads_beside(node)):
                yield f"uses {self._known[node.id]}, which is {CALLS[rule]}"
        elif isinstance(node, ast.Attribute):
            yield from self._attribute(node)

    def _imports(self, name: str) -> Iterator[str]:
        if longest_match(name, PURE):
            return
        if name.split(".")[0] == "broker" and not longest_match(name, OWN_PACKAGES):
            yield f"imports {name}, which is none of {', '.join(sorted(OWN_PACKAGES))}"
            return
        rule = longest_match(name, IMPORTS)
        if rule:
            yield f"imports {name}, which is {IMPORTS[rule]}"

    def _attribute(self, node: ast.Attribute) -> Iterator[str]:
        name = self._dotted(node)
        if name is not None:
            rule = longest_match(name, CALLS)
            if rule:
                if rule not in FILE_READERS or not self._reads_beside(node):
                    yield f"uses {name}, which is {CALLS[rule]}"
                return
        is_read = node.attr in FILE_READERS and self._reads_beside(node)
        if node.attr in METHODS and not is_read:
            yield f"uses .{node.attr}, which is {METHODS[node.attr]}"

    def _dotted(self, node: ast.expr) -> str | None:
        """Return the whole name of `np.load` as numpy.load; None if it is of no import."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self._known:
            return None
        return ".".join([self._known[node.id], *reversed(parts)])

    def _reads_beside(self, node: ast.AST) -> bool:
        """Tell whether a call in a set-up reads a file that is named after `__file__`."""
        for call, inside in self._setup:
            if node in inside:
                words = {n.id for n in ast.walk(call) if isinstance(n, ast.Name)}
                texts = [n.value for n in ast.walk(call) if isinstance(n, ast.Constant)]
                given = [n.value for n in _arguments(call) if isinstance(n, ast.Constant)]
                writes = any(isinstance(t, str) and _is_mode(t) for t in given)
                outside = any(
                    isinstance(t, str) and (".." in t or t[:1] in "/~\\") for t in texts if t
                )
                return bool(words & self._near) and not outside and not writes
        return False


def _arguments(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(keyword.value for keyword in call.keywords)]


def _is_mode(text: str) -> bool:
    return 0 < len(text) <= 3 and set(text) <= set("wax+bt") and bool(set(text) & set("wax+"))


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield the names that imports bind, and what they stand for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                whole = alias.name if alias.asname else alias.name.split(".")[0]
                yield alias.asname or whole, whole
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _setup_nodes(tree: ast.Module) -> list[tuple[ast.Call, set[ast.AST]]]:
    """Return the calls within functions that are given as `setup=`, each with its nodes.

    A helper that only set-ups call is one too.
    """
    given = [k.value for n in ast.walk(tree) if isinstance(n, ast.Call) for k in n.keywords
             if k.arg == "setup"]  # fmt: skip
    functions = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef)}
    names = {value.id for value in given if isinstance(value, ast.Name)} & functions.keys()
    while True:
        outside = [n for n in tree.body if getattr(n, "name", None) not in names]
        called = {n.id for name in names for n in ast.walk(functions[name])
                  if isinstance(n, ast.Name)}  # fmt: skip
        elsewhere = {n.id for top in outside for n in _runs(top) if isinstance(n, ast.Name)}
        more = (called & functions.keys()) - names - elsewhere
        if not more:
            break
        names |= more
    roots: list[ast.AST] = [functions[name] for name in names]
    roots += [value for value in given if not isinstance(value, ast.Name)]
    calls = [n for root in roots for n in ast.walk(root) if isinstance(n, ast.Call)]
    calls.sort(key=lambda call: sum(1 for _ in ast.walk(call)))  # the innermost first
    return [(call, set(ast.walk(call))) for call in calls]


def _runs(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a statement, but not the name that it gives to `setup=`."""
    skipped: set[ast.AST] = {
        inner
        for call in ast.walk(node)
        if isinstance(call, ast.Call)
        for keyword in call.keywords
        if keyword.arg == "setup"
        for inner in ast.walk(keyword.value)
    }
    return (n for n in ast.walk(node) if n not in skipped)


def _names_from_file(tree: ast.Module) -> set[str]:
    """Return `__file__` and the names that are made of it."""
    near = {"__file__"}
    assigned = [n for n in ast.walk(tree) if isinstance(n, ast.Assign | ast.AnnAssign) and n.value]
    while True:
        before = len(near)
        for node in assigned:
            words = {n.id for n in ast.walk(node.value or node) if isinstance(n, ast.Name)}
            if words & near:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                near |= {t.id for t in targets if isinstance(t, ast.Name)}
        if len(near) == before:
            return near

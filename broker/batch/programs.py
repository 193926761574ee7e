"""A program that works on one FITS file and knows nothing of Spark: found, packed, its settings.

It is a Python function, `module.py:function` or `package.module:function`, or a command line.
What it needs travels with it as a zip file, the same bytes for the same code.
"""

import ast
import hashlib
import importlib.machinery
import importlib.util
import io
import json
import re
import shlex
import shutil
import stat
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from broker.errors import ConfigError

FILE = "file"
"""The place of the FITS file in a command line: `{file}`."""

LARGEST_ARCHIVE = 256 << 20
"""Code and small data travel with a program, catalogues do not. [bytes]"""

_FUNCTION = re.compile(r"^(?P<where>[\w./~-]+):(?P<name>[A-Za-z_]\w*)$")
_PLACE = re.compile(r"\{(\w+)\}")
_ALWAYS = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Program:
    """A program with its code and settings, ready to be sent to workers.

    Parameters
    ----------
    target : str
        `module:function`, or a command line with `{file}`.
    is_function : bool
    archive : bytes
        Zip file of the code; empty if all of it is installed.
    settings : mapping
        Keyword arguments of a function, `{name}` in a command line.
    timeout_s : float
        Longest time that one file may take. [s]
    check : bool
        Look whether a file is whole FITS before the program sees it.
    """

    target: str
    is_function: bool
    archive: bytes = b""
    settings: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float = 600.0
    check: bool = True

    @cached_property
    def digest(self) -> str:
        """Hash of code, name and settings: equal ones give equal results."""
        words = json.dumps([self.target, self.is_function, self.check, self.settings], default=str)
        return hashlib.sha256(words.encode() + self.archive).hexdigest()[:16]

    def unpack(self, folder: Path) -> None:
        """Write the code into a folder, programs as such."""
        if not self.archive:
            return
        with zipfile.ZipFile(io.BytesIO(self.archive)) as files:
            for entry in files.infolist():
                path = Path(files.extract(entry, folder))
                path.chmod(entry.external_attr >> 16)

    def words(self, file: str, folder: Path) -> list[str]:
        """Return the words of the command line for a file, the code being in a folder."""
        values = {**self.settings, FILE: file}
        first, *rest = (
            _PLACE.sub(lambda found: str(values[found[1]]), word)
            for word in shlex.split(self.target)
        )
        own = folder / first
        return [str(own) if self.archive and own.is_file() else first, *rest]


def find_program(
    text: str,
    *,
    code: Sequence[Path] = (),
    settings: Mapping[str, Any] | None = None,
    timeout_s: float = 600.0,
    check: bool = True,
) -> Program:
    """Find a program by what a person types.

    Parameters
    ----------
    text : str
        `module.py:function`, `package.module:function`, or a command line; the file's path is
        added to it unless `{file}` stands somewhere. The names of settings in braces too.
    code : sequence of Path
        More modules, packages and data to travel with it.
    settings : mapping, optional
    timeout_s : float
        Longest time that one file may take. [s]
    check : bool
        Look whether a file is whole FITS before the program sees it.

    Raises
    ------
    ConfigError
        If there is no such program, or it could not run.
    """
    chosen = dict(settings or {})
    found = _FUNCTION.match(text)
    if found:
        target, shipped = _function(found["where"], found["name"])
    else:
        target, shipped = _command(text, chosen)
    parts = [*shipped, *(_beside(path) for path in code)]
    try:
        json.dumps(chosen)
    except TypeError as error:
        raise ConfigError(f"the settings of a program are JSON: {error}") from error
    return Program(target, bool(found), _pack(parts), chosen, timeout_s, check)


def read_settings(path: Path | None, given: Iterable[str] = ()) -> dict[str, Any]:
    """Return the settings of a TOML file, then those of words `name=value`.

    A value is read as TOML, and as text if it is none.

    Raises
    ------
    ConfigError
        If the file cannot be read, or a word has no `=`.
    """
    settings: dict[str, Any] = {}
    if path is not None:
        try:
            settings = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: it cannot be read as TOML: {error}") from error
    for word in given:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ConfigError(f"{word!r} is no setting of the form name=value")
        try:
            settings[name] = tomllib.loads(f"v = {value}")["v"]
        except tomllib.TOMLDecodeError:
            settings[name] = value
    return settings


_Shipped = tuple[Path, Path]
"""A file or folder, and the folder that its path in the archive starts from."""


def _function(where: str, name: str) -> tuple[str, list[_Shipped]]:
    path = Path(where).expanduser()
    if path.suffix == ".py" or "/" in where:
        if not path.is_file():
            raise ConfigError(f"there is no file {path} with a function {name}")
        _check_function(path, name)
        top = path.resolve()
        while (top.parent / "__init__.py").is_file():
            top = top.parent
        dotted = ".".join(path.resolve().relative_to(top.parent).with_suffix("").parts)
        return f"{dotted}:{name}", [(top, top.parent)]
    return f"{where}:{name}", _package(where, name)


def _package(module: str, name: str) -> list[_Shipped]:
    """Return what is to be shipped of a module: its whole package, nothing if it is installed."""
    top, *inner = module.split(".")
    spec = importlib.machinery.PathFinder.find_spec(top, [str(Path.cwd()), *sys.path])
    spec = spec or importlib.util.find_spec(top)  # installed from a folder that stays its own
    if spec is None or spec.origin is None:
        raise ConfigError(f"there is no module {top} here or among the installed ones")
    origin = Path(spec.origin)
    if origin.name != "__init__.py":
        _check_function(origin, name)
        return [] if _is_installed(origin) else [(origin, origin.parent)]
    file = origin.parent.joinpath(*inner)
    file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
    if not file.is_file():
        raise ConfigError(f"the package {top} has no module {module}")
    _check_function(file, name)
    return [] if _is_installed(origin) else [(origin.parent, origin.parent.parent)]


def _is_installed(origin: Path) -> bool:
    """Return whether workers have a module anyway: Python's own, a package's, or ours."""
    ours = Path(__file__).resolve().parents[1]
    homes = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]
    return any(origin.resolve().is_relative_to(home.resolve()) for home in (ours, *homes))


def _check_function(path: Path, name: str) -> None:
    """Look for a function's name without running the file."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no Python: {error}") from error
    if name not in set(_bound(tree)) and "*" not in set(_bound(tree)):
        raise ConfigError(f"{path} has no function {name}")


def _bound(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _command(text: str, settings: Mapping[str, Any]) -> tuple[str, list[_Shipped]]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is no command line: {error}") from error
    if not words:
        raise ConfigError("a program is needed: module.py:function or a command line")
    unknown = sorted({n for w in words for n in _PLACE.findall(w)} - {FILE, *settings})
    if unknown:
        raise ConfigError(f"the command line names {unknown}, which are no settings: --set")
    if not any(f"{{{FILE}}}" in word for word in words):
        words.append(f"{{{FILE}}}")
    path = Path(words[0]).expanduser()
    shipped: list[_Shipped] = []
    if path.is_file():
        if not path.stat().st_mode & stat.S_IXUSR:
            raise ConfigError(
                f"{path} is not executable: chmod +x it, or name a function: {path}:function"
            )
        words[0], shipped = path.name, [(path, path.parent)]
    elif "/" in words[0] or shutil.which(words[0]) is None:
        raise ConfigError(f"there is no program {words[0]}")
    return shlex.join(words), shipped


def _beside(path: Path) -> _Shipped:
    if not path.exists():
        raise ConfigError(f"there is no {path} to be sent with the program")
    return path, path.resolve().parent


def _pack(parts: Sequence[_Shipped]) -> bytes:
    """Return a zip file: the same bytes for the same files, whatever their times."""
    files: dict[str, Path] = {}
    for path, base in parts:
        for file in _files(path.resolve()):
            files[file.relative_to(base.resolve()).as_posix()] = file
    if not files:
        return b""
    size = sum(file.stat().st_size for file in files.values())
    if size > LARGEST_ARCHIVE:
        raise ConfigError(
            f"the program's code has {size >> 20} MB, more than {LARGEST_ARCHIVE >> 20}: "
            "large data stay in a folder that all workers see"
        )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _ALWAYS)
            entry.compress_type = zipfile.ZIP_DEFLATED
            is_program = files[name].stat().st_mode & stat.S_IXUSR
            entry.external_attr = (0o755 if is_program else 0o644) << 16
            archive.writestr(entry, files[name].read_bytes())
    return out.getvalue()


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for file in path.rglob("*"):
        hidden = any(p.startswith(".") or p == "__pycache__" for p in file.relative_to(path).parts)
        if file.is_file() and not hidden and file.suffix != ".pyc":
            yield file

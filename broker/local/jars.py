"""Pinned jars: fetched and verified once, kept in the cache.

The list is `jars.toml` beside this file. What is missing is fetched by the Ivy that Spark's
Python package holds, so nothing but Java is needed; several fetches run side by side because
Ivy itself takes one file after the other.
"""

import fcntl
import functools
import hashlib
import importlib.resources
import importlib.util
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

from broker.config import load_config
from broker.errors import BrokerError, ConfigError, ServiceError
from broker.local.java import find_java

SETS = ("spark", "kafka", "hbase")

_FETCHES = 6
_ROUNDS = 3
_POLL_S = 0.2
_LINE_EVERY_S = 15.0
_LOG = logging.getLogger(__name__)

_SETTINGS = """<ivysettings>
  <settings defaultResolver="central"/>
  <resolvers>
    <ibiblio name="central" m2compatible="true" usepoms="false" checksums=""/>
  </resolvers>
</ivysettings>
"""


@dataclass(frozen=True)
class Jar:
    """One pinned jar: its coordinates in a Maven repository, its content, licence, who uses it."""

    group: str
    artifact: str
    version: str
    bytes: int
    sha256: str
    sets: tuple[str, ...]
    licence: str = ""
    """An expression of SPDX names."""

    @property
    def file_name(self) -> str:
        """Name of the file in the cache."""
        return f"{self.artifact}-{self.version}.jar"


@functools.cache
def pinned() -> tuple[Jar, ...]:
    """Return every jar of the list."""
    text = importlib.resources.files("broker.local").joinpath("jars.toml").read_text("utf-8")
    return tuple(Jar(**{**row, "sets": tuple(row["sets"])}) for row in tomllib.loads(text)["jar"])


def spark_jars(cache: Path) -> list[Path]:
    """Return the jars that Spark needs beside its own, fetched if they are missing."""
    return _jars(cache, "spark")


def kafka_jars(cache: Path) -> list[Path]:
    """Return the class path of the Kafka server, fetched if it is missing."""
    return _jars(cache, "kafka")


def hbase_jars(cache: Path) -> list[Path]:
    """Return the class path of HBase and its Thrift gateway, fetched if it is missing."""
    return _jars(cache, "hbase")


def _jars(cache: Path, which: str) -> list[Path]:
    ensure_jars(cache, sets=(which,))
    return [cache / "jars" / jar.file_name for jar in pinned() if which in jar.sets]


def package_jar(pattern: str) -> Path:
    """Return a jar that Spark's Python package holds, such as `ivy-*.jar`.

    Raises
    ------
    ConfigError
        If the package is not installed.
    """
    spec = importlib.util.find_spec("pyspark")  # found, not imported: that takes a second
    if spec is not None and spec.origin is not None:
        for path in sorted((Path(spec.origin).parent / "jars").glob(pattern)):
            return path
    raise ConfigError("pyspark is not installed: pip install nightjar-broker[stream]")


def ensure_jars(cache: Path, *, sets: Sequence[str] = SETS) -> None:
    """Fetch what is missing, and verify every jar.

    A jar that was verified before is not read again unless its size or time changed, so a second
    call takes milliseconds and needs no network.

    Parameters
    ----------
    cache : Path
        The folder `config.cache`; the jars are in `jars` under it.
    sets : sequence of str
        Which jars: some of `spark`, `kafka`, `hbase`.

    Raises
    ------
    ServiceError
        If a jar cannot be fetched, or what is fetched is not what is pinned.
    """
    wanted = [jar for jar in pinned() if set(jar.sets) & set(sets)]
    folder = cache / "jars"
    if not _missing(folder, wanted):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / ".lock"):
        missing = _verify(folder, wanted)
        for _ in range(_ROUNDS):
            if not missing:
                return
            problem = _fetch(folder, missing)
            missing = _verify(folder, wanted)
    if missing:
        raise ServiceError(
            f"could not fetch {_some(missing)}: {problem}; check the network (behind a proxy or "
            f"with a mirror, describe it in {_user_settings()}) and try again",
            jars=[jar.file_name for jar in missing],
        )


def _some(jars: Sequence[Jar]) -> str:
    names = ", ".join(jar.file_name for jar in jars[:3])
    return names + (f" and {len(jars) - 3} more jars" if len(jars) > 3 else "")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _LOG.warning("waiting: another process is fetching jars into %s", path.parent)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# --- what is there, and is it what we pinned


def _missing(folder: Path, jars: Sequence[Jar]) -> list[Jar]:
    """Return the jars that were not verified as they now stand."""
    verified = _read_verified(folder)
    return [jar for jar in jars if verified.get(jar.file_name) != _mark(folder, jar)]


def _verify(folder: Path, jars: Sequence[Jar]) -> list[Jar]:
    """Read the jars that were not verified yet; delete and return those that are wrong."""
    verified = _read_verified(folder)
    wrong = []
    for jar in _missing(folder, jars):
        path = folder / jar.file_name
        if path.exists() and _sha256(path) == jar.sha256:
            verified[jar.file_name] = _mark(folder, jar)
        else:
            path.unlink(missing_ok=True)
            verified.pop(jar.file_name, None)
            wrong.append(jar)
    new = folder / "verified.json.new"
    new.write_text(json.dumps(verified, indent=1), encoding="utf-8")
    new.replace(folder / "verified.json")
    return wrong


def _mark(folder: Path, jar: Jar) -> list[int | str] | None:
    try:
        stat = (folder / jar.file_name).stat()
    except FileNotFoundError:
        return [jar.file_name, 0, 0]  # equals no mark that was written
    return [jar.sha256, stat.st_size, stat.st_mtime_ns]


def _read_verified(folder: Path) -> dict[str, list[int | str] | None]:
    try:
        marks: dict[str, list[int | str] | None] = json.loads(
            (folder / "verified.json").read_text(encoding="utf-8")
        )
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return marks


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- fetching


def _fetch(folder: Path, jars: Sequence[Jar]) -> str:
    """Fetch jars into `folder`; return what Ivy said where it failed."""
    java = find_java()
    work = Path(tempfile.mkdtemp(prefix=".fetch-", dir=folder))
    fetches: list[subprocess.Popen[bytes]] = []
    try:
        for i, share in enumerate(_shares(jars, _FETCHES)):
            fetches.append(_start_ivy(java.path, work / str(i), share))
        with _progress(sum(jar.bytes for jar in jars)) as show:
            while any(fetch.poll() is None for fetch in fetches):
                time.sleep(_POLL_S)
                show(_fetched_bytes(work))
        for file in work.glob("*/out/*.jar"):
            file.replace(folder / file.name)
        return _said(work, fetches)
    finally:
        for fetch in fetches:
            fetch.kill()
            fetch.wait()
        shutil.rmtree(work, ignore_errors=True)


def _shares(jars: Sequence[Jar], n: int) -> list[list[Jar]]:
    """Deal the jars out so that each share has about as much to fetch."""
    shares: list[list[Jar]] = [[] for _ in range(min(n, len(jars)))]
    per_file = 300_000  # what the round trips of one file cost, in bytes of transfer
    for jar in sorted(jars, key=lambda jar: -jar.bytes):
        min(shares, key=lambda share: sum(j.bytes + per_file for j in share)).append(jar)
    return shares


def _start_ivy(java: Path, work: Path, jars: Sequence[Jar]) -> subprocess.Popen[bytes]:
    work.mkdir()
    settings = _user_settings()
    if not settings.exists():
        settings = work / "ivysettings.xml"
        settings.write_text(_SETTINGS, encoding="utf-8")
    (work / "ivy.xml").write_text(_module(jars), encoding="utf-8")
    command = [
        str(java),
        "-Xmx128m",
        "-XX:TieredStopAtLevel=1",
        f"-Divy.default.ivy.user.dir={work}",
        "-cp",
        str(package_jar("ivy-*.jar")),
        "org.apache.ivy.Main",
        *("-settings", str(settings), "-ivy", str(work / "ivy.xml")),
        *("-cache", str(work / "cache"), "-types", "jar", "bundle", "-confs", "default"),
        *("-retrieve", str(work / "out" / "[artifact]-[revision].[ext]")),
    ]
    with (work / "said.txt").open("wb") as said:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)


def _module(jars: Sequence[Jar]) -> str:
    """Return an Ivy file that asks for these jars and nothing that they depend on."""
    wanted = "\n".join(
        f"    <dependency org={quoteattr(jar.group)} name={quoteattr(jar.artifact)} "
        f'rev={quoteattr(jar.version)} transitive="false" conf="default->default"/>'
        for jar in jars
    )
    return (
        '<ivy-module version="2.0">\n'
        '  <info organisation="nightjar" module="jars"/>\n'
        '  <configurations><conf name="default"/></configurations>\n'
        f"  <dependencies>\n{wanted}\n  </dependencies>\n</ivy-module>\n"
    )


def _user_settings() -> Path:
    return Path.home() / ".ivy2" / "ivysettings.xml"


def _fetched_bytes(work: Path) -> int:
    total = 0
    for path in work.glob("*/cache/**/*.jar*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # renamed when it was complete
            continue
    return total


def _said(work: Path, fetches: Sequence[subprocess.Popen[bytes]]) -> str:
    """Return the line that says best why a fetch failed; empty if none did."""
    for i, fetch in enumerate(fetches):
        if fetch.returncode == 0:
            continue
        lines = (work / str(i) / "said.txt").read_text("utf-8", "replace").splitlines()
        telling = [line.strip() for line in lines if "Exception" in line or "not found" in line]
        return (telling or lines or ["Ivy ended without a word"])[-1]
    return "a file came with another content than is pinned"


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show bytes fetched: a bar on a terminal, else a line now and then."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn("fetching jars"), BarColumn(), DownloadColumn())
        with Progress(*columns, TransferSpeedColumn(), console=console, transient=True) as bar:
            task = bar.add_task("", total=total)
            yield lambda done: bar.update(task, completed=min(done, total))
        return
    last = time.monotonic()
    console.out(f"fetching jars: {total / 1e6:.0f} MB")

    def line(done: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _LINE_EVERY_S:
            last = time.monotonic()
            console.out(f"fetching jars: {done / 1e6:.0f} of {total / 1e6:.0f} MB")

    yield line


def main() -> int:
    """Fetch and verify all jars into the configured cache: `python -m broker.local.jars`."""
    try:
        ensure_jars(load_config().cache)
    except BrokerError as error:
        sys.stderr.write(f"{error.message}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What a local server is: how it is prepared, started, asked whether it is ready, and stopped."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Port:
    """A port that a service listens on, and the setting that it comes from."""

    setting: str
    host: str
    number: int


@dataclass(frozen=True)
class Service:
    """One server process.

    Parameters
    ----------
    name : str
        What a person calls it; also the name of its pid file and logs.
    ports : sequence of Port
        Where it listens; the first is where clients connect.
    heap_mb : int
        Java heap. [MB]
    folder : Path
        Its working folder; made before `prepare`.
    prepare : callable
        Writes its settings; repeated at every start.
    command : sequence of str
        Program and arguments.
    probe : callable
        Raises `ServiceError` while it does not answer.
    stop_timeout_s : float
        How long it may take to end before it is killed. [s]
    behind : str
        Server whose trouble may be why this one does not answer; "" if there is none.
    """

    name: str
    ports: Sequence[Port]
    heap_mb: int
    folder: Path
    prepare: Callable[[], None]
    command: Sequence[str]
    probe: Callable[[], None]
    stop_timeout_s: float = 20.0
    behind: str = ""


def java_command(
    java: Path, main: Sequence[str], *, jars: Sequence[Path], heap_mb: int, options: Sequence[str]
) -> list[str]:
    """Return the command of a Java server: small at first, gone when its memory is used up."""
    return [
        str(java),
        "-Xms64m",
        f"-Xmx{heap_mb}m",
        "-XX:+ExitOnOutOfMemoryError",
        "-Djava.net.preferIPv4Stack=true",
        "-Djava.awt.headless=true",
        *options,
        "-cp",
        ":".join(str(jar) for jar in jars),
        *main,
    ]

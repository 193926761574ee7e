"""One writer of objects: the images query, or a reprocessing, never both at once."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.config import Config
from broker.errors import ConfigError

_held: dict[Path, int] = {}
"""Locks that this process holds until it ends; a query that is started again has its own."""


def become_writer(config: Config) -> None:
    """Take a run's lock for as long as this process lives; once more does no harm.

    Raises
    ------
    ConfigError
        If another process has it.
    """
    file = _file(config)
    if file not in _held:
        _held[file] = _lock(file, config)


@contextmanager
def only_writer(config: Config) -> Iterator[None]:
    """Hold a run's lock for a while.

    Raises
    ------
    ConfigError
        If the images query, or another reprocessing, has it.
    """
    held = _lock(_file(config), config)
    try:
        yield
    finally:
        os.close(held)


def _file(config: Config) -> Path:
    return config.run_path("checkpoints").absolute() / ".images.lock"


def _lock(file: Path, config: Config) -> int:
    file.parent.mkdir(parents=True, exist_ok=True)
    opened = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(opened)
        raise ConfigError(
            f"the images of run {config.the_run.name} have a writer already: stop "
            "`broker stream`, or wait until the reprocessing is done",
            run=config.the_run.name,
        ) from error
    return opened

"""Sees what is opened or started while a contribution runs, in this process."""

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_IMPORTED = (".py", ".pyc", ".so", ".nbi", ".nbc")
_FORBIDDEN = {
    "open": "opened the file {}",
    "socket.__new__": "opened a socket",
    "socket.connect": "connected to {1}",
    "subprocess.Popen": "started the program {}",
    "os.system": "started the program {}",
    "os.fork": "forked the process",
}


class _Watch:
    """What happened while it was on; an audit hook stays for the life of the process."""

    def __init__(self) -> None:
        self.seen: list[str] | None = None
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.seen is None or event not in _FORBIDDEN:
            return
        if event == "open" and str(arguments[0]).endswith(_IMPORTED):
            return  # an import at the first call
        self.seen.append(_FORBIDDEN[event].format(*arguments))


@functools.cache
def _watch() -> _Watch:
    return _Watch()


@contextmanager
def watched() -> Iterator[list[str]]:
    """Yield a list that files, sockets and programs opened meanwhile are added to."""
    watch = _watch()
    seen: list[str] = []
    watch.seen = seen
    try:
        yield seen
    finally:
        watch.seen = None

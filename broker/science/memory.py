"""How much memory a piece of code takes at most, as the system counts it for this process."""

import ctypes
import sys
from pathlib import Path

_KIB_IN_MIB = 1024.0
_TRIM_EVERY = 50
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Resident memory at its highest between `start` and `peak_mb`, beyond what was there.

    What the heap kept from earlier code is used again unseen, so the heap is emptied before each
    piece of every fiftieth batch, the first among them; the other batches say what a piece takes
    that none before it had. The largest of many batches is the figure to look at.
    """

    def __init__(self) -> None:
        self.works = sys.platform == "linux" and _RESET.exists()
        self._batches = 0
        self._trim = ctypes.CDLL(None).malloc_trim if self.works else None
        self._before = 0.0

    def next_batch(self) -> None:
        """Say that another batch begins."""
        self._batches += 1

    def start(self) -> None:
        """Begin to look."""
        if not self.works:
            return
        if self._trim is not None and self._batches % _TRIM_EVERY == 1:
            self._trim(0)
        try:
            _RESET.write_text("5", encoding="ascii")  # the highest is now what there is
        except OSError:
            self.works = False
            return
        self._before = _read(b"VmRSS:")

    def peak_mb(self) -> float | None:
        """Return the highest since `start`; None where the system does not say. [MiB]"""
        return max(0.0, _read(b"VmHWM:") - self._before) if self.works else None


def _read(name: bytes) -> float:
    text = _STATUS.read_bytes()
    at = text.index(name) + len(name)
    return int(text[at : text.index(b"kB", at)]) / _KIB_IN_MIB

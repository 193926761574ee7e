"""Memory that a process shares with its child: without a name, so nothing can be left behind."""

import mmap
import os
import struct
import tempfile
from typing import Any

import pyarrow as pa

_PAGE = 1 << 16


def anonymous_file(label: str) -> int:
    """Return the descriptor of a file in memory that has no name in any folder."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(label, os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class SharedTable:
    """Room for one Arrow table, written by one process and read by another.

    Parameters
    ----------
    descriptor : int
        An open file that both have.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._map: mmap.mmap | None = None

    def write(self, table: pa.Table) -> int:
        """Write a table over the last one; return its size. [bytes]"""
        measured = pa.MockOutputStream()
        _write(measured, table)
        size = int(measured.size())
        if self._map is None or len(self._map) < size:
            room = (size + size // 4) // _PAGE * _PAGE + _PAGE
            os.ftruncate(self.descriptor, room)
            self._map = mmap.mmap(self.descriptor, room)
        _write(pa.FixedSizeBufferWriter(pa.py_buffer(self._map)), table)
        return size

    def read(self, size: int) -> pa.Table:
        """Return the table of `size` bytes, not copied: valid until the next one is written."""
        if self._map is None or len(self._map) < size:
            room = os.fstat(self.descriptor).st_size
            self._map = mmap.mmap(self.descriptor, room, prot=mmap.PROT_READ)
        return pa.ipc.open_stream(pa.py_buffer(self._map).slice(0, size)).read_all()

    def close(self) -> None:
        """Release the memory."""
        self._map = None  # unmapped when the last table that lies in it is gone
        os.close(self.descriptor)


def _write(sink: Any, table: pa.Table) -> None:
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


_SLOT = struct.Struct("<qd")


class RunningSlot:
    """What the child is running now, and since when, for its parent to read at any moment.

    Parameters
    ----------
    descriptor : int
        An open file that both have.
    """

    def __init__(self, descriptor: int) -> None:
        os.ftruncate(descriptor, _SLOT.size)
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, _SLOT.size)

    def set(self, task: int, since: float) -> None:
        """Say that a task runs since a moment of the monotonic clock; -1 is none. [s]"""
        _SLOT.pack_into(self._map, 0, task, since)

    def get(self) -> tuple[int, float]:
        """Return the task's number, -1 if none runs, and since when. [s]"""
        task, since = _SLOT.unpack_from(self._map, 0)
        return int(task), float(since)

    def close(self) -> None:
        """Release the memory."""
        self._map.close()
        os.close(self.descriptor)

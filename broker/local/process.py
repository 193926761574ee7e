"""A server process that outlives the command that started it, found again by its pid file."""

import contextlib
import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

_SAME_START_S = 2.0
"""A process that took over a pid cannot have started this close to the one we noted. [s]"""


@dataclass(frozen=True)
class Record:
    """What a pid file holds: enough to tell our process from a later one of the same number."""

    pid: int
    started: float
    """When the process started. [s since 1970]"""
    port: int


def start(command: Sequence[str], *, pid_file: Path, port: int, out: Path, folder: Path) -> Record:
    """Start a program in a session of its own and note it in a pid file.

    Parameters
    ----------
    command : sequence of str
        Program and arguments.
    pid_file : Path
        Written as soon as the program runs.
    port : int
        The port by which it will be known.
    out : Path
        Takes its standard output and error.
    folder : Path
        Its working folder.
    """
    with out.open("wb") as file:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd=folder,
            start_new_session=True,
        )
    started = psutil.Process(process.pid).create_time()
    record = Record(process.pid, started, port)
    pid_file.parent.mkdir(parents=True, exist_ok=True)
    new = pid_file.with_suffix(".new")
    new.write_text(json.dumps(asdict(record)), encoding="utf-8")
    new.replace(pid_file)
    return record


def find(pid_file: Path) -> tuple[Record | None, psutil.Process | None]:
    """Return what the pid file holds and the process, if that very process still runs."""
    try:
        record = Record(**json.loads(pid_file.read_text(encoding="utf-8")))
    except (FileNotFoundError, json.JSONDecodeError, TypeError):
        return None, None
    try:
        process = psutil.Process(record.pid)
        same = abs(process.create_time() - record.started) < _SAME_START_S
        if same and process.status() != psutil.STATUS_ZOMBIE:
            return record, process
    except psutil.NoSuchProcess:
        pass
    return record, None


def stop(pid_file: Path, *, timeout_s: float) -> bool:
    """Stop the process of a pid file and delete the file.

    It is asked to end, and killed when it has not after `timeout_s`. A process that only has the
    same number is left alone.

    Returns
    -------
    bool
        Whether there was a process to stop.
    """
    _, process = find(pid_file)
    if process is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
            try:
                process.wait(timeout_s)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait(timeout_s)
    pid_file.unlink(missing_ok=True)
    return process is not None


def memory_mb(process: psutil.Process) -> float | None:
    """Return a process's proportional (else resident) set size; None if it has gone. [MB]"""
    try:
        info = process.memory_full_info() if os.name == "posix" else process.memory_info()
        return float(getattr(info, "pss", 0) or info.rss) / 1e6
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied:
        return float(process.memory_info().rss) / 1e6

"""One program on one file after the other, each file's end told: nothing a program does is lost.

A function runs in a long-lived process of its own, a command in one for each file. So a crash or
a hang ends that process only; the time limit ends it from outside.
"""

import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from broker.batch.program_child import LENGTHS
from broker.batch.programs import Program
from broker.imaging.fits_check import problem_of

DONE, BAD_FILE, FAILED = "done", "bad-file", "failed"
TIMED_OUT, KILLED = "timed-out", "killed"
STATUSES = (DONE, BAD_FILE, FAILED, TIMED_OUT, KILLED)
"""What becomes of a file: the program's result; the file is no whole FITS; the program raised,
exited with an error or could not be loaded; it took too long; a signal ended it."""

_LOAD_S = 120.0
_EXIT_S = 10.0
_LOG_BYTES = 4096
_WIDEST_ANSWER = 1 << 16


@dataclass(frozen=True)
class Outcome:
    """What became of one file.

    Parameters
    ----------
    path : str
    status : str
        One of `STATUSES`.
    reason : str
        Why there is no result; empty if there is.
    seconds, cpu_seconds : float
        What the program took; processor time is 0 for one that was killed. [s]
    result : str, optional
        JSON of what a function returned, or what a command printed.
    table : bytes
        Arrow stream, if a table was returned.
    log : str
        The end of what was printed, for a command only to standard error.
    """

    path: str
    status: str
    reason: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    result: str | None = None
    table: bytes = b""
    log: str = ""


class ProgramRunner:
    """Runs a program on files, one at a time.

    Parameters
    ----------
    program : Program
    code : Path
        Folder for its code: unpacked here by the first runner that uses it.
    products : Path, optional
        What a program leaves in its working directory is moved to a folder of this one, named
        after the file; without it, it is thrown away. It may be another one for later files.
    """

    def __init__(self, program: Program, code: Path, products: Path | None = None) -> None:
        self._program = program
        self.products = products
        self._code = _unpacked(program, code)
        self._scratch = Path(tempfile.mkdtemp(prefix="run-", dir=code.parent))
        self._log = self._scratch / "log.txt"
        (self._scratch / "settings.json").write_text(
            json.dumps(dict(program.settings)), encoding="utf-8"
        )
        self._child: subprocess.Popen[bytes] | None = None
        self._load_problem = ""

    def run(self, path: str) -> Outcome:
        """Return what becomes of a file."""
        problem = problem_of(Path(path)) if self._program.check else None
        if problem is not None:
            return Outcome(path, BAD_FILE, problem)
        folder = self._scratch / "work"
        folder.mkdir()
        began = time.perf_counter()
        try:
            act = self._function if self._program.is_function else self._command
            status, reason, words, table = act(str(Path(path).absolute()), folder)
            self._keep(path, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return Outcome(
            path,
            status,
            reason,
            words.get("seconds", time.perf_counter() - began),
            words.get("cpuSeconds", 0.0),
            words.get("result"),
            table,
            self._log_end(),
        )

    def close(self) -> None:
        """End the program's process and remove what it used."""
        self._end_child()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _keep(self, path: str, folder: Path) -> None:
        if self.products is not None and any(folder.iterdir()):
            home = self.products / product_name(path)
            shutil.rmtree(home, ignore_errors=True)
            home.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(folder, home)

    def _log_end(self) -> str:
        if not self._log.exists():
            return ""
        with self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - _LOG_BYTES))
            return file.read().decode("utf-8", "replace").strip()

    def _function(self, path: str, folder: Path) -> tuple[str, str, dict[str, Any], bytes]:
        if self._load_problem:
            return FAILED, self._load_problem, {}, b""
        child = self._child or self._start_child()
        if child is None:
            return FAILED, self._load_problem, {}, b""
        request = json.dumps({"path": path, "folder": str(folder)}) + "\n"
        with suppress(BrokenPipeError):
            os.write(_number(child.stdin), request.encode())
        latest = time.monotonic() + self._program.timeout_s
        answer = _read_answer(child, self._program.timeout_s)
        if answer is None:
            # One that has closed its answers without being late is on its way out.
            return *self._ended(child, 0.2 if time.monotonic() >= latest else _EXIT_S), {}, b""
        words, table = answer
        if "problem" in words:
            return FAILED, words["problem"], words, b""
        return DONE, "", words, table

    def _ended(self, child: subprocess.Popen[bytes], patience_s: float = 0.2) -> tuple[str, str]:
        """Say how a child that gave no answer ended; end it if it has not."""
        with suppress(subprocess.TimeoutExpired):
            child.wait(patience_s)
        status = child.poll()
        self._end_child()
        return _end_of(status, self._program.timeout_s)

    def _start_child(self) -> subprocess.Popen[bytes] | None:
        """Start the process of a function; None, and a reason, if it cannot be loaded."""
        self._log.write_bytes(b"")
        path = os.pathsep.join([str(self._code), *(p for p in sys.path if p)])
        child = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "broker.batch.program_child",
                self._program.target,
                str(self._scratch / "settings.json"),
                str(self._log),
                str(os.getpid()),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )
        self._child = child
        answer = _read_answer(child, _LOAD_S)
        if answer is not None and "problem" not in answer[0]:
            return child
        said = answer[0]["problem"] if answer else self._ended(child)[1]
        self._load_problem = f"the program cannot be loaded: {said}"
        self._end_child()
        return None

    def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            _kill(child)
            for stream in (child.stdin, child.stdout):
                with suppress(OSError):
                    if stream is not None:
                        stream.close()

    def _command(self, path: str, folder: Path) -> tuple[str, str, dict[str, Any], bytes]:
        shutil.copy(self._scratch / "settings.json", folder / "settings.json")
        before = _children_cpu_s()
        began = time.perf_counter()
        with self._log.open("wb") as log, (self._scratch / "out.txt").open("w+b") as out:
            try:
                child = subprocess.Popen(
                    self._program.words(path, self._code),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=log,
                    cwd=folder,
                    start_new_session=True,
                )
            except OSError as error:
                return FAILED, f"the program cannot be started: {error}", {}, b""
            with suppress(subprocess.TimeoutExpired):
                child.wait(self._program.timeout_s)
            status = child.poll()
            _kill(child)
            out.seek(0)
            printed = out.read()
        (folder / "settings.json").unlink(missing_ok=True)
        words: dict[str, Any] = {
            "seconds": time.perf_counter() - began,
            "cpuSeconds": _children_cpu_s() - before,
        }
        if status == 0:
            return DONE, "", words | {"result": _printed(printed)}, b""
        kind, reason = _end_of(status, self._program.timeout_s)
        last = self._log_end().splitlines()[-1:]
        return kind, ": ".join([reason, *last]), words, b""


def run_program(
    program: Program, paths: Iterable[str], *, products: Path | None = None
) -> Iterator[Outcome]:
    """Run a program on files in this process, one after the other: the plain loop, without Spark.

    Parameters
    ----------
    program : Program
    paths : iterable of str
    products : Path, optional
        Folder for what the program leaves in its working directory.

    Yields
    ------
    Outcome
        One a file, in the files' order.
    """
    with (
        tempfile.TemporaryDirectory(prefix="broker-code-") as folder,
        closing(ProgramRunner(program, Path(folder) / program.digest, products)) as runner,
    ):
        for path in paths:
            yield runner.run(path)


def product_name(path: str) -> str:
    """Return the name of the folder of a file's products: its own, and a hash of its path."""
    return f"{Path(path).name}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"


def _unpacked(program: Program, folder: Path) -> Path:
    """Return a folder with the code: the first process unpacks it, whole."""
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".code-", dir=folder.parent))
        program.unpack(draft)
        try:
            draft.rename(folder)
        except OSError:  # another process was first
            shutil.rmtree(draft, ignore_errors=True)
    return folder


def _read_answer(
    child: subprocess.Popen[bytes], timeout_s: float
) -> tuple[dict[str, Any], bytes] | None:
    """Return a child's answer; None if it ended, or was too late."""
    deadline = time.monotonic() + timeout_s
    number = _number(child.stdout)
    head = _read(number, LENGTHS.size, deadline)
    if head is None:
        return None
    n_words, n_table = LENGTHS.unpack(head)
    words, table = _read(number, n_words, deadline), _read(number, n_table, deadline)
    return None if words is None or table is None else (json.loads(words), table)


def _number(stream: IO[bytes] | None) -> int:
    return -1 if stream is None else stream.fileno()


def _read(number: int, size: int, deadline: float) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        left = deadline - time.monotonic()
        if left <= 0.0 or not select.select([number], [], [], left)[0]:
            return None
        part = os.read(number, min(_WIDEST_ANSWER, size - len(parts)))
        if not part:
            return None
        parts += part
    return bytes(parts)


def _end_of(status: int | None, timeout_s: float) -> tuple[str, str]:
    if status is None:
        return TIMED_OUT, f"it took longer than {timeout_s:g} s"
    if status < 0:
        return KILLED, f"it was ended by {signal.Signals(-status).name}"
    return FAILED, f"it exited with status {status}"


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End a child and all that it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _children_cpu_s() -> float:
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _printed(printed: bytes) -> str | None:
    """Return what a command printed: its JSON if it is, else a JSON text."""
    text = printed.decode("utf-8", "replace").strip()
    if not text:
        return None
    try:
        return json.dumps(json.loads(text))
    except ValueError:
        return json.dumps(text)

"""The process that runs a program's function, one file after the other, for `program_run`.

It is started with the function's code on its path. What the function prints goes to a file, what
it returns goes back as JSON, or as an Arrow table. It ends with its parent.
"""

import importlib
import json
import os
import resource
import struct
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from broker.science.child import end_with_parent

LENGTHS = struct.Struct("<QQ")
"""Before each answer: the lengths of its JSON and of its table. [bytes]"""


def main(arguments: list[str]) -> None:
    """Answer requests from standard input, a JSON line each, until it is closed."""
    import faulthandler

    target, settings_file, log, parent = arguments
    end_with_parent(int(parent))
    answers = os.fdopen(os.dup(1), "wb")
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    faulthandler.enable()
    settings = json.loads(Path(settings_file).read_text(encoding="utf-8"))
    module, _, name = target.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except BaseException as error:  # noqa: BLE001  whatever a stranger's module does
        traceback.print_exc()
        _answer(answers, {"problem": f"{type(error).__name__}: {error}"})
        return
    _answer(answers, {})
    while request := sys.stdin.buffer.readline():
        asked = json.loads(request)
        os.chdir(asked["folder"])
        os.ftruncate(said, 0)
        words, table = _call(function, asked["path"], settings)
        sys.stdout.flush()
        sys.stderr.flush()
        _answer(answers, words, table)


def _call(
    function: Callable[..., Any], path: str, settings: dict[str, Any]
) -> tuple[dict[str, Any], bytes]:
    cpu, began = _cpu_s(), time.perf_counter()
    words: dict[str, Any] = {}
    table = b""
    try:
        value = function(path, **settings)
    except (Exception, SystemExit) as error:  # noqa: BLE001  the program's own failure, reported
        traceback.print_exc()
        words["problem"] = _problem(error)
    else:
        try:
            words["result"], table = to_result(value)
        except (TypeError, ValueError) as error:
            words["problem"] = f"it returned a {type(value).__name__}: {error}"
    words["seconds"], words["cpuSeconds"] = time.perf_counter() - began, _cpu_s() - cpu
    return words, table


def _cpu_s() -> float:
    """Return the processor time of this process and of those that it started. [s]"""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _problem(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


def _answer(out: BinaryIO, words: dict[str, Any], table: bytes = b"") -> None:
    text = json.dumps(words).encode()
    out.write(LENGTHS.pack(len(text), len(table)) + text)
    out.write(table)
    out.flush()


def to_result(value: Any) -> tuple[str | None, bytes]:
    """Return what a function returned as JSON and as an Arrow stream; one of them is empty.

    Tables are those of Arrow, pandas and astropy, and NumPy's with named columns; anything else
    is numbers, text, lists and dictionaries of them, NumPy's too. A number that is not finite is
    null, as JSON has no word for it.

    Raises
    ------
    TypeError, ValueError
        If it is neither.
    """
    table = _as_table(value)
    if table is None:
        return (None if value is None else json.dumps(_plain(value))), b""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return None, sink.getvalue().to_pybytes()


def _as_table(value: Any) -> Any:
    family = type(value).__module__.split(".")[0]
    if family == "numpy" and getattr(getattr(value, "dtype", None), "names", None):
        import pyarrow as pa

        return pa.table({name: pa.array(value[name].tolist()) for name in value.dtype.names})
    if family == "pyarrow":
        import pyarrow as pa

        return pa.Table.from_batches([value]) if isinstance(value, pa.RecordBatch) else value
    if family == "astropy" and hasattr(value, "to_pandas"):
        value, family = value.to_pandas(), "pandas"
    if family == "pandas" and hasattr(value, "columns"):
        import pyarrow as pa

        return pa.Table.from_pandas(value, preserve_index=False).replace_schema_metadata(None)
    return None


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0.0 else None
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    raise TypeError("neither a table nor something that JSON has")


if __name__ == "__main__":
    main(sys.argv[1:])

"""What the image commands share: work on file after file, with a row each and a record."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from broker.cli.main import load
from broker.cli.output import BAD_DATA, emit_rows, progress
from broker.errors import AlertError, BrokerError


def task(
    name: str,
    choices: Any,
    inputs: Callable[[Path], dict[str, Any]],
    *,
    ready: Any = None,
    **more: Any,
) -> Callable[[Path], dict[str, Any]]:
    """Return the work on a file that leaves a record of how its products were made."""
    from broker.ops.image_provenance import Task, make

    home = load(click.get_current_context()).home
    return lambda path: make(Task(name, inputs(path), choices, more, ready), home)


def defaults(given: dict[str, Any]) -> Any:
    """Return what is taken where a header says nothing, from the options."""
    from broker.imaging.fits import Defaults

    return Defaults(**{name: value for name, value in given.items() if value is not None})


def each(
    files: Sequence[Path],
    work: Callable[[Path], dict[str, Any]],
    columns: Sequence[str],
    as_json: bool,
    *,
    stop: bool = True,
    silent: bool = False,
) -> int:
    """Do the work for each file, print a row each, return how many failed."""
    rows = []
    with progress("files", len(files)) as advance:
        for path in files:
            try:
                row = {"file": str(path), "status": "ok"} | work(path)
            except BrokerError as error:
                if not isinstance(error, AlertError):
                    raise
                row = {"file": str(path), "status": "failed", "reason": error.message}
            except Exception as error:  # noqa: BLE001 - one file must not stop the others
                reason = f"{type(error).__name__}: {error}"
                row = {"file": str(path), "status": "failed", "reason": reason}
            rows.append(row)
            advance(1)
    failed = sum(row["status"] == "failed" for row in rows)
    if silent:
        for row in rows:
            if row["status"] == "failed":
                click.echo(f"{row['file']}: {row['reason']}", err=True)
    else:
        shown = ["file", "status", *columns, *(["reason"] if failed or as_json else [])]
        emit_rows(rows, shown, as_json=as_json)
    if failed and stop:
        sys.exit(BAD_DATA)
    return failed

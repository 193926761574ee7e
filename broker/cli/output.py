"""What a person or a program sees: tables, JSON, progress.

Data go to standard output, words to standard error.
"""

import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from broker.errors import AlertError

BAD_DATA = AlertError.exit_code
"""How a command ends that did its work, and found that something is not as it should be."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def plain(value: Any) -> Any:
    """Return a value as JSON has it: null for NaN, text for bytes, lists for arrays."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(v) for v in value]
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        return plain(value.item())
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return value


def emit_json(value: Any) -> None:
    """Print one JSON document on standard output."""
    click.echo(json.dumps(plain(value), indent=2, ensure_ascii=False))


def emit_rows(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool, title: str = ""
) -> None:
    """Print rows as a table, or as a JSON list of objects with the same names."""
    if as_json:
        emit_json([{name: row.get(name) for name in columns} for row in rows])
        return
    table = Table(title=title or None, title_justify="left")
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_text(name, row.get(name))) for name in columns))
    Console(soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 160).print(
        table
    )


class Finding(Protocol):
    """What a benchmark measured, beside what it should be."""

    @property
    def is_met(self) -> bool | None:
        """None where nothing is required."""


def emit_findings(found: Sequence[Finding], *, as_json: bool, beside: str = "anchor") -> None:
    """Print the rows of a benchmark; end with `BAD_DATA` if one is not what it should be.

    Parameters
    ----------
    found : sequence of Finding
        With attributes `what`, `measured`, `required`, `anchor` and `is_met`.
    as_json : bool
    beside : str
        The name of the column that says what else to see a number beside.
    """
    names = ("what", "measured", "required", "anchor", "is_met")
    columns = ("what", "measured", "required", beside, "isMet")
    rows = [dict(zip(columns, (getattr(one, n) for n in names), strict=True)) for one in found]
    emit_rows(rows, columns, as_json=as_json)
    if not all(one.is_met for one in found if one.is_met is not None):
        sys.exit(BAD_DATA)


def emit_record(record: Mapping[str, Any]) -> None:
    """Print one record as a table of names and values; nested ones as sections of their own."""
    console = Console(soft_wrap=not sys.stdout.isatty())
    table = Table(show_header=False)
    for name, value in record.items():
        if not isinstance(value, Mapping):
            table.add_row(name, Text(_text(name, value)))
    console.print(table)
    for name, value in record.items():
        if isinstance(value, Mapping) and value:
            console.print(f"[bold]{name}[/bold]")
            emit_record(value)


_DECIMALS = {"ra": 6, "dec": 6, "midpointMjdTai": 5, "firstMjdTai": 5}
"""Places that a person needs of positions [deg] and times [d]; other numbers get six digits."""


def _text(name: str, value: Any) -> str:
    value = plain(value)
    if value is None:
        return "–"
    if isinstance(value, list) and not any(isinstance(item, dict) for item in value):
        return ", ".join(str(item) for item in value) or "–"
    if isinstance(value, float):
        return f"{value:.{_DECIMALS[name]}f}" if name in _DECIMALS else f"{value:.6g}"
    return str(value)


@contextmanager
def progress(label: str, total: int | None = None) -> Iterator[Any]:
    """Yield a function `advance(n=1)`; a bar on standard error, nothing if it is no terminal."""
    if not sys.stderr.isatty():
        yield lambda n=1: n
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda n=1: bar.advance(task, n)

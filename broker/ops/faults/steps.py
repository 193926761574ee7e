"""The numbered steps of a micro-batch of the alerts query, and dying at one of them.

A file names the step that is fatal; whichever process comes to it kills the stream. The query
itself knows nothing of this: its parts are wrapped before it is started.
"""

import functools
import importlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from broker.store.ledger import Ledger
from broker.store.table import Table, Tables

STEPS = ("begun", "storing", "stored", "publishing", "published", "recorded")
"""In the order in which a batch passes them:

begun: Spark has written what the batch takes, nothing is done. storing: rows of some alerts are
in the first of three tables. stored: all rows of an Arrow batch are acknowledged, nothing has
left. publishing: packets of an earlier Arrow batch are on their way. published: all packets are
acknowledged. recorded: the ledger has the batch, Spark has not committed it.
"""

TRANSACTION_STEPS = ("sent", "committed")
"""With transactions besides: sent: all packets of a task are acknowledged, readers of committed
messages see none. committed: they see all of them, Spark does not know that the task is done.
"""

_ARMED, _FIRED, _GROUP = "armed", "fired", "group"


def arm(folder: Path, step: str) -> None:
    """Make a step fatal, once."""
    (folder / _FIRED).unlink(missing_ok=True)
    new = folder / f"{_ARMED}.new"
    new.write_text(step, encoding="ascii")
    new.replace(folder / _ARMED)


def disarm(folder: Path) -> None:
    """Make no step fatal."""
    (folder / _ARMED).unlink(missing_ok=True)


def fired(folder: Path) -> bool:
    """Return whether the armed step was reached."""
    return (folder / _FIRED).exists()


def note_group(folder: Path, group: int) -> None:
    """Note which process group is the stream."""
    (folder / _GROUP).write_text(str(group), encoding="ascii")


def reach(folder: Path, step: str) -> None:
    """Die here, and the stream with this process, if the step is armed."""
    try:
        if (folder / _ARMED).read_text(encoding="ascii") != step:
            return
        (folder / _ARMED).rename(folder / _FIRED)  # one of two workers comes first
    except FileNotFoundError:
        return
    os.killpg(int((folder / _GROUP).read_text(encoding="ascii")), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60.0)


def wrap_query(folder: Path) -> None:
    """Put the steps into the alerts query of this process and of the workers it will have."""
    module = importlib.import_module("broker.streaming.alerts")
    setattr(module, "batch_ranges", before(folder, "begun", module.batch_ranges))  # noqa: B010
    setattr(module, "write_messages", after(folder, "published", module.write_messages))  # noqa: B010
    setattr(module, "Ledger", functools.partial(_ledger, folder))  # noqa: B010
    setattr(module, "Outbox", functools.partial(outbox_with_steps, folder))  # noqa: B010
    # Pickled with the function that runs in the workers.
    setattr(module, "enricher_for", functools.partial(enricher_with_steps, folder))  # noqa: B010


def before(folder: Path, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that comes to a step before it does its work."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        reach(folder, step)
        return function(*args, **kwargs)

    return wrapped


def after(folder: Path, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that comes to a step when it has done its work."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        done = function(*args, **kwargs)
        reach(folder, step)
        return done

    return wrapped


def _ledger(folder: Path, *args: Any) -> Ledger:
    ledger = Ledger(*args)
    setattr(ledger, "record", after(folder, "recorded", ledger.record))  # noqa: B010
    return ledger


def outbox_with_steps(folder: Path, *args: Any, **kwargs: Any) -> Any:
    """Return what sends in transactions, with its steps; called in the worker."""
    outbox = importlib.import_module("broker.spark.outbox").Outbox(*args, **kwargs)
    commit = after(folder, "committed", outbox.commit)

    def flush_and_commit() -> None:
        outbox.flush()
        reach(folder, "sent")
        commit()

    outbox.commit = flush_and_commit
    return outbox


class _Table:
    """A table in which storing may be cut short."""

    def __init__(self, table: Table, folder: Path) -> None:
        self._table, self._folder = table, folder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._table, name)

    def put(self, *args: Any, **kwargs: Any) -> None:
        """Put rows, and come to the step."""
        self._table.put(*args, **kwargs)
        reach(self._folder, "storing")


class _TablesWithSteps:
    """Tables of which that of the alerts, the first to be written, comes to a step."""

    def __init__(self, tables: Tables, folder: Path) -> None:
        self._tables, self._folder = tables, folder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tables, name)

    def table(self, name: str) -> Any:
        """Return a table."""
        table = self._tables.table(name)
        return _Table(table, self._folder) if name.endswith(".alert") else table


class _EnricherWithSteps:
    """An enricher that comes to the steps of the workers."""

    def __init__(self, enricher: Any, folder: Path) -> None:
        self._enricher, self._folder = enricher, folder
        self._batch_id = ""

    def enrich(self, batch: Any, **kwargs: Any) -> Any:
        """Enrich an Arrow batch."""
        if kwargs["batch_id"] == self._batch_id:
            reach(self._folder, "publishing")
        self._batch_id = kwargs["batch_id"]
        done = self._enricher.enrich(batch, **kwargs)
        reach(self._folder, "stored")
        return done


@functools.cache
def enricher_with_steps(folder: Path, config: Any) -> _EnricherWithSteps:
    """Return a worker's enricher; called in the worker."""
    worker = importlib.import_module("broker.spark.worker")
    hbase = worker.HBaseTables

    def tables(*args: Any, **kwargs: Any) -> _TablesWithSteps:
        return _TablesWithSteps(hbase(*args, **kwargs), folder)

    setattr(worker, "HBaseTables", tables)  # noqa: B010
    return _EnricherWithSteps(worker.enricher_for(config), folder)

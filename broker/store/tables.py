"""All tables of a run: their families, and where they are split."""

from dataclasses import dataclass

from broker.store.keys import OBJECT_ORDER, SKY_ORDER, pixel_splits, salt_splits
from broker.store.table import Family, Tables
from broker.types import Run

_ALERT = tuple(Family(name) for name in ("c", "m", "t", "p", "o"))
"""Canonical scalars and matches, module outputs, topics, provenance, origins."""


@dataclass(frozen=True)
class _Plan:
    name: str
    families: tuple[Family, ...]
    splits: tuple[bytes, ...] = ()


def _plans(regions: int) -> tuple[_Plan, ...]:
    salted = salt_splits(regions)
    return (
        _Plan("alert", _ALERT, salted),
        _Plan("alert_id", (Family("k"),), salted),
        _Plan("sky", (Family("k"),), pixel_splits(regions, SKY_ORDER)),
        _Plan("index", (Family("b"), Family("n"))),
        _Plan("moving", (Family("k"),)),
        _Plan("association", (Family("s"),), pixel_splits(regions, OBJECT_ORDER)),
        _Plan("forced", (Family("f"),), pixel_splits(regions, OBJECT_ORDER)),
        _Plan("retraction", (Family("r"),)),
        _Plan("detector", (Family("d"), Family("o"))),
        _Plan("notice", (Family("n"),)),
        _Plan("annotation", (Family("a"),), salted),
        _Plan("ledger", (Family("l"),)),
        _Plan("quarantine", (Family("f"),)),
        _Plan("meta", (Family("v"),)),
    )


def create_tables(tables: Tables, run: Run, regions: int = 1) -> None:
    """Create all tables of a run; those that exist are left as they are.

    Parameters
    ----------
    tables : Tables
        Where.
    run : Run
        Whose.
    regions : int
        Regions that a night's rows are spread over from the start.
    """
    for plan in _plans(regions):
        tables.create(run.table(plan.name), plan.families, plan.splits)


def drop_tables(tables: Tables, run: Run) -> None:
    """Drop all tables of a run, with their rows."""
    for plan in _plans(1):
        tables.drop(run.table(plan.name))

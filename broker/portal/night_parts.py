"""Parts of the page of a night: how fast it was, and what of the sky was not processed."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from broker.api.sources import LEDGER_S, Sources
from broker.store.objects import DetectorStore

_MOST = 500
_SHARES = (0.5, 0.95, 0.99)


def latency_rows(sources: Sources, batches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return how long messages took, from their topic to the end of their batch, by query.

    Parameters
    ----------
    sources : Sources
    batches : sequence of mapping
        The night's, with `query` and `batchId`.

    Returns
    -------
    list of dict
        `query`, `messages`, `mean` [s], `within`: for each class its upper bound [s] (None for
        the last), `count` and the `part` of all; `shares`: the bound that half, 95 % and 99 % of
        the messages were within [s], None if slower than all bounds.
    """
    chosen = {(one["query"], one["batchId"], one["recordedMs"]) for one in batches}
    by_query: dict[str, list[Mapping[str, Any]]] = {}
    for batch in sources.batches():
        told = batch.stats.get("latency")
        if told and (batch.query, batch.batch_id, batch.recorded_ms) in chosen:
            by_query.setdefault(batch.query, []).append(told)
    return [
        {"query": query, **latency_of_batches(told)} for query, told in sorted(by_query.items())
    ]


def latency_of_batches(told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one histogram of those of several batches, which have the same bounds."""
    bounds = list(told[-1]["bounds"])
    same = [one for one in told if list(one["bounds"]) == bounds]
    counts = [sum(column) for column in zip(*(one["counts"] for one in same), strict=True)]
    total = sum(counts)
    return {
        "messages": total,
        "mean": sum(one["sum"] for one in same) / total if total else None,
        "within": [
            {"bound": bound, "count": count, "part": count / total if total else 0.0}
            for bound, count in zip([*bounds, None], counts, strict=True)
        ],
        "shares": [(share, _bound_of(bounds, counts, share * total)) for share in _SHARES],
    }


def _bound_of(bounds: Iterable[float], counts: Sequence[int], wanted: float) -> float | None:
    reached = 0
    for bound, count in zip(bounds, counts, strict=False):
        reached += count
        if reached >= wanted > 0.0:
            return bound
    return None


def undone_images(sources: Sources) -> dict[str, Any]:
    """Return the parts of the sky that were looked at and are in no alert: images not processed.

    Returns
    -------
    dict
        `images` in all, `undone` of them, `reasons` with their numbers, the most first, and
        `rows`: `visit` and `detector` as text, `status`, `reason`. At most a minute old.
    """
    return sources.kept("undone", LEDGER_S, lambda: _undone(sources))


def _undone(sources: Sources) -> dict[str, Any]:
    reasons: dict[tuple[str, str], int] = {}
    rows: list[dict[str, str]] = []
    images = 0
    if sources.run.table("detector") in sources.tables.names():
        for row in DetectorStore(sources.tables, sources.run).all():
            images += 1
            if row.status == "done":
                continue
            reasons[row.status, row.reason] = reasons.get((row.status, row.reason), 0) + 1
            names = {"visit": str(row.visit), "detector": str(row.detector)}
            rows.append({**names, "status": row.status, "reason": row.reason})
    listed = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return {
        "images": images,
        "undone": len(rows),
        "reasons": [{"status": s, "reason": r, "count": n} for (s, r), n in listed],
        "rows": rows[:_MOST],
    }

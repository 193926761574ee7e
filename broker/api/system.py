"""How the broker is: modules, catalogues, nights, the ledger, health."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Response

from broker.api.errors import ApiError, not_found
from broker.api.formats import json_response
from broker.api.own_objects import images_of_night
from broker.api.questions import EXAMPLE_NIGHT, ShapeOf, SourcesOf
from broker.api.resolve import parse_night
from broker.api.rows import Row
from broker.api.sources import Sources
from broker.errors import BrokerError
from broker.types import night_of
from broker.units import unix_s_to_mjd_tai

router = APIRouter(tags=["system"])


def module_rows(sources: Sources) -> list[Row]:
    """Return the science modules: what they give, and whether they may run."""
    status = {(s.name, s.version): s for s in sources.module_status()}
    rows = []
    for module in sources.contributions.modules:
        stands = status.get((module.name, module.version))
        rows.append(
            {
                "module": module.name,
                "version": module.version,
                "title": module.title,
                "doc": module.doc,
                "inputs": list(module.inputs),
                "outputs": [
                    {"name": c.name, "dtype": c.dtype, "unit": c.unit, "doc": c.doc}
                    for c in module.outputs
                ],
                "status": "quarantined" if stands and stands.quarantined else "ok",
                "failures": stands.failures if stands else 0,
                "lastFailureMs": stands.last_failure_ms if stands else None,
                "reason": _kind_of(stands.reason) if stands else None,
            }
        )
    return rows


def _kind_of(reason: str) -> str:
    """Return the kind of a failure: the rest of its words may quote an alert that is not public."""
    return reason.partition(":")[0][:100]


def catalog_rows(sources: Sources) -> list[Row]:
    """Return the defined catalogues; one without rows is "not installed" and is not searched."""
    rows = []
    for name, definition in sources.catalogs.definitions.items():
        installed = sources.catalogs.rows(name)
        rows.append(
            {
                "catalog": name,
                "doc": definition.doc,
                "radiusArcsec": definition.radius_arcsec,
                "version": installed.version if installed else None,
                "entries": installed.table.num_rows if installed else None,
                "status": "installed" if installed else "not installed",
                "columns": [
                    {"name": c.name, "dtype": c.dtype, "unit": c.unit, "doc": c.doc}
                    for c in definition.columns
                ],
            }
        )
    return rows


@router.get("/modules")
def list_modules(sources: SourcesOf, shape: ShapeOf) -> Response:
    """Return the science modules: version, inputs, outputs, and whether they may run."""
    return shape.answer(module_rows(sources), name="modules")


@router.get("/catalogs")
def list_catalogs(sources: SourcesOf, shape: ShapeOf) -> Response:
    """Return the reference catalogues: radius of the match, version, number of entries."""
    return shape.answer(catalog_rows(sources), name="catalogs")


def ledger_of(sources: Sources) -> dict[str, Any]:
    """Return the ledger: every message that was consumed, and where it ended."""
    accounts = sources.accounts()
    return {
        "isClosed": accounts.is_closed,
        "unread": accounts.unread,
        "data": [row.as_json() for row in accounts.rows],
        "problems": [
            {"query": p.query, "coordinate": str(p.coordinate), "what": p.what}
            for p in accounts.problems
        ],
    }


@router.get("/ledger")
def read_ledger(sources: SourcesOf, shape: ShapeOf) -> Response:
    """Return what became of every message: consumed = stored + duplicates + … + missing.

    An answer may be a minute old.
    """
    ledger = ledger_of(sources)
    rows = ledger.pop("data")
    return shape.answer(rows, name="ledger", around=ledger)


@router.get("/nights")
def list_nights(sources: SourcesOf, shape: ShapeOf) -> Response:
    """Return the nights of which there are alerts, the newest first; at most a minute old."""
    rows = [
        {"night": night, "alerts": sum(by_survey.values()), **by_survey}
        for night, by_survey in sorted(sources.night_counts().items(), reverse=True)
    ]
    return shape.answer(rows, name="nights")


def night_of_run(sources: Sources, night: str) -> dict[str, Any]:
    """Return a night's counts, its images, and the batches finished between its noons (UTC).

    Raises
    ------
    ApiError
        If there is neither an alert nor a batch of that night.
    """
    by_survey = sources.night_counts().get(night, {})
    batches = [
        {
            "query": batch.query,
            "batchId": batch.batch_id,
            "recordedMs": batch.recorded_ms,
            "messages": sum(r.end - r.first for r in batch.ranges),
            "counts": dict(batch.counts),
            "seconds": batch.stats.get("seconds", {}).get("batch"),
        }
        for batch in sources.batches()
        if night_of(float(unix_s_to_mjd_tai(batch.recorded_ms / 1000.0))) == night
    ]
    images = images_of_night(sources, night)
    if not by_survey and not batches and not images["images"]:
        raise not_found("alert or batch of night", night, list(sources.night_counts())[-10:])
    return {
        "night": night,
        "alerts": sum(by_survey.values()),
        "bySurvey": dict(by_survey),
        "images": images,
        "batches": batches,
    }


@router.get("/nights/{night}")
def read_night(
    sources: SourcesOf,
    night: Annotated[str, Path(description="YYYYMMDD", examples=[EXAMPLE_NIGHT], max_length=20)],
) -> Response:
    """Return a night: alerts by survey, own images with their flags, batches finished in it."""
    return json_response(night_of_run(sources, parse_night(night)))


def health_of(sources: Sources) -> dict[str, Any]:
    """Return how the parts are that answers come from."""
    return {
        "run": sources.run.name,
        "parts": [
            _part("HBase", lambda: f"{len(sources.tables.names())} tables"),
            _part("Kafka", lambda: f"{len(sources.topic_counts())} topics of this run"),
            _part("archive", lambda: f"{len(sources.archive.nights())} nights"),
            _part("catalogues", lambda: _installed(sources)),
        ],
    }


def _installed(sources: Sources) -> str:
    rows = catalog_rows(sources)
    return f"{sum(r['status'] == 'installed' for r in rows)} of {len(rows)} installed"


def _part(name: str, look: Any) -> dict[str, Any]:
    try:
        return {"part": name, "ok": True, "words": look()}
    except (BrokerError, OSError) as error:
        return {"part": name, "ok": False, "words": str(error)}


@router.get("/health")
def read_health(sources: SourcesOf) -> Response:
    """Tell whether the stores that answers come from can be read; 503 if one cannot."""
    health = health_of(sources)
    bad = [part["part"] for part in health["parts"] if not part["ok"]]
    if bad:
        raise ApiError(503, f"not to be read: {', '.join(bad)}")
    return json_response(health)

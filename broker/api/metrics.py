"""The metrics of the run, for Prometheus."""

from fastapi import APIRouter, Response

from broker.api.questions import SourcesOf
from broker.api.sources import Sources
from broker.ops.metrics import Metrics

FORMAT = "text/plain; version=0.0.4; charset=utf-8"

router = APIRouter(include_in_schema=False)


def metrics_of(sources: Sources) -> Metrics:
    """Return the metrics of these sources, which go on where the last scrape ended."""
    made: Metrics = sources.kept(
        "metrics",
        float("inf"),
        lambda: Metrics(
            sources.run,
            topics=sources.topics,
            tables=sources.tables,
            folder=sources.archive.path,
        ),
    )
    return made


@router.get("/metrics")
def read_metrics(sources: SourcesOf) -> Response:
    """Return lag, rates, latency, modules, topics, dead letters and the ledger as numbers."""
    return Response(metrics_of(sources).page(), media_type=FORMAT)

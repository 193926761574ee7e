"""A pair of a notice and an alert as bytes: framed Avro, as our alerts are."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from broker import avro
from broker.avro import Schema
from broker.notices.match import Members
from broker.notices.notice import Notice
from broker.types import Run

SCHEMA = "broker/notice/1.0"
"""Name of the schema that pairs are written with."""

NOTICES, NOTICE_MATCHES = "notices", "public.notice-matches"


def notices_topic(run: Run) -> str:
    """Return the name of the topic with the notices of a run."""
    return run.internal_topic(NOTICES)


def notice_matches_topic(run: Run) -> str:
    """Return the name of the public topic with pairs of a notice and an alert."""
    return run.internal_topic(NOTICE_MATCHES)


def pair_schemas() -> dict[int, Schema]:
    """Return the schema of pairs by its id, for the topic of schemas."""
    schema = avro.read_schema(SCHEMA)
    return {avro.schema_id(schema): schema}


def encode_pairs(
    notice: Notice, found: Members, alerts: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[bytes, bytes]]:
    """Yield key and body of the message of each pair; equal pairs give equal bytes.

    The key is noticeId, survey and diaSourceId: who drops a key that came before has each
    pair once.

    Parameters
    ----------
    notice : Notice
        The notice.
    found : Members
        Its alerts.
    alerts : sequence of mapping
        Of each of them at least survey, diaSourceId, diaObjectId, midpointMjdTai, ra, dec.
    """
    ((identifier, schema),) = pair_schemas().items()
    of_notice = {
        "noticeId": notice.notice_id,
        "event": notice.event,
        "noticeKind": notice.kind,
        "isTest": notice.is_test,
        "reporter": notice.reporter,
        "triggerMjdTai": notice.trigger_mjd_tai,
    }
    names = ("survey", "diaSourceId", "diaObjectId", "midpointMjdTai", "ra", "dec")
    for alert, level, separation, delay in zip(
        alerts,
        found.levels.tolist(),
        found.separations.tolist(),
        found.delays.tolist(),
        strict=True,
    ):
        record = of_notice | {name: alert[name] for name in names}
        record |= {"delay": delay, "separation": separation, "credibleLevel": level}
        key = f"{notice.notice_id}|{alert['survey']}|{alert['diaSourceId']}"
        yield key.encode(), avro.frame(identifier, avro.encode(schema, record))

"""Topics with what they hold, and schemas as a schema registry's clients ask for them."""

import json
from collections import Counter
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from broker.api.errors import ApiError, not_found
from broker.api.formats import json_response
from broker.api.pages import Page, decode_cursor, encode_cursor
from broker.api.questions import (
    EXAMPLE_SCHEMA,
    EXAMPLE_TOPIC,
    Cursor,
    Limit,
    ShapeOf,
    SourcesOf,
)
from broker.api.rows import Row, iso_utc, magnitude
from broker.api.sources import Sources
from broker.avro import decode, unframe
from broker.errors import AlertError
from broker.ops.accounts import ALERTS_QUERY
from broker.topics.topic import Message
from broker.watchlists import HEADER as WATCHLIST

router = APIRouter(tags=["topics and schemas"])
registry_router = APIRouter(tags=["topics and schemas"])

TopicName = Annotated[
    str, Path(description="A filter's topic.", examples=[EXAMPLE_TOPIC], max_length=200)
]
SchemaId = Annotated[int, Path(description="Id of a schema.", examples=[EXAMPLE_SCHEMA], ge=0)]


def topic_rows(sources: Sources) -> list[Row]:
    """Return the filters' topics: what they choose, and how much of it there is."""
    counts, passed = sources.topic_counts(), _passed(sources)
    stored = passed.get("stored", 0) - passed.get("notPublic", 0)
    quarantined = {f"{s.name}@{s.version}" for s in sources.module_status() if s.quarantined}
    quarantined_names = {label.partition("@")[0] for label in quarantined}
    rows = []
    for chosen in sources.contributions.filters:
        slim, full = (sources.run.public_topic(chosen.topic, v) for v in ("slim", "full"))
        end = sources.end_of(chosen.topic)
        rows.append(
            {
                "topic": chosen.topic,
                "title": chosen.title,
                "doc": chosen.doc,
                "inputs": list(chosen.inputs),
                "maxPassFraction": chosen.max_pass_fraction,
                "passFraction": passed.get(f"topic:{chosen.topic}", 0) / stored if stored else None,
                "status": "quarantined" if chosen.topic in quarantined_names else "ok",
                "deprecated": end.sentence if end else None,
                "ends": end.ends if end else None,
                "instead": (end.instead or None) if end else None,
                "slimTopic": slim,
                "slimMessages": counts.get(slim, 0),
                "fullTopic": full,
                "fullMessages": counts.get(full, 0),
            }
        )
    return rows


def _passed(sources: Sources) -> Counter[str]:
    total: Counter[str] = Counter()
    for batch in sources.batches():
        if batch.query == ALERTS_QUERY:
            total.update(batch.counts)
    return total


@router.get("/topics")
def list_topics(sources: SourcesOf, shape: ShapeOf) -> Response:
    """Return the topics: what each chooses, its part of the public alerts, messages it holds.

    `deprecated` says why a topic ends, `ends` its last day (UTC), `instead` which one to use.
    """
    return shape.answer(topic_rows(sources), name="topics")


@router.get("/topics/{topic}/alerts")
def read_topic_alerts(
    sources: SourcesOf, shape: ShapeOf, topic: TopicName, limit: Limit = 100, cursor: Cursor = None
) -> Response:
    """Return the newest packets of a topic, the newest first, each alert once a page."""
    page = newest(sources, topic, limit=limit, cursor=cursor or None)
    return shape.answer_page(page, name=topic)


def newest(sources: Sources, topic: str, *, limit: int, cursor: str | None = None) -> Page[Row]:
    """Return the newest alerts of a topic; a cursor goes on with older ones.

    Raises
    ------
    ApiError
        If there is no such topic.
    """
    known = sources.contributions.topics
    watched = sources.watchlist_of(topic)
    if topic not in known and (watched is None or watched.is_private):
        raise not_found("topic", topic, known)
    return newest_packets(sources, topic, limit=limit, cursor=cursor)


def newest_packets(
    sources: Sources, topic: str, *, limit: int, cursor: str | None = None
) -> Page[Row]:
    """Return what `newest` does, of a topic that someone may see."""
    name = sources.run.public_topic(topic, "slim")
    if name not in sources.topic_counts():
        return Page([], 0, None)
    ranges = sources.topics.ranges(name)
    ends = _ends(cursor) if cursor else {part.partition: part.end for part in ranges}
    messages: list[Message] = []
    for part in ranges:
        end = min(ends.get(part.partition, part.first), part.end)
        first = max(part.first, end - limit)
        messages += sources.topics.read(name, partition=part.partition, first=first, end=end)
    messages.sort(key=lambda m: (m.timestamp_ms or 0, m.coordinate), reverse=True)
    shown = messages[:limit]
    left = dict(ends)
    for message in shown:
        if message.coordinate is not None:
            left[message.coordinate.partition] = message.coordinate.offset
    more = any(left.get(part.partition, 0) > part.first for part in ranges)
    rows, seen = [], set()
    for message in shown:
        row = _row(sources, message)
        if row is not None and message.key not in seen:
            seen.add(message.key)
            rows.append(row)
    total = sum(part.end - part.first for part in ranges)
    return Page(rows, total, encode_cursor(sorted(left.items())) if more and shown else None)


def _ends(cursor: str) -> dict[int, int]:
    try:
        return {int(partition): int(end) for partition, end in decode_cursor(cursor)}
    except (TypeError, ValueError) as error:
        raise ApiError(400, "the cursor belongs to another question") from error


def _row(sources: Sources, message: Message) -> Row | None:
    """Return a slim packet as a row; None if it cannot be read or not all may see it."""
    if message.value is None:
        return None
    try:
        schema_id, body = unframe(message.value)
        record = decode(sources.schema(schema_id), body)
    except (AlertError, ApiError):
        return None
    if not record.get("isPublic", False):
        return None
    row: Row = {}
    for name, value in record.items():
        if isinstance(value, list | dict | bytes):
            continue
        row[name] = str(value) if name == "visit" and value is not None else value
        if name == "midpointMjdTai":
            row["midpointUtc"] = iso_utc(value)
        elif name == "psfFluxErr":
            row["mag"], row["magErr"] = magnitude(record.get("psfFlux"), value)
    object_id, ss_object_id = row.get("diaObjectId"), row.get("ssObjectId")
    row["objectId"] = object_id or (f"ss:{ss_object_id}" if ss_object_id else None)
    row["publishedMs"] = message.timestamp_ms
    said = message.header(WATCHLIST)
    if said is not None:
        match = json.loads(said)
        row["watchEntry"], row["watchSeparation"] = match.get("entry"), match.get("separation")
    return row


@router.get("/schemas")
def list_schemas(sources: SourcesOf) -> Response:
    """Return the schemas of what is published: id and name."""
    rows = [{"id": i, "name": s.get("name")} for i, s in sorted(sources.schemas().items())]
    return json_response({"data": rows})


@registry_router.get("/schemas/ids/{schemaId}")
def read_schema_as_registry(
    sources: SourcesOf,
    schemaId: SchemaId,  # noqa: N803  # parameters have wire names
    subject: Annotated[str | None, Query(max_length=500)] = None,  # noqa: ARG001
    format: Annotated[str | None, Query(max_length=100)] = None,  # noqa: A002, ARG001
    fetchMaxId: bool = False,  # noqa: ARG001, N803
) -> Response:
    """Return a schema to a client of schema registries, with the parameters that these send.

    An id has one schema here, whatever the subject, and it is sent as it is.
    """
    return read_schema(sources, schemaId)


@router.get("/schemas/ids/{schemaId}")
def read_schema(sources: SourcesOf, schemaId: SchemaId) -> Response:  # noqa: N803
    """Return a schema as a schema registry does: `{"schema": "…"}`."""
    body: dict[str, Any] = {"schema": json.dumps(sources.schema(schemaId)), "schemaType": "AVRO"}
    media_type = "application/vnd.schemaregistry.v1+json"
    return Response(json.dumps(body), media_type=media_type)

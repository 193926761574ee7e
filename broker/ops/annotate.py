"""The annotator: alerts of a public topic, asked about at a remote service, outside the pass.

The order of side effects: the answer is stored, then published, then the alert chosen for the
filter's topic is sent on, then the reader's progress is committed. An alert during which the
program died comes again; an answer that was stored is used again, so that the service is asked no
second time and the message that is sent again has the same key and bytes.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd

from broker import avro
from broker.alerts.columns import Column, camel_case, snake_case
from broker.avro import Schema
from broker.ops.annotate_answer import Names
from broker.ops.annotate_service import ConeService
from broker.science.expression import NUMBER, TRUTH, Expression, read_expression
from broker.store.annotations import MATCH, Annotation, AnnotationStore
from broker.topics.publish import store_schemas
from broker.topics.topic import Message, Topics, TopicSettings
from broker.types import Run

SCHEMA, ANNOTATIONS = "broker/annotation/1.0", "public.annotations"

_POLL_S = 0.2
_AT_ONCE = 100  # then progress is committed: a slow service shall not let it fall far behind

Record = Mapping[str, Any]


class Reader(Protocol):
    """Where alerts come from, and who remembers how far they were handled."""

    def poll(self, timeout_s: float) -> list[Message]:
        """Return what has come, after at most this long."""
        ...

    def handled(self, message: Message) -> None:
        """Take note that a message needs not come again."""
        ...

    def commit(self) -> None:
        """Keep what was noted."""
        ...


def annotations_topic(run: Run) -> str:
    """Return the name of the public topic with a run's annotations."""
    return run.internal_topic(ANNOTATIONS)


def annotation_schemas() -> dict[int, Schema]:
    """Return the schema of annotations by its id, for the topic of schemas."""
    schema = avro.read_schema(SCHEMA)
    return {avro.schema_id(schema): schema}


def annotation_columns(names: Names) -> dict[str, Column]:
    """Return what a filter may use of an annotation, by parameter name."""
    columns = [
        Column("annotationStatus", "string", "", "match, no-match, failed or not-asked."),
        Column("annotationId", "string", "", "Identifier of the nearest entry."),
        Column("annotationSeparation", "float64", "arcsec", "Distance from the nearest entry."),
        *(Column(_column(name), "float64", "", "A number of the entry.") for name in names.numbers),
        *(Column(_column(name), "string", "", "A text of the entry.") for name in names.texts),
    ]
    return {column.python_name: column for column in columns}


def _column(name: str) -> str:
    return "annotation" + name[0].upper() + name[1:]


@dataclass(frozen=True)
class AnnotationFilter:
    """Which annotated alerts go to a topic of their own.

    Parameters
    ----------
    expression : Expression
        Over columns of the packet and of the annotation.
    topic : str
        Where they go, in full.
    """

    expression: Expression
    topic: str

    def passes(self, alerts: Sequence[Record], annotations: Sequence[Annotation]) -> list[bool]:
        """Return which alerts are chosen."""
        if not alerts:
            return []
        rows = [{**_flat(a), **_said(b)} for a, b in zip(alerts, annotations, strict=True)]
        series = [
            _series([row.get(name) for row in rows], kind)
            for name, kind in zip(self.expression.inputs, self.expression.kinds, strict=True)
        ]
        return [bool(chosen) for chosen in self.expression(*series)]


def annotation_filter(
    text: str, topic: str, *, columns: Mapping[str, Column], names: Names
) -> AnnotationFilter:
    """Return a checked filter.

    Parameters
    ----------
    text : str
        One expression, as of `broker.science.expression`.
    topic : str
        Where chosen alerts go, in full.
    columns : mapping of str to Column
        What a packet has, by parameter name.
    names : Names
        What is asked for of an entry.

    Raises
    ------
    ConfigError
        If the expression cannot be read or names a column that there is not.
    """
    return AnnotationFilter(read_expression(text, {**columns, **annotation_columns(names)}), topic)


class Annotator:
    """Asks a service about alerts and passes on what it says.

    Parameters
    ----------
    service : ConeService
        Who is asked.
    name : str
        The service's name in annotations.
    store : AnnotationStore
        Where annotations are kept.
    topics : Topics
        Where they are published.
    run : Run
        Whose.
    read : callable
        Makes a message of the topic into a record.
    clock : callable
        The time, MJD, TAI. [d]
    chosen : AnnotationFilter, optional
        Which alerts go to a topic of their own.
    threads : int
        Questions that are under way at once.
    """

    def __init__(
        self,
        service: ConeService,
        *,
        name: str,
        store: AnnotationStore,
        topics: Topics,
        run: Run,
        read: Callable[[Message], Record],
        clock: Callable[[], float],
        chosen: AnnotationFilter | None = None,
        threads: int = 8,
    ) -> None:
        self._service, self._name, self._store = service, name, store
        self._topics, self._run, self._read, self._clock = topics, run, read, clock
        self._chosen, self._threads = chosen, threads
        self._topic = annotations_topic(run)
        topics.create(self._topic, TopicSettings())
        if chosen is not None:
            topics.create(chosen.topic, TopicSettings())
        store_schemas(topics, run, annotation_schemas())

    def annotate(self, messages: Sequence[Message]) -> Counter[str]:
        """Ask about some alerts; when it returns, all that is said is stored and published.

        Returns
        -------
        Counter
            `alerts`, how many got which status, how many were `remembered`, and `chosen`.
        """
        alerts = [self._read(message) for message in messages]
        known = self._store.answers([_id(alert) for alert in alerts], self._name)
        with ThreadPoolExecutor(self._threads) as pool:
            annotations = list(pool.map(lambda alert: self._one(alert, known), alerts))
        self._store.put(one for one in annotations if _id_of(one) not in known)
        self._topics.send(self._topic, [annotation_message(one) for one in annotations])
        counts = Counter(one.status for one in annotations)
        counts["alerts"] = len(alerts)
        counts["remembered"] = sum(_id_of(one) in known for one in annotations)
        if self._chosen is not None:
            passes = self._chosen.passes(alerts, annotations)
            sent = [
                _with_annotation(message, one)
                for message, one, is_chosen in zip(messages, annotations, passes, strict=True)
                if is_chosen
            ]
            self._topics.send(self._chosen.topic, sent)
            counts["chosen"] = len(sent)
        return counts

    def run(
        self, reader: Reader, *, idle_s: float | None, monotonic: Callable[[], float]
    ) -> Counter[str]:
        """Annotate alerts as they come, until none has come for `idle_s`; None is for ever.

        Returns
        -------
        Counter
            The sum of what `annotate` returned.
        """
        total: Counter[str] = Counter()
        last = monotonic()
        while True:
            messages = reader.poll(_POLL_S)
            for low in range(0, len(messages), _AT_ONCE):
                part = messages[low : low + _AT_ONCE]
                total += self.annotate([m for m in part if m.value is not None])
                for message in part:
                    reader.handled(message)
                reader.commit()
                last = monotonic()
            if messages:
                continue
            if idle_s is not None and monotonic() - last >= idle_s:
                return total

    def _one(self, alert: Record, known: Mapping[tuple[str, str], Annotation]) -> Annotation:
        remembered = known.get(_id(alert))
        if remembered is not None:
            return remembered
        answer = self._service.ask(alert.get("ra"), alert.get("dec"))
        entry = answer.entry
        return Annotation(
            *_id(alert),
            alert.get("diaObjectId"),
            self._name,
            answer.status,
            match_id=entry.id if entry else None,
            separation=answer.separation,
            numbers=dict(entry.numbers) if entry else {},
            texts=dict(entry.texts) if entry else {},
            reason=answer.reason,
            time_mjd_tai=self._clock(),
        )


def annotation_message(one: Annotation) -> Message:
    """Return the message of an annotation; the key is survey, diaSourceId and service."""
    ((identifier, schema),) = annotation_schemas().items()
    record = {camel_case(name): value for name, value in asdict(one).items()}
    key = f"{one.survey}|{one.dia_source_id}|{one.service}".encode()
    return Message(avro.frame(identifier, avro.encode(schema, record)), key=key)


def _with_annotation(message: Message, one: Annotation) -> Message:
    """Return an alert's message as it came, with what was said of it in a header."""
    said = json.dumps(asdict(one), sort_keys=True).encode()
    return Message(message.value, message.key, (*message.headers, ("annotation", said)))


def _id(alert: Record) -> tuple[str, str]:
    return str(alert["survey"]), str(alert["diaSourceId"])


def _id_of(one: Annotation) -> tuple[str, str]:
    return one.survey, one.dia_source_id


def _flat(alert: Record) -> dict[str, Any]:
    """Return a packet's columns and its modules' outputs by parameter name."""
    flat = {snake_case(name): value for name, value in alert.items()}
    for outputs in (alert.get("modules") or {}).values():
        flat |= {snake_case(name): value for name, value in outputs.items()}
    return flat


def _said(one: Annotation) -> dict[str, Any]:
    is_match = one.status == MATCH
    said: dict[str, Any] = {
        "annotation_status": one.status,
        "annotation_id": one.match_id if is_match else None,
        "annotation_separation": one.separation if is_match else None,
    }
    values: dict[str, Any] = {**one.numbers, **one.texts}
    return said | {snake_case(_column(name)): value for name, value in values.items()}


def _series(values: Sequence[Any], kind: str) -> pd.Series:
    if kind == NUMBER:
        return pd.Series([np.nan if v is None else v for v in values], dtype=np.float64)
    if kind == TRUTH:
        return pd.Series(values, dtype="boolean")
    return pd.Series(values, dtype=object)

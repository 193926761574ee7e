"""What outside classifiers say of our alerts: checked, kept and published."""

import re
import time
from collections.abc import Mapping, Sequence

from broker.errors import AlertError, ConfigError
from broker.ops.annotate import annotation_message, annotation_schemas, annotations_topic
from broker.store.alerts import AlertStore
from broker.store.annotations import MATCH, Annotation, AnnotationStore
from broker.store.table import Tables
from broker.topics.publish import store_schemas
from broker.topics.topic import Topics, TopicSettings
from broker.types import Run
from broker.units import unix_s_to_mjd_tai

MOST_VALUES, MOST_TEXT = 100, 1000
_COLUMN = re.compile(r"[a-z][A-Za-z0-9]{0,60}")


def checked_values(numbers: Mapping[str, float | None], texts: Mapping[str, str | None]) -> None:
    """Raise ConfigError if names or values are not such as a filter can read."""
    for name in (*numbers, *texts):
        if not _COLUMN.fullmatch(name):
            raise ConfigError(f"{name!r} is no name of a value: camelCase, letters and digits")
    if len(numbers) + len(texts) > MOST_VALUES or set(numbers) & set(texts):
        raise ConfigError(f"at most {MOST_VALUES} values, each name once")
    if any(len(text or "") > MOST_TEXT for text in texts.values()):
        raise ConfigError(f"a text has at most {MOST_TEXT} characters")


class Intake:
    """Keeps and publishes what outside classifiers say: stored first, then on the topic.

    Parameters
    ----------
    tables, topics : Tables, Topics
        Of the run.
    run : Run
    """

    def __init__(self, tables: Tables, topics: Topics, run: Run) -> None:
        self._tables, self._topics, self._run = tables, topics, run
        self._alerts = AlertStore(tables, run)
        self._ready = False

    def put(self, annotations: Sequence[Annotation]) -> None:
        """Keep annotations; said again, the later one counts.

        Raises
        ------
        AlertError
            If an alert is not there, or not everyone may see it: nothing is kept then.
        ServiceError
            If a store does not answer.
        """
        for one in annotations:
            alert = self._alerts.alert(one.survey, one.dia_source_id)
            if alert is None or not alert["isPublic"]:
                raise AlertError(f"there is no alert {one.dia_source_id} of {one.survey}")
        topic = annotations_topic(self._run)
        if not self._ready:
            self._topics.create(topic, TopicSettings())
            store_schemas(self._topics, self._run, annotation_schemas())
            self._ready = True
        AnnotationStore(self._tables, self._run).put(annotations)
        self._topics.send(topic, [annotation_message(one) for one in annotations])

    def annotation(
        self, name: str, survey: str, dia_source_id: str, *,
        numbers: Mapping[str, float | None], texts: Mapping[str, str | None],
    ) -> Annotation:  # fmt: skip
        """Return what a classifier says of an alert, as the table keeps it.

        Raises
        ------
        ConfigError
            If a value is not allowed.
        """
        checked_values(numbers, texts)
        now = float(unix_s_to_mjd_tai(time.time()))
        return Annotation(survey, dia_source_id, None, name, MATCH, numbers=dict(numbers),
                          texts=dict(texts), time_mjd_tai=now)  # fmt: skip

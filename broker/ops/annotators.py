"""Outside classifiers: who may say something of our alerts, and what they say."""

import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from broker.errors import AlertError, ConfigError
from broker.ops.annotate import annotation_message, annotation_schemas, annotations_topic
from broker.ops.push import read_private
from broker.store.alerts import AlertStore
from broker.store.annotations import MATCH, Annotation, AnnotationStore
from broker.store.table import Tables
from broker.topics.publish import store_schemas
from broker.topics.topic import Topics, TopicSettings
from broker.types import Run
from broker.units import unix_s_to_mjd_tai

MOST_VALUES, MOST_TEXT = 100, 1000
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,60}")
_COLUMN = re.compile(r"[a-z][A-Za-z0-9]{0,60}")


class Annotators:
    """The outside classifiers of a run: of each the hash of its token, in a private file.

    Parameters
    ----------
    folder : Path
        `annotators/<run>` under the home; made when something is written.
    what : str
        What errors call one of them.
    """

    def __init__(self, folder: Path, *, what: str = "annotator") -> None:
        self._folder, self._what = folder, what

    def add(self, name: str) -> str:
        """Let a classifier in; return its token, which is kept nowhere.

        Raises
        ------
        ConfigError
            If the name is not allowed or taken.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{name!r} is no name: lower-case letters, digits, dashes")
        self._folder.mkdir(parents=True, exist_ok=True)
        token = f"{name}.{secrets.token_urlsafe(32)}"
        try:
            handle = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise ConfigError(
                f"there is an {self._what} {name} already; remove it first"
            ) from error
        with os.fdopen(handle, "w") as file:
            file.write(_hash(token))
        return token

    def names(self) -> list[str]:
        """Return who may annotate, sorted."""
        if not self._folder.is_dir():
            return []
        return sorted(p.name for p in self._folder.iterdir() if _NAME.fullmatch(p.name))

    def remove(self, name: str) -> bool:
        """Let a classifier in no more; return whether there was one. What it said stays."""
        there = name in self.names()
        if there:
            (self._folder / name).unlink()
        return there

    def name_of(self, token: str) -> str | None:
        """Return whose token it is; None if it is none."""
        name = token.partition(".")[0]
        if not _NAME.fullmatch(name) or name not in self.names():
            return None
        kept = read_private(self._folder / name).decode()
        return name if hmac.compare_digest(kept, _hash(token)) else None


def _hash(token: str) -> str:
    # A token is 256 random bits: nothing slower is needed against guessing.
    return hashlib.sha256(token.encode()).hexdigest()


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

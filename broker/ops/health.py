"""Whether the broker works: a real write and read through everything, and what to do if not."""

import json
import shutil
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from broker.config import Config
from broker.errors import BrokerError
from broker.store.ledger import Ledger
from broker.store.table import Family, Tables
from broker.topics.publish import dead_letters_topic, read_schemas, schemas_topic
from broker.topics.topic import Message, Topics, TopicSettings

TOPIC = "health"
"""Internal topic of a run, and table, that are written and read; nothing else uses them."""

_KEEP_MS = 3_600_000
_MIN_FREE_MB = 2_000
_API_S = 10.0
_STALE_S = 120.0
"""A query that has input and has finished nothing for so long is not at work. [s]"""


@dataclass(frozen=True)
class Check:
    """How one part is.

    Parameters
    ----------
    part : str
        Its name.
    state : str
        `ok`; `failed`; `off`: not in use, which is no fault.
    seconds : float
        How long the answer took. [s]
    words : str
        What was found.
    advice : str
        What to do; empty if it is fine.
    """

    part: str
    state: str
    seconds: float
    words: str
    advice: str = ""

    @property
    def is_bad(self) -> bool:
        """Whether a person has to do something."""
        return self.state == "failed"


class _OffError(Exception):
    """Raised by a look at a part that is not in use."""


def check_health(config: Config, topics: Topics, tables: Tables) -> list[Check]:
    """Look at every part, one after the other; one that fails does not end the list.

    Parameters
    ----------
    config : Config
        The settings; its run is looked at.
    topics, tables : Topics, Tables
        On the servers that it names, with short times to wait.
    """
    kafka = f"is it up? broker status; start it with broker up; its log is {_log(config, 'kafka')}"
    hbase = f"is it up? broker status; start it with broker up; its log is {_log(config, 'thrift')}"
    stream = f"start it with broker stream all; its log is {_log(config, 'stream-' + config.run)}"
    room = "make room, move BROKER_HOME to a larger disk, or let nights end: broker archive --help"
    looks: list[tuple[str, str, Callable[[], str]]] = [
        ("Kafka", kafka, lambda: _kafka(config, topics)),
        ("HBase", hbase, lambda: _hbase(config, tables)),
        ("schemas", f"packets cannot be read without; {stream}", lambda: _schemas(config, topics)),
        ("stream", stream, lambda: _stream(config, topics, tables)),
        (
            "dead letters",
            "see broker dead-letter list; after a fix: broker dead-letter reinject",
            lambda: _dead_letters(config, topics),
        ),
        ("API", "restart it with broker serve, and see what it says", lambda: _api(config)),
        ("disk", room, lambda: _disk(config)),
    ]
    return [_checked(part, advice, look) for part, advice, look in looks]


def _log(config: Config, name: str) -> str:
    return str(config.home / "logs" / f"{name}.log")


def _checked(part: str, advice: str, look: Callable[[], str]) -> Check:
    began = time.perf_counter()
    try:
        words, state = look(), "ok"
    except _OffError as error:
        words, state = str(error), "off"
    except (BrokerError, OSError, ValueError) as error:
        words, state = str(error) or type(error).__name__, "failed"
    seconds = time.perf_counter() - began
    return Check(part, state, seconds, words, advice if state == "failed" else "")


def _kafka(config: Config, topics: Topics) -> str:
    """Send a message and get it back."""
    name, token = config.the_run.internal_topic(TOPIC), uuid.uuid4().bytes
    topics.create(name, TopicSettings(partitions=1, retention_ms=_KEEP_MS))
    (at,) = topics.send(name, [Message(token)])
    back = topics.get(at)
    if back is None or back.value != token:
        raise ValueError(f"a message sent to {name} did not come back")
    return f"a message went to {config.kafka.bootstrap} and came back"


def _hbase(config: Config, tables: Tables) -> str:
    """Put a row and get it back."""
    name, token = config.the_run.table(TOPIC), uuid.uuid4().bytes
    tables.create(name, [Family("h")])
    table = tables.table(name)
    table.put([(b"health", {b"h:token": token})])
    back = table.get(b"health")
    if back is None or back.get(b"h:token") != token:
        raise ValueError(f"a row put into {name} did not come back")
    return f"a row went to {config.hbase.host}:{config.hbase.thrift_port} and came back"


def _schemas(config: Config, topics: Topics) -> str:
    """Read the schemas of what the run publishes."""
    name = schemas_topic(config.the_run)
    if name not in topics.names():
        raise _OffError(f"run {config.run} has published nothing yet: no alerts query was started")
    found = read_schemas(topics, name)
    if not found:
        raise ValueError(f"the topic {name} is empty")
    return f"{len(found)} schemas on {name}"


def _stream(config: Config, topics: Topics, tables: Tables) -> str:
    """Compare what waits on the input topics with what was finished, and when."""
    run = config.the_run
    if run.table("ledger") not in tables.names():
        raise _OffError(f"run {config.run} has no ledger: no query was started in it yet")
    ledger, known = Ledger(tables, run), set(topics.names())
    waiting, newest = 0, 0
    for query in ledger.queries():
        ends = {(r.topic, r.partition): r.end for r in ledger.consumed(query)}
        for name in {topic for topic, _ in ends} & known:
            waiting += sum(
                max(0, part.end - ends.get((name, part.partition), part.first))
                for part in topics.ranges(name)
            )
        newest = max([newest, *(batch.recorded_ms for batch in ledger.batches(query)[-1:])])
    ago = time.time() - newest / 1000.0
    words = f"{waiting} messages wait; the newest batch was finished {ago:.0f} s ago"
    if waiting and ago > _STALE_S:
        raise ValueError(f"{words}: nothing works on them")
    return words


def _dead_letters(config: Config, topics: Topics) -> str:
    name = dead_letters_topic(config.the_run)
    if name not in topics.names():
        raise _OffError(f"run {config.run} has no topic of dead letters yet")
    recent, since = 0, int((time.time() - _KEEP_MS / 1000.0) * 1000)
    for part in topics.ranges(name):
        first = topics.offset_at(name, partition=part.partition, timestamp_ms=since)
        recent += part.end - first
    return f"{recent} in the last hour"


def _api(config: Config) -> str:
    """Ask the API for its own health, which reads its stores."""
    url = f"http://{config.serve.host}:{config.serve.port}/api/v1/health"
    try:
        with urllib.request.urlopen(url, timeout=_API_S) as answer:
            found: dict[str, Any] = json.load(answer)
    except urllib.error.HTTPError as error:
        raise ValueError(f"{url} answers {error.code}: {error.read(300)!r}") from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ConnectionRefusedError):
            raise _OffError(f"nothing listens at {url}") from error
        raise ValueError(f"{url}: {error.reason}") from error
    parts = [part["part"] for part in found["parts"] if part["ok"]]
    return f"run {found['run']} is served; {', '.join(parts)} can be read"


def _disk(config: Config) -> str:
    config.home.mkdir(parents=True, exist_ok=True)
    free_mb = shutil.disk_usage(config.home).free // 1_000_000
    words = f"{free_mb} MB are free at {config.home}"
    if free_mb < _MIN_FREE_MB:
        raise ValueError(f"{words}; {_MIN_FREE_MB} MB are needed")
    return words

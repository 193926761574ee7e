"""Identifiers and small frozen records that everyone shares."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from broker.errors import ConfigError
from broker.units import MJD_OF_UNIX_EPOCH

LIVE = "live"
IMAGES = "ccd-images"
ALERTS = "alerts"
DEAD_LETTERS = "dead-letters"
SCHEMAS_TOPIC = "public.schemas"
PRIVATE = "private."
"""Beginning of the names of topics that one person may read; then comes whose they are."""

_RUN_NAME = re.compile(r"^[a-z][a-z0-9-]{0,30}$")


class Bootstrap(str):
    """`host:port` of Kafka, and the file of the user to connect as; empty: nobody is asked."""

    user_file: str

    def __new__(cls, address: str, user_file: str = "") -> "Bootstrap":
        """Return an address; it is text wherever text is wanted."""
        made = super().__new__(cls, address)
        made.user_file = user_file
        return made

    def __reduce__(self) -> tuple[type["Bootstrap"], tuple[str, str]]:
        return (Bootstrap, (str(self), self.user_file))


@dataclass(frozen=True)
class Run:
    """A named run: its topics, tables, checkpoints, ledger and archive are its own.

    Only the run `live` writes to live topics and tables, so that a replay or a test can never
    alert a subscriber.

    Parameters
    ----------
    name : str
        Lower-case letters, digits and dashes, at most 31, a letter first.

    Raises
    ------
    ConfigError
        If the name has another form.
    """

    name: str = LIVE

    def __post_init__(self) -> None:
        if not _RUN_NAME.match(self.name):
            raise ConfigError(
                f"run name {self.name!r} is not allowed: use at most 31 lower-case letters, digits "
                "and dashes, a letter first",
                run=self.name,
            )

    @property
    def is_live(self) -> bool:
        """Whether subscribers see what this run publishes."""
        return self.name == LIVE

    def internal_topic(self, name: str) -> str:
        """Name of an input or internal topic: `ccd-images`, `alerts.sim`, `dead-letters`."""
        return name if self.is_live else f"run.{self.name}.{name}"

    def alerts_topic(self, survey: str) -> str:
        """Name of the topic with a survey's packets."""
        return self.internal_topic(f"{ALERTS}.{survey}")

    def public_topic(self, topic: str, variant: str) -> str:
        """Name of a filter's or a watchlist's topic; `variant` is "slim" or "full".

        One that begins with `private.` keeps that beginning: who may read all that is public may
        not read it.
        """
        if not self.is_live:
            return f"run.{self.name}.{topic}.{variant}"
        return f"{topic}.{variant}" if topic.startswith(PRIVATE) else f"public.{topic}.{variant}"

    def table(self, name: str) -> str:
        """Name of a table in the store."""
        return f"{self.name}.{name}"


@dataclass(frozen=True, order=True)
class Coordinate:
    """Where a message stood: Kafka's topic, partition and offset."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True)
class OffsetRange:
    """The offsets of one partition that are there to read: `first` <= offset < `end`."""

    topic: str
    partition: int
    first: int
    end: int


def night_of(mjd: float) -> str:
    """Return the night of an MJD: `YYYYMMDD` of the day on whose noon (UTC) it began."""
    day = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=mjd - 0.5 - MJD_OF_UNIX_EPOCH)
    return day.strftime("%Y%m%d")

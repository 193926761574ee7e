"""Keeping watchlists: checked, with a topic each, by owners who have a token."""

import tempfile
from pathlib import Path

from broker.alerts.outgoing import VARIANTS
from broker.catalog.coverage import Coverage, read_coverage
from broker.config import Config
from broker.errors import ConfigError
from broker.science import Contributions
from broker.topics.topic import Topics, TopicSettings
from broker.types import Run
from broker.watchlists import Entries, WatchBook, Watchlist, condition_of, read_entries


class Keeper:
    """Writes watchlists and makes their topics.

    Parameters
    ----------
    book : WatchBook
        Where they are.
    topics : Topics
        Kafka, or memory.
    run : Run
        Whose.
    contributions : Contributions
        What an expression may read; and topics whose names are taken.
    partitions : int
        Of a new topic.
    """

    def __init__(
        self, book: WatchBook, topics: Topics, run: Run, contributions: Contributions, *,
        partitions: int = 2,
    ) -> None:  # fmt: skip
        self.book, self._topics, self._run = book, topics, run
        self._contributions, self._partitions = contributions, partitions

    def put(
        self, wanted: Watchlist, content: Entries | Coverage, *, replaces: bool = False
    ) -> Watchlist:
        """Add a list, or put another in the place of one; its topic is there before it.

        Raises
        ------
        ConfigError
            If something is not allowed; nothing is changed then.
        ServiceError
            If Kafka does not answer.
        """
        if wanted.where:
            condition_of(wanted.where, self._contributions)
        if wanted.topic in self._contributions.topics:
            raise ConfigError(f"there is a filter's topic {wanted.topic}; take another name")
        return self.book.put(wanted, content, replaces=replaces, before=self._make_topics)

    def _make_topics(self, made: Watchlist) -> None:
        for variant in VARIANTS:
            name = self._run.public_topic(made.topic, variant)
            self._topics.create(name, TopicSettings(partitions=self._partitions))


def keeper_of(config: Config, topics: Topics, contributions: Contributions) -> Keeper:
    """Return the keeper of a run's watchlists."""
    book = WatchBook(config.run_path("watchlists"))
    partitions = config.kafka.partitions
    return Keeper(book, topics, config.the_run, contributions, partitions=partitions)


def content_of(body: bytes, *, radius_arcsec: float) -> Entries | Coverage:
    """Read what someone sent: a MOC (JSON, FITS), or positions or names as of a CSV file.

    Raises
    ------
    ConfigError
        If it is none of these, or an entry is not possible.
    """
    if body.lstrip()[:1] == b"{" or body.startswith(b"SIMPLE  ="):
        return _region(body.lstrip())
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"the list is no text in UTF-8: {error}") from error
    return read_entries(text, radius_arcsec=radius_arcsec)


def _region(body: bytes) -> Coverage:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "region"
        path.write_bytes(body)
        try:
            found = read_coverage(path)
        except Exception as error:
            raise ConfigError("what was sent cannot be read as a MOC (JSON or FITS)") from error
    if found.first.ndim != 1 or not (found.end > found.first).all():
        raise ConfigError("what was sent is no MOC: `{order: [pixels], …}`, or FITS")
    return found

"""Watchlists: positions, names or a part of the sky that a user watches; each becomes a topic."""

from broker.watchlists.board import HEADER, MOST_SHARE, Sighting, WatchBoard, condition_of
from broker.watchlists.book import WatchBook, Watchlist, check_name
from broker.watchlists.entries import Entries, read_entries, resolved
from broker.watchlists.index import topic_of

__all__ = [
    "HEADER",
    "MOST_SHARE",
    "Entries",
    "Sighting",
    "WatchBoard",
    "WatchBook",
    "Watchlist",
    "check_name",
    "condition_of",
    "read_entries",
    "resolved",
    "topic_of",
]

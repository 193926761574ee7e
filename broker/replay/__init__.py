"""Playing packets again: from files or from a night of the archive, at a chosen pace."""

from broker.replay.player import (
    MAX,
    Packet,
    Played,
    Rate,
    from_archive,
    from_files,
    parse_rate,
    replay,
)

__all__ = [
    "MAX",
    "Packet",
    "Played",
    "Rate",
    "from_archive",
    "from_files",
    "parse_rate",
    "replay",
]

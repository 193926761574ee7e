"""A run's raw packets on disk, by survey and night, found by (topic, partition, offset)."""

from broker.archive.archive import ROWS, Archive
from broker.archive.files import ArchiveFile

__all__ = ["ROWS", "Archive", "ArchiveFile"]

"""A run's raw packets on disk, by survey and night, found by (topic, partition, offset)."""

from broker.archive.archive import ORIGIN_HEADER, ROWS, Archive
from broker.archive.files import ArchiveFile

__all__ = ["ORIGIN_HEADER", "ROWS", "Archive", "ArchiveFile"]

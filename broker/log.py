"""Logging: one format for every process of the broker."""

import logging
import sys


def set_up_logging(level: str = "INFO") -> None:
    """Send log records to standard error, once a process.

    Parameters
    ----------
    level : str
        Name of the lowest level that is shown.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger("broker")
    root.handlers[:] = [handler]
    root.setLevel(level)
    root.propagate = False

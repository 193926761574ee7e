"""The stream as a process of its own, with fatal steps: `broker.ops.faults.child FILE [QUERY…]`."""

import os
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path

from broker.log import set_up_logging
from broker.ops.faults import steps
from broker.streaming.query import run_queries

QUERIES = ("alerts", "archive")


def main(recipe: Path, queries: Sequence[str] = QUERIES) -> None:
    """Run queries with the settings that a file holds."""
    config = pickle.loads(recipe.read_bytes())  # noqa: S301 - written by the process that starts this
    set_up_logging("INFO")
    steps.note_group(recipe.parent, os.getpgid(0))
    steps.wrap_query(recipe.parent)
    run_queries(config, queries)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or QUERIES)

"""The stream as a process of its own, with fatal steps: `-m broker.ops.faults.child FILE`."""

import os
import pickle
import sys
from pathlib import Path

from broker.log import set_up_logging
from broker.ops.faults import steps
from broker.streaming.query import run_queries

QUERIES = ("alerts", "archive")


def main(recipe: Path) -> None:
    """Run the queries with the settings that a file holds."""
    config = pickle.loads(recipe.read_bytes())  # noqa: S301 - written by the process that starts this
    set_up_logging("INFO")
    steps.note_group(recipe.parent, os.getpgid(0))
    steps.wrap_query(recipe.parent)
    run_queries(config, QUERIES)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

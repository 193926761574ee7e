"""The process that Python workers are forked from, without Spark's archives on its path.

Before each task a worker has Python forget what it knows of the places that modules are imported
from. Spark puts three archives among these, and each is read anew, its thousands of entries one
by one, for every package that was imported: a tenth of a second of processor time a task, more
with each package. All that is in them is installed beside the broker.
"""

import gc
import importlib.util
import sys
from pathlib import PurePath

_ARCHIVES = ("pyspark.zip", "py4j-*-src.zip", "spark-core_*.jar")


def leave_archives_out() -> None:
    """Take Spark's own archives from the path, unless its package is in no other place."""
    path = sys.path[:]
    sys.path[:] = [p for p in path if not any(PurePath(p).match(name) for name in _ARCHIVES)]
    if any(importlib.util.find_spec(name) is None for name in ("pyspark", "py4j")):
        sys.path[:] = path
        return
    for place in set(path) - set(sys.path):
        sys.path_importer_cache.pop(place, None)


def keep_what_is_loaded() -> None:
    """Leave all that a worker holds now out of the search for garbage, which ends each task.

    Modules and tables that stay for the worker's life are some hundred thousand objects; to look
    at them again takes 60 ms of processor time.
    """
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    leave_archives_out()
    from pyspark.daemon import manager

    manager()

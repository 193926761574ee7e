"""One step in a process of its own, with the environment of a worker: one thread, its own memory.

What the process writes last to standard output is the rows, as JSON.
"""

import contextlib
import dataclasses
import importlib
import json
import logging
import os
import resource
import subprocess
import sys

from broker.bench_rows import Row
from broker.errors import BrokerError, ConfigError
from broker.imaging.memory import WORKER

_CODE = "from broker.ops.image_bench.step import main; main()"


def run_step(name: str, side: int, repeats: int) -> tuple[list[Row], float]:
    """Return the rows of a step, and the processor time that it took. [s]

    Parameters
    ----------
    name : str
        Of a module of this package.
    side : int
        Of the square images. [pixel]
    repeats : int

    Raises
    ------
    ConfigError
        If a program to compare with is not installed, or the step cannot be measured.
    """
    before = _children_s()
    done = subprocess.run(
        [sys.executable, "-c", _CODE, name, str(side), str(repeats)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | WORKER,
        check=False,
    )
    lines = done.stdout.splitlines()
    answer = json.loads(lines[-1]) if done.returncode == 0 and lines else {}
    if "rows" not in answer:
        reason = answer.get("error", f"its process ended with {done.returncode}")
        raise ConfigError(f"the step {name} could not be measured: {reason}")
    return [Row(**row) for row in answer["rows"]], _children_s() - before


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure the step that the arguments name."""
    name, side, repeats = sys.argv[1:]
    logging.disable(logging.WARNING)  # what the other programs say of themselves
    try:
        # What they print is no row.
        with contextlib.redirect_stdout(sys.stderr):
            step = importlib.import_module(f"broker.ops.image_bench.{name}")
            rows = step.rows(int(side), int(repeats))
    except (BrokerError, ImportError) as error:
        answer: dict[str, object] = {"error": str(error)}
    else:
        answer = {"rows": [dataclasses.asdict(row) for row in rows]}
    sys.stdout.write("\n" + json.dumps(answer) + "\n")

"""`broker demo`: a small simulated night, from the sky to the topics, and its report."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from broker.cli.assemble import make_tables, make_topics
from broker.cli.main import load
from broker.cli.output import BAD_DATA, emit_json, json_option
from broker.cli.simulate import own_catalogs
from broker.config import Config
from broker.errors import AlertError, ServiceError
from broker.topics.topic import Message, Topics, TopicSettings

_EVERY_S = 2.0
"""Time between visits of two detectors: Rubin takes 37 s with 189. Two cores keep up. [s]"""

_SURVEY_PACKETS = {"ztf": 200, "lsst": 60}
"""Simulated packets of real surveys that the demo sends beside its images."""


@click.command()
@click.option(
    "--packets",
    "packets_path",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Send the packets (*.avro) under this folder too, instead of simulated ones of surveys.",
)
@click.option(
    "--preset",
    type=click.Choice(["demo", "small", "test"]),
    default="demo",
    show_default=True,
    help="Size of the night: 48 or 16 images of 1024 × 1024, or 2 of 256 × 256.",
)
@click.option(
    "--serve/--no-serve",
    "is_served",
    default=True,
    show_default=True,
    help="Leave the pages and the API running; broker down stops them.",
)
@json_option
@click.pass_context
def command(
    ctx: click.Context, packets_path: Path | None, preset: str, is_served: bool, as_json: bool
) -> None:
    """Run a night: start the services, simulate, stream until all is through, compare with truth.

    Each call simulates the night after the last one; its pages are served afterwards. Ends with
    exit code 20 if the ledger does not close or the alerts are not as complete, as pure, or as
    honest as they must be.

    Example: broker demo
    """
    from broker.cli.demo_report import make_report, print_report, take_marks
    from broker.local.stack import up
    from broker.ops.nights import write_night
    from broker.streaming.query import QUERIES, run_queries

    config = load(ctx)
    _say("Starting Kafka and HBase …")
    with _warm_up(config):
        up(config)
    topics, tables = make_topics(config), make_tables(config)
    try:
        own_catalogs(config).mkdir(parents=True, exist_ok=True)  # before a query looks for it
        marks = take_marks(config, topics)
        night_index = _next_night(config)
        sent = _send_packets(config, topics, packets_path, night_index)
        _say("Drawing the night and running the four queries …")
        with _simulation(ctx, config, night_index, preset) as simulation:
            summary = run_queries(
                config, QUERIES, until_idle=True, input_is_complete=simulation.is_complete
            )
        _say("Comparing with the truth …")
        report = make_report(config, topics, tables, marks, simulation.row(), summary, sent)
        write_night(config, tables, report.night.night)
    finally:
        topics.close()
        tables.close()
    if as_json:
        emit_json(report.as_json())
    else:
        print_report(report, config)
    if is_served:
        _serve(ctx, config)
    if not report.night.is_good:
        sys.exit(BAD_DATA)


def _serve(ctx: click.Context, config: Config) -> None:
    """Leave the pages of the run running, and say where they are."""
    from broker.local.stack import serve

    # The server resolves a relative path anew, from another folder.
    arguments = _broker(ctx, absolute=True)
    address = serve(config, [*arguments, "--run", config.run, "serve"])
    if address is None:
        _say(f"Port {config.serve.port} is taken, or its log says more: broker serve --port 8801")
    else:
        _say(f"Look at it at {address} (broker down stops it)")


def _broker(ctx: click.Context, *, absolute: bool = False) -> list[str]:
    """Return the beginning of a command of this program, with the file of settings."""
    path = ctx.find_root().params["config_path"]
    begin = [sys.executable, "-m", "broker.cli"]
    return (
        begin if not path else [*begin, "--config", str(Path(path).resolve() if absolute else path)]
    )


def _say(words: str) -> None:
    click.echo(words, err=True)


def _next_night(config: Config) -> int:
    """Return the index of the night after the last one that a demo of this run began."""
    file = config.run_path("demo") / "next-night"
    index = int(file.read_text(encoding="ascii")) if file.exists() else 0
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".tmp")
    temporary.write_text(str(index + 1), encoding="ascii")
    temporary.replace(file)  # never half a number
    return index


@contextmanager
def _warm_up(config: Config) -> Iterator[None]:
    """Compile the image loops meanwhile, into the cache that Spark's workers share."""
    process = subprocess.Popen(
        [sys.executable, "-m", "broker.ops.warm_up"], env=_environment(config)
    )
    try:
        yield
    finally:
        process.wait()


def _environment(config: Config) -> dict[str, str]:
    """Return this process's environment with the workers' cache of compiled loops."""
    own = {"NUMBA_CACHE_DIR": str(config.cache / "numba"), "OPENBLAS_NUM_THREADS": "1"}
    return os.environ | own


def _send_packets(
    config: Config, topics: Topics, folder: Path | None, night_index: int
) -> dict[str, int]:
    """Publish packets of real surveys, from files or simulated; return how many of each."""
    if folder is None:
        from broker.simulation.packets import simulate_packets

        made = {
            survey: list(simulate_packets(survey, number, night_index + 1))
            for survey, number in _SURVEY_PACKETS.items()
        }
    else:
        made = _packets_of_files(folder)
    for survey, packets in made.items():
        name = config.the_run.alerts_topic(survey)
        topics.create(name, TopicSettings(partitions=config.kafka.partitions))
        topics.send(name, [Message(packet) for packet in packets])
    return {survey: len(packets) for survey, packets in made.items()}


def _packets_of_files(folder: Path) -> dict[str, list[bytes]]:
    """Sort files by what they begin with: containers are ZTF's, framed packets Rubin's."""
    made: dict[str, list[bytes]] = {"ztf": [], "lsst": []}
    for path in sorted(folder.rglob("*.avro")):
        packet = path.read_bytes()
        made["lsst" if packet[:1] == b"\x00" else "ztf"].append(packet)
    if not any(made.values()):
        raise AlertError(f"there is no .avro file in {folder}")
    return made


class _Simulation:
    """The simulator, in a process of its own: images come while the queries run."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._is_held = True

    def is_complete(self) -> bool:
        """Whether all images are published; the first question, when queries run, lets them go.

        Raises
        ------
        ServiceError
            If the simulator failed.
        """
        if self._is_held and self._process.stdin is not None:
            self._is_held = False
            with contextlib.suppress(BrokenPipeError):  # it has failed: its exit code says so
                self._process.stdin.write("\n")
                self._process.stdin.flush()
        code = self._process.poll()
        if code:
            raise ServiceError(f"the simulator ended with {code}: {self._errors()}")
        return code == 0

    def row(self) -> dict[str, Any]:
        """Return what it says of the night."""
        assert self._process.stdout is not None  # noqa: S101  # it was opened as a pipe
        row: dict[str, Any] = json.loads(self._process.stdout.read())[0]
        return row

    def _errors(self) -> str:
        return self._process.stderr.read().strip() if self._process.stderr else ""


@contextmanager
def _simulation(
    ctx: click.Context, config: Config, night_index: int, preset: str
) -> Iterator[_Simulation]:
    given = ctx.find_root().params
    command = _broker(ctx)
    if given["run_name"]:
        command += ["--run", given["run_name"]]
    command += ["simulate", "night", "--night-index", str(night_index), "--preset", preset]
    process = subprocess.Popen(
        [*command, "--every-s", str(_EVERY_S), "--hold", "--json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(config),
    )
    try:
        yield _Simulation(process)
    except BaseException:
        process.terminate()
        process.wait()
        raise

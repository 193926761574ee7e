"""`broker transfer`: many alerts at once, from the archive, as files."""

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from broker.cli.assemble import tables_of
from broker.cli.main import load
from broker.cli.output import emit_json, emit_record, emit_rows, json_option

_STATE = ("id", "state", "nights", "format", "partsDone", "parts", "alerts", "bytes")


@click.group()
def command() -> None:
    """Ask for many alerts at once: estimate, start, download, verify.

    Example: broker transfer estimate --from 20251110 --topic young-supernova --format csv
    """


def _question_options(function: Any) -> Any:
    """Add the options that say which alerts are asked for."""
    for option in reversed(
        (
            click.option("--from", "first", required=True, help="First night, YYYYMMDD."),
            click.option("--to", "last", help="Last night; default the first."),
            click.option("--survey", "surveys", multiple=True, help="sim, ztf, lsst; several."),
            click.option("--topic", "topics", multiple=True, help="On one of these; several."),
            click.option("--where", default="", help="One expression, as of `broker topic new`."),
            click.option("--cone", "cones", type=(float, float, float), multiple=True,
                         help="RA DEC [degrees] RADIUS [arcseconds]; several."),
            click.option("--cones", "cone_file", type=click.Path(exists=True, path_type=Path),
                         help="CSV file with columns ra, dec, radius."),
            click.option("--columns", default="",
                         help="Names with commas; default all; also history, cutoutScience…"),
            click.option("--format", "form", default="parquet", show_default=True,
                         type=click.Choice(["parquet", "avro", "fits", "csv"]), help="Of files."),
        )
    ):  # fmt: skip
        function = option(function)
    return function


def _question(values: dict[str, Any]) -> Any:
    from broker.batch.transfer import Question

    cones = tuple(values["cones"])
    if values["cone_file"] is not None:
        cones += _read_cones(values["cone_file"])
    return Question(
        first=values["first"],
        last=values["last"] or values["first"],
        surveys=values["surveys"],
        topics=values["topics"],
        where=values["where"],
        cones=cones,
        columns=tuple(c.strip() for c in values["columns"].split(",") if c.strip()),
        form=values["form"],
    )


def _read_cones(path: Path) -> tuple[tuple[float, float, float], ...]:
    from broker.errors import ConfigError

    try:
        with path.open(newline="", encoding="utf-8") as file:
            return tuple(
                (float(row["ra"]), float(row["dec"]), float(row["radius"]))
                for row in csv.DictReader(file)
            )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} is no list of cones with ra, dec, radius: {error}") from error


@command.command()
@_question_options
@json_option
@click.pass_context
def estimate(ctx: click.Context, /, as_json: bool, **values: Any) -> None:
    """Tell how many alerts it would be and how large, without reading them all.

    Example: broker transfer estimate --from 20251110 --where "snr > 20" --format fits
    """
    from broker.archive import Archive
    from broker.batch.transfer_estimate import estimate as tell
    from broker.batch.transfer_folder import transfers_of

    config = load(ctx)
    plan, nights = transfers_of(config).plan(_question(values))
    found = tell(plan, nights, Archive(config.archive_path, config.the_run)).as_json()
    if as_json:
        emit_json(found)
    else:
        emit_record(found)


@command.command()
@_question_options
@click.option("--wait", is_flag=True, help="Make it now, in this command.")
@click.option("--queue", is_flag=True, help="Only note it: `broker transfer work` makes it.")
@json_option
@click.pass_context
def start(ctx: click.Context, /, wait: bool, queue: bool, as_json: bool, **values: Any) -> None:
    """Make a transfer with Spark, in the background; one that was stopped goes on.

    Nights without a table get one first. The same question about the same nights is made once.

    Example: broker transfer start --from 20251110 --columns survey,diaSourceId,ra,dec --format csv
    """
    from broker.batch.transfer_folder import transfers_of

    config = load(ctx)
    question = _question(values)
    _write_missing_nights(ctx, question)
    name = transfers_of(config).add(question)
    if wait:
        _make(ctx, [name])
    elif not queue:
        log = config.home / "logs" / f"transfer-{name}.out"
        log.parent.mkdir(parents=True, exist_ok=True)
        program = [sys.executable, "-m", "broker.cli", "--run", config.run, "transfer", "work"]
        with log.open("ab") as out:
            subprocess.Popen([*program, "--id", name], stdin=subprocess.DEVNULL, stdout=out,
                             stderr=out, start_new_session=True)  # fmt: skip
    emit_rows([transfers_of(config).open(name).state()], _STATE, as_json=as_json)


def _write_missing_nights(ctx: click.Context, question: Any) -> None:
    from broker.archive import Archive
    from broker.ops.nights import write_night

    config = load(ctx)
    folder = config.run_path("nights")
    archived = Archive(config.archive_path, config.the_run).nights()
    missing = [
        night
        for night in archived
        if question.first <= night <= question.last and not (folder / f"{night}.parquet").exists()
    ]
    if missing:
        with tables_of(ctx) as tables:
            for night in missing:
                write_night(config, tables, night)


@command.command()
@click.option("--id", "names", multiple=True, help="Only this transfer; default all that wait.")
@click.pass_context
def work(ctx: click.Context, names: tuple[str, ...]) -> None:
    """Make the transfers that wait, with Spark, and end.

    Example: broker transfer work
    """
    from broker.batch.transfer_folder import transfers_of

    _make(ctx, list(names) or transfers_of(load(ctx)).waiting())


def _make(ctx: click.Context, names: list[str]) -> None:
    from broker.batch.transfer_job import make_transfer
    from broker.spark.session import make_session, stop_session

    if not names:
        return
    config = load(ctx)
    session = make_session(config, "transfer")
    try:
        for name in names:
            make_transfer(session, config, name)
    finally:
        stop_session(session)


@command.command()
@click.argument("name", metavar="[ID]", required=False)
@json_option
@click.pass_context
def status(ctx: click.Context, name: str | None, as_json: bool) -> None:
    """Show how far a transfer is, or all of them.

    Example: broker transfer status
    """
    from broker.batch.transfer_folder import transfers_of

    found = transfers_of(load(ctx))
    names = [name] if name else found.names()
    emit_rows([found.open(one).state() for one in names], _STATE, as_json=as_json)


@command.command()
@click.argument("name", metavar="ID")
@click.pass_context
def stop(ctx: click.Context, name: str) -> None:
    """Stop a transfer after the parts that are being made; `start` with its question goes on.

    Example: broker transfer stop ID
    """
    from broker.batch.transfer_folder import transfers_of

    transfers_of(load(ctx)).open(name).stop()


@command.command()
@click.argument("name", metavar="ID")
@click.option("--url", default="http://127.0.0.1:8800", show_default=True,
              help="Address of `broker serve`.")  # fmt: skip
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path),
              help="Folder; one that holds a part of this transfer is gone on with.")  # fmt: skip
@json_option
def download(name: str, url: str, out: Path, as_json: bool) -> None:
    """Download a transfer in pieces, and check each file.

    Stop it any time: it goes on with the same folder, here or on a machine that it was copied to.

    Example: broker transfer download ID --url http://127.0.0.1:8800 --out alerts
    """
    from broker.client.download import download as fetch

    with _byte_bar() as (begin, advance):
        manifest = fetch(url, name, out, begin=begin, advance=advance)
    row = {"id": manifest["id"], "files": len(manifest["files"]), "alerts": manifest["alerts"],
           "bytes": manifest["bytes"], "folder": str(out)}  # fmt: skip
    emit_rows([row], tuple(row), as_json=as_json)


def _byte_bar() -> Any:
    from contextlib import contextmanager

    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    @contextmanager
    def bar() -> Any:
        if not sys.stderr.isatty():
            yield (lambda _: None), (lambda _: None)
            return
        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
            task = shown.add_task("", total=None)
            yield (
                lambda total: shown.update(task, total=total),
                lambda more: shown.advance(task, more),
            )

    return bar()


@command.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@json_option
def verify(folder: Path, as_json: bool) -> None:
    """Check the files in FOLDER: bytes, SHA-256, and the alerts counted in each.

    Ends with code 20 if one is wrong.

    Example: broker transfer verify alerts
    """
    from broker.batch.transfer_verify import verify_folder

    rows = verify_folder(folder)
    emit_rows(rows, ("file", "alerts", "bytes", "problem"), as_json=as_json)
    if any(row["problem"] for row in rows):
        sys.exit(20)

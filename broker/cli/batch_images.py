"""`broker batch images`: any program on thousands of FITS files; `release`: a data release."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from broker.cli.main import load
from broker.cli.output import BAD_DATA, emit_json, emit_rows, json_option, progress

_SHOWN = 20
_places = click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
_out = click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the results; made if it is not there.",
)


@contextmanager
def _spark(ctx: click.Context) -> Iterator[Any]:
    from broker.spark.session import make_session, stop_session

    session = make_session(load(ctx), "batch-images", jars=())
    try:
        yield session
    finally:
        stop_session(session)


class _Images(click.Command):
    """The command whose program `release` is our own: then it takes that command's options."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        if args[:1] == ["release"]:
            return release.make_context("release", args[1:], parent=parent, **extra)
        return super().make_context(info_name, args, parent=parent, **extra)


@click.command(cls=_Images)
@click.argument("program")
@_places
@_out
@click.option(
    "--settings",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file of the program's settings.",
)
@click.option("--set", "given", multiple=True, metavar="NAME=VALUE", help="One setting.")
@click.option(
    "--code",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A module, package or data that the program needs; sent with it.",
)
@click.option(
    "--timeout-s",
    type=click.FloatRange(0.1),
    default=600.0,
    show_default=True,
    help="Longest time for one file [s].",
)
@click.option("--resume", is_flag=True, help="Leave out what the same program has done here.")
@click.option("--check/--no-check", default=True, help="Whether files must be whole FITS files.")
@json_option
@click.pass_context
def images(
    ctx: click.Context,
    program: str,
    folders: tuple[Path, ...],
    out: Path,
    settings: Path | None,
    given: tuple[str, ...],
    code: tuple[Path, ...],
    timeout_s: float,
    resume: bool,
    check: bool,
    as_json: bool,
) -> None:
    """Run PROGRAM on every FITS file of FOLDERS with Spark, which it needs to know nothing of.

    PROGRAM is a Python function, module.py:function or package.module:function, called with the
    file's path and the settings as keywords; or a command line, in quotes, with {file} and
    {setting}. Its code is sent to the workers. Writes files.parquet and files.csv, a row for each
    file with its status, reason, time and result; rows.parquet, if it returns tables; and products,
    what it writes into its working directory. Files that fail are reported, the exit code is then
    20.

    As `broker batch images release FOLDERS` it makes a data release: see `broker batch release`.

    Example: broker batch images measure.py:photometry night --set radius=5 --out results
    """
    from broker.batch.images import find_files, results, run_images
    from broker.batch.programs import find_program, read_settings

    chosen = find_program(
        program,
        code=code,
        settings=read_settings(settings, given),
        timeout_s=timeout_s,
        check=check,
    )
    files = find_files(folders)
    out.mkdir(parents=True, exist_ok=True)
    with _spark(ctx) as spark, progress("files", len(files)) as advance:
        report = run_images(spark, chosen, files, out, resume=resume, advance=advance)
    failed = [row for row in results(out) if row["status"] != "done"]
    summary = {
        "files": report.files,
        **report.statuses,
        "resumed": report.resumed,
        "wallS": round(report.wall_s, 2),
        "taskS": round(report.task_s, 2),
        "cpuS": round(report.cpu_s, 2),
        "cores": report.cores,
        "overhead": round(report.overhead, 4),
        "program": chosen.digest,
    }
    columns = ("path", "status", "reason")
    if as_json:
        emit_json(summary | {"problems": [{c: row[c] for c in columns} for row in failed]})
    else:
        emit_rows([summary], tuple(summary), as_json=False, title=str(out))
        if failed:
            emit_rows(failed[:_SHOWN], columns, as_json=False, title="not done")
        if len(failed) > _SHOWN:
            click.echo(f"{len(failed) - _SHOWN} more are in {out}/files.csv", err=True)
    if failed:
        sys.exit(BAD_DATA)


@click.command()
@_places
@_out
@json_option
@click.pass_context
def release(ctx: click.Context, folders: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Make a data release from a season of reduced images in FOLDERS.

    Coadds by sky tile and band with the table Object; Source and BadSource of every visit with the
    clusters they form; DiaSource and DiaObject of difference images; ForcedSource and
    DiaForcedSource in every visit; the PSF of every image. All tables are Parquet and CSV. The same
    images and settings give the same bytes.

    Example: broker batch release reduced --out dr1
    """
    from broker.batch.images import find_files
    from broker.batch.release import make_release

    files = find_files(folders)
    with _spark(ctx) as spark, progress("steps") as advance:
        done = make_release(files, out, spark=spark, advance=advance)
    rows = [{"table": name, "rows": n} for name, n in done.tables.items()]
    if as_json:
        emit_json({"tables": done.tables, "images": done.images, "problems": done.problems})
    else:
        emit_rows(rows, ("table", "rows"), as_json=False, title=str(out))
        emit_rows(done.problems, ("path", "reason"), as_json=False, title="not used")
    if done.problems:
        sys.exit(BAD_DATA)

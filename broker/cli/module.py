"""`broker module`: the science modules and filters that others contribute."""

from pathlib import Path
from typing import Any

import click

from broker.cli.main import load
from broker.cli.module_alerts import as_packets_came, earlier_of, limited, read_alerts
from broker.cli.module_live import compare, status
from broker.cli.module_training import train
from broker.cli.output import emit_json, emit_rows, json_option
from broker.errors import AlertError, ConfigError

path_option = click.option(
    "--path",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of module folders; default the setting science.modules, else those installed.",
)


@click.group()
def command() -> None:
    """Write, check and look at science modules and topic filters.

    Example: broker module list
    """


command.add_command(train)


def _folder(ctx: click.Context, path: Path | None) -> str:
    return str(path) if path else load(ctx).science.modules


@command.command("list")
@path_option
@json_option
@click.pass_context
def list_(ctx: click.Context, path: Path | None, as_json: bool) -> None:
    """List modules in the order in which they run, then filters with their topics.

    Example: broker module list --json
    """
    from broker.science import ScienceModule
    from broker.science.execute import tasks_of
    from broker.science.installed import installed

    rows: list[dict[str, Any]] = []
    kinds = {True: "module", False: "filter"}
    for task in tasks_of(installed(load(ctx), path or "")):
        is_module = isinstance(task, ScienceModule)
        rows.append(
            {
                "name": task.name,
                "kind": "beside" if getattr(task, "is_shadow", False) else kinds[is_module],
                "version": getattr(task, "version", None),
                "inputs": list(task.inputs),
                "outputs": [column.name for column in getattr(task, "outputs", ())],
                "maxPassFraction": getattr(task, "max_pass_fraction", None),
                "file": task.file,
                "doc": task.title,
            }
        )
    if as_json:
        emit_json(rows)
        return
    for row in rows:
        row["inputs"], row["outputs"] = ", ".join(row["inputs"]), len(row["outputs"])
    emit_rows(rows, ("name", "kind", "version", "inputs", "outputs", "doc"), as_json=False)


@command.command()
@click.argument("name")
@path_option
@json_option
@click.pass_context
def new(ctx: click.Context, name: str, path: Path | None, as_json: bool) -> None:
    """Write a working module NAME to start from: module, test and README.

    Example: broker module new my_module --path my-modules
    """
    from broker.science.template import new_module

    folder = Path(_folder(ctx, path) or _checkout())
    files = [str(file) for file in new_module(name, folder)]
    if as_json:
        emit_json({"name": name, "files": files})
        return
    for file in files:
        click.echo(file)
    click.echo(f"Now: broker module check {name}" + (f" --path {path}" if path else ""), err=True)


def _checkout() -> Path:
    """Return the folder `science_modules` of a checkout; what is installed is not written to."""
    import science_modules

    folder = Path(next(iter(science_modules.__path__)))
    if not (folder.parent / "pyproject.toml").exists():
        raise ConfigError(
            "say where to write it with --path, or set science.modules; the modules that came "
            "with the installation are left as they are"
        )
    return folder


@command.command()
@click.argument("name")
@path_option
@json_option
@click.pass_context
def check(ctx: click.Context, name: str, path: Path | None, as_json: bool) -> None:
    """Run every contract check on NAME: a folder, a module or a topic.

    Ends with code 20 if one fails.

    Example: broker module check rise_rate
    """
    from broker.science.checks import check_module

    results = check_module(name, _folder(ctx, path))
    rows: list[dict[str, Any]] = [
        {"name": r.name, "check": r.check, "ok": r.ok, "message": r.message} for r in results
    ]
    emit_rows(rows, ("name", "check", "ok", "message"), as_json=as_json)
    failed = sum(not result.ok for result in results)
    if failed:
        raise AlertError(f"{failed} of {len(results)} checks of {name} failed")


@command.command()
@click.argument("name")
@click.option(
    "--on",
    "files",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="A packet's file, or a folder of them; may be given several times. Default: a sample.",
)
@click.option(
    "-n",
    "n_sample",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="Size of the sample.",
)
@path_option
@json_option
@click.pass_context
def run(
    ctx: click.Context,
    name: str,
    files: tuple[Path, ...],
    n_sample: int,
    path: Path | None,
    as_json: bool,
) -> None:
    """Run the module or topic NAME, and the modules it reads from, on packets.

    The packets are matched with the installed catalogues. Nothing is stored or published.

    Example: broker module run rise_rate -n 5

    Packets of any survey: broker module run rise_rate --on alert.avro
    """
    from broker.science import run_module, sample_alerts

    alerts = read_alerts(files, load(ctx).catalog_path) if files else sample_alerts(n_sample)
    got = run_module(name, alerts, path=_folder(ctx, path))
    ids = alerts.select(["survey", "diaSourceId"]).to_pylist()
    rows = [
        {**who, **{key: None if value != value else value for key, value in row.items()}}
        for who, row in zip(ids, got.to_dict("records"), strict=True)
    ]
    emit_rows(rows, ("survey", "diaSourceId", *map(str, got.columns)), as_json=as_json)


@command.command()
@click.argument("name")
@click.option("--night", "nights", multiple=True, help="A night of the archive, YYYYMMDD; several.")
@click.option("--survey", help="One survey's alerts only: sim, ztf, lsst.")
@click.option(
    "--on",
    "files",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Packets in a file, or a folder of them, instead of the archive or beside it.",
)
@click.option(
    "--against",
    help="The previous version: a folder of modules, or a version (1.0.0) as it was stored.",
)
@click.option("--limit", type=click.IntRange(min=1), help="At most so many alerts.")
@click.option(
    "--out",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help="Folder to write to; default this one.",
)
@path_option
@json_option
@click.pass_context
def report(
    ctx: click.Context,
    name: str,
    nights: tuple[str, ...],
    survey: str | None,
    files: tuple[Path, ...],
    against: str | None,
    limit: int | None,
    folder: Path,
    path: Path | None,
    as_json: bool,
) -> None:
    """Run the folder, module or topic NAME on past alerts; write a page and a JSON about it.

    Every alert is judged with what its own packet held, nothing dated later. Nothing is stored
    or published.

    Example: broker module report rise_rate --night 20261120 --survey ztf --against 1.0.0
    """
    from broker.ops.alert_tables import Reading
    from broker.ops.module_page import plain_report, write_report
    from broker.ops.module_report import make_report
    from broker.science.installed import installed

    if not nights and not files:
        raise click.UsageError("say which alerts: --night of the archive, or --on files")
    science, reading = load(ctx).science, Reading()
    found = installed(load(ctx), path or "")
    alerts = as_packets_came(ctx, (nights, survey, files), reading)
    with earlier_of(ctx, against, name, found) as earlier:
        made = make_report(
            limited(alerts, limit),
            found,
            name,
            reading=reading,
            earlier=earlier,
            against=against or "",
            isolate=science.isolate,
            ms_per_alert=science.ms_per_alert,
            memory_mb=science.memory_mb,
        )
    page, data = write_report(made, folder)
    if as_json:
        emit_json(plain_report(made))
        return
    rows = [
        {**topic, "night": ", ".join(made["nights"]), "alerts": made["alerts"]}
        for topic in made["topics"]
    ]
    emit_rows(rows, ("name", "alerts", "passed", "fraction", "maxPassFraction"), as_json=False)
    click.echo(f"{made['alerts']} alerts; the report is {page} ({data} for programs)")


@command.command()
@click.argument("name", required=False)
@click.option(
    "--on",
    "files",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Packets in a file, or a folder of them. Default: a sample.",
)
@click.option(
    "-n",
    "n_sample",
    type=click.IntRange(1),
    default=500,
    show_default=True,
    help="Size of the sample.",
)
@click.option("--lines", is_flag=True, help="Line by line of NAME's file.")
@path_option
@json_option
@click.pass_context
def profile(
    ctx: click.Context,
    name: str | None,
    files: tuple[Path, ...],
    n_sample: int,
    lines: bool,
    path: Path | None,
    as_json: bool,
) -> None:
    """Measure time and memory of the folder, module or topic NAME; without NAME, of all.

    What it reads from other modules is not counted. A line's time includes what it calls.

    Example: broker module profile rise_rate --lines
    """
    import dataclasses

    from broker.science import sample_alerts
    from broker.science.checks import subjects
    from broker.science.installed import installed
    from broker.science.profile import profile as measure
    from broker.science.profile import profile_lines

    if lines and not name:
        raise click.UsageError("--lines needs a NAME")
    found = installed(load(ctx), path or "")
    tasks = [subject.task for subject in subjects(found, name or "")]
    on_files = read_alerts(files, load(ctx).catalog_path) if files else None
    alerts = sample_alerts(n_sample) if on_files is None else on_files
    if lines:
        rows = [
            {"name": task.name, **dataclasses.asdict(line)}
            for task in tasks
            for line in profile_lines(found, alerts, task.name)
        ]
        emit_rows(rows, ("name", "number", "times", "ms", "text"), as_json=as_json)
        return
    costs = measure(found, alerts, frozenset(task.name for task in tasks))
    rows = [
        {
            "name": one.name,
            "alerts": one.n_alerts,
            "msPerAlert": one.ms_per_alert,
            "firstCallS": one.first_s,
            "peakMb": one.peak_mb,
        }
        for one in costs
    ]
    emit_rows(rows, ("name", "alerts", "msPerAlert", "firstCallS", "peakMb"), as_json=as_json)


command.add_command(status)
command.add_command(compare)


@command.command()
@click.argument("name")
@json_option
@click.pass_context
def release(ctx: click.Context, name: str, as_json: bool) -> None:
    """Let the module or filter NAME run again after quarantine.

    Example: broker module release rise_rate
    """
    from broker.cli.assemble import tables_of
    from broker.store.quarantine import Quarantine

    config = load(ctx)
    limit = config.science.failures_to_quarantine
    with tables_of(ctx) as tables:
        freed = Quarantine(tables, config.the_run, failures_to_quarantine=limit).release(name)
    if as_json:
        emit_json({"name": name, "released": freed})
    else:
        click.echo(f"{name}: {freed} versions released from quarantine")

"""`broker module`: the science modules and filters that others contribute."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from broker.cli.main import load
from broker.cli.output import emit_json, emit_rows, json_option
from broker.errors import AlertError, ConfigError
from broker.types import Coordinate

if TYPE_CHECKING:
    import pyarrow as pa

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
    from broker.science import ScienceModule, find_contributions
    from broker.science.execute import tasks_of

    rows: list[dict[str, Any]] = []
    for task in tasks_of(find_contributions(_folder(ctx, path))):
        is_module = isinstance(task, ScienceModule)
        rows.append(
            {
                "name": task.name,
                "kind": "module" if is_module else "filter",
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
@click.option("-n", "n_sample", default=20, show_default=True, help="Size of the sample.")
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

    alerts = _read_alerts(files, load(ctx).catalog_path) if files else sample_alerts(n_sample)
    got = run_module(name, alerts, path=_folder(ctx, path))
    ids = alerts.select(["survey", "diaSourceId"]).to_pylist()
    rows = [
        {**who, **{key: None if value != value else value for key, value in row.items()}}
        for who, row in zip(ids, got.to_dict("records"), strict=True)
    ]
    emit_rows(rows, ("survey", "diaSourceId", *map(str, got.columns)), as_json=as_json)


@command.command()
@json_option
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Show which modules and filters failed, and which are in quarantine.

    Example: broker module status
    """
    from broker.cli.assemble import tables_of
    from broker.store.quarantine import Quarantine

    config = load(ctx)
    limit = config.science.failures_to_quarantine
    with tables_of(ctx) as tables:
        found = Quarantine(tables, config.the_run, failures_to_quarantine=limit).status()
    rows = [
        {
            "name": one.name,
            "version": one.version,
            "failures": one.failures,
            "quarantined": one.quarantined,
            "lastFailureMs": one.last_failure_ms,
            "reason": one.reason,
        }
        for one in found
    ]
    names = ("name", "version", "failures", "quarantined", "lastFailureMs", "reason")
    emit_rows(rows, names, as_json=as_json)


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


def _read_alerts(files: tuple[Path, ...], catalogs: Path) -> "pa.Table":
    """Return packets of any survey as canonical alerts with their matches.

    Raises
    ------
    AlertError
        If a file is no packet, or none is given.
    """
    import pyarrow as pa

    from broker.catalog.registry import Catalogs

    packets = [
        packet
        for file in files
        for packet in (sorted(file.rglob("*.avro")) if file.is_dir() else [file])
    ]
    if not packets:
        raise AlertError(f"there is no .avro file in {', '.join(map(str, files))}")
    alerts = pa.concat_tables([_read_packet(packet) for packet in packets])
    matches = Catalogs(catalogs).match(
        alerts.column("ra").to_numpy(), alerts.column("dec").to_numpy()
    )
    for field in matches.schema:
        alerts = alerts.append_column(field, matches.column(field.name))
    return alerts


def _read_packet(file: Path) -> "pa.Table":
    """Return one packet as canonical columns; the survey is the one that can read it."""
    from broker.alerts.adapters import find_adapters

    packet = file.read_bytes()
    wire = "container" if packet.startswith(b"Obj\x01") else "framed"
    reasons = []
    for survey, adapter in find_adapters().items():
        if adapter.wire == wire:
            try:
                return adapter.decode_one(packet, Coordinate(str(file), 0, 0))
            except AlertError as error:
                reasons.append(f"{survey}: {error.message}")
    raise AlertError(f"{file} is no packet of a known survey; {'; '.join(reasons)}")

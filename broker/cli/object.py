"""`broker object`: an object's alerts, oldest first."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from broker.cli.assemble import find_object, tables_of, topics_of
from broker.cli.main import load
from broker.cli.object_tns import tns
from broker.cli.output import emit_json, emit_rows, json_option

if TYPE_CHECKING:
    from broker.store.table import Tables
    from broker.types import Run


@click.group()
def command() -> None:
    """Look an object up.

    Example: broker object show ZTF18abcdefg --survey ztf
    """


command.add_command(tns)


@command.command()
@click.argument("dia_object_id", metavar="ID")
@click.option("--survey", help="sim, ztf or lsst; default the first that has this id.")
@click.option(
    "--plot",
    "plot_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw the light curve and the newest cutouts to this PNG file.",
)
@json_option
@click.pass_context
def show(
    ctx: click.Context,
    dia_object_id: str,
    survey: str | None,
    plot_path: Path | None,
    as_json: bool,
) -> None:
    """Print the alerts of an object, oldest first.

    An object of our own images is shown under all its names, and whether it was withdrawn.

    Example: broker object show ZTF18abcdefg --survey ztf --plot light-curve.png
    """
    config = load(ctx)
    with tables_of(ctx) as tables:
        alerts = find_object(tables, config.the_run, dia_object_id, survey)
        alerts, marks = _whole(tables, config.the_run, dia_object_id, alerts)
    if plot_path is not None:
        _draw(ctx, alerts, plot_path)
        click.echo(f"The picture is {plot_path}.", err=True)
    for mark in marks:
        click.echo(mark, err=True)
    if as_json:
        emit_json(alerts)
        return
    columns = (
        "diaSourceId",
        "midpointMjdTai",
        "band",
        "ra",
        "dec",
        "psfFlux",
        "psfFluxErr",
        "snr",
        "reliability",
        "topics",
    )
    emit_rows(alerts, columns, as_json=False, title=f"{alerts[0]['survey']} {dia_object_id}")


def _whole(
    tables: "Tables", run: "Run", name: str, alerts: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the alerts under all names of an object, and what is to be said of it."""
    survey = alerts[0]["survey"]
    if survey != "sim" or not name.isdigit() or run.table("association") not in tables.names():
        return alerts, []
    from broker.store.alerts import AlertStore
    from broker.store.object_names import names_of

    chief, *others = (str(n) for n in names_of(tables, run, int(name), *_place(alerts[0])))
    store, marks = AlertStore(tables, run), []
    alerts = alerts + [a for n in (chief, *others) if n != name for a in store.object(survey, n)]
    if others:
        marks.append(f"It is known as {chief}; also called {', '.join(others)}.")
    if run.table("retraction") in tables.names():
        marks += _withdrawn(tables, run, chief)
    return sorted(alerts, key=lambda a: (a["midpointMjdTai"], int(a["diaSourceId"]))), marks


def _place(alert: dict[str, Any]) -> tuple[float, float]:
    return alert["ra"], alert["dec"]


def _withdrawn(tables: "Tables", run: "Run", name: str) -> list[str]:
    from broker.store.retractions import RetractionStore

    return [
        f"{'It' if mark.dia_source_id is None else f'Its source {mark.dia_source_id}'} was "
        f"withdrawn at MJD {mark.time_withdrawn_mjd_tai:.5f}: {mark.reason}."
        for mark in RetractionStore(tables, run).of_object(name)
        if mark.is_retracted
    ]


def _draw(ctx: click.Context, alerts: list[dict[str, Any]], path: Path) -> None:
    from broker.archive import Archive
    from broker.ops.packets import cutouts_of, find_packet
    from broker.ops.pictures import draw_object

    config = load(ctx)
    newest = alerts[-1]
    with topics_of(ctx) as topics:
        packet = find_packet(Archive(config.archive_path, config.the_run), topics, newest)
    cutouts = cutouts_of(newest["survey"], packet) if packet is not None else {}
    title = f"{newest['survey']} {newest['diaObjectId']}"
    draw_object(alerts, cutouts, path, title=title)

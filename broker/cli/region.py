"""`broker region`: the objects in a part of the sky; and the options that name one."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from broker.cli.assemble import tables_of
from broker.cli.main import load
from broker.cli.output import emit_rows, json_option

if TYPE_CHECKING:
    from broker.catalog.regions import Region

_COLUMNS = (
    "survey",
    "diaObjectId",
    "ra",
    "dec",
    "diaSourceId",
    "midpointMjdTai",
    "band",
    "psfFlux",
    "snr",
)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def region_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name a part of the sky."""
    options = (
        click.option("--box", type=float, nargs=4, help="RA from, to, Dec from, to. [deg]"),
        click.option(
            "--polygon", type=float, nargs=2, multiple=True, help="RA and Dec of a corner. [deg]"
        ),
        click.option("--moc", type=_FILE, help="A coverage map: FITS or JSON file."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def region_of(
    sides: tuple[float, float, float, float] | None,
    corners: tuple[tuple[float, float], ...],
    moc: Path | None,
) -> "Region":
    """Return the part of the sky that the options name; UsageError unless it is one."""
    from broker.catalog.coverage import read_coverage
    from broker.catalog.regions import box, covered, polygon

    if sum(bool(given) for given in (sides, corners, moc)) != 1:
        raise click.UsageError("give one of --box, --polygon and --moc")
    if sides:
        return box(sides[:2], sides[2:])
    if corners:
        return polygon(*zip(*corners, strict=True))
    assert moc is not None  # noqa: S101 - one of three is given
    return covered(read_coverage(moc))


@click.command(context_settings={"ignore_unknown_options": True})
@region_options
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="At most.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    box: tuple[float, float, float, float] | None,
    polygon: tuple[tuple[float, float], ...],
    moc: Path | None,
    limit: int,
    as_json: bool,
) -> None:
    """List the objects in a box, a polygon or a coverage map, each by its newest alert.

    Example: broker region --box 150 151 -3 -2
    """
    from broker.store.alerts import AlertStore

    region = region_of(box, polygon, moc)
    with tables_of(ctx) as tables:
        rows, total = AlertStore(tables, load(ctx).the_run).region(region, limit=limit)
    emit_rows(rows, _COLUMNS, as_json=as_json)
    if total > limit:
        click.echo(f"the first {limit} of {total}; --limit shows more", err=True)

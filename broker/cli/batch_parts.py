"""`broker batch window` and `broker batch repartition`: parts of catalogues."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from broker.cli.main import load

if TYPE_CHECKING:
    from broker.catalog.distance import Distance
    from broker.catalog.windows import Window

_OUT = click.Path(path_type=Path)

by_option = click.option("--by", help="Column that is a distance, or a redshift for one.")
comoving_option = click.option(
    "--comoving", is_flag=True, help="It is a redshift; lengths are comoving, in Mpc (Planck 2018)."
)


def distance_of(column: str, comoving: bool) -> "Distance":
    """Return what --by and --comoving say."""
    from broker.catalog.distance import Distance

    return Distance(column, comoving)


@contextmanager
def spark_of(ctx: click.Context) -> Iterator[Any]:
    """Start Spark, and stop it at the end."""
    from broker.spark.session import make_session, stop_session

    session = make_session(load(ctx), "batch", jars=())
    try:
        yield session
    finally:
        stop_session(session)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.option("--cone", type=float, nargs=3, help="RA, Dec [deg], radius [arcsec].")
@click.option("--box", type=float, nargs=4, help="RA from, to, Dec from, to. [deg]")
@click.option(
    "--shell", type=float, nargs=2, help="Distances from, to below, in the unit of the column."
)
@click.option(
    "--sphere",
    type=float,
    nargs=4,
    help="RA, Dec [deg], distance [the column's unit], radius [the unit of lengths].",
)
@click.option(
    "--cube", type=float, nargs=6, help="x, y, z of two corners. [unit of lengths; x to RA 0]"
)
@click.option("--by", default="redshift", show_default=True, help="Column that is the distance.")
@comoving_option
@click.option(
    "--out",
    required=True,
    type=_OUT,
    help=".csv, .parquet, .vot, .ecsv, .fits; else a folder of Parquet files.",
)
@click.pass_context
def window(
    ctx: click.Context,
    /,
    name: str,
    by: str,
    comoving: bool,
    out: Path,
    **given: tuple[float, ...] | None,
) -> None:
    """Take the entries in a part of the sky or of space; of several windows, those in all.

    Example: broker batch window reference --cone 150.1 2.2 3600 --shell 0.1 0.3 --out some.parquet
    """
    from broker.batch.catalogs import window as take
    from broker.catalog.table_files import KINDS, write_table

    windows = _windows(distance_of(by, comoving), given)
    if not windows:
        raise click.UsageError("give --cone, --box, --shell, --sphere or --cube")
    with spark_of(ctx) as spark:
        found = take(spark, load(ctx).catalog_path, name, windows)
        if out.suffix.lower() in KINDS:
            table = found.toArrow()
            write_table(table, out)
            n = table.num_rows
        else:
            found.write.parquet(str(out))
            n = spark.read.parquet(str(out)).count()
    click.echo(f"{n} entries in {out}", err=True)


def _windows(distance: "Distance", given: dict[str, tuple[float, ...] | None]) -> "list[Window]":
    from broker.catalog import windows as of
    from broker.catalog.regions import box

    found = []
    if cone := given["cone"]:
        found.append(of.on_the_sky(of.cone(cone[0], cone[1], cone[2])))
    if limits := given["box"]:
        found.append(of.on_the_sky(box((limits[0], limits[1]), (limits[2], limits[3]))))
    if shell := given["shell"]:
        found.append(of.shell(distance, shell[0], shell[1]))
    if sphere := given["sphere"]:
        found.append(of.sphere(distance, sphere[0], sphere[1], sphere[2], sphere[3]))
    if cube := given["cube"]:
        found.append(of.cube(distance, cube[:3], cube[3:]))
    return found


@click.command()
@click.argument("name")
@click.option(
    "--by",
    "kind",
    required=True,
    type=click.Choice(["healpix", "shells", "octree", "kdtree"]),
    help="Pixels of the sky, shells around the origin, cells of space, or halves of halves.",
)
@click.option(
    "--distance", help="Column that is the distance, for shells, octree and, in space, kdtree."
)
@comoving_option
@click.option(
    "--rows", type=click.IntRange(1), default=1_000_000, show_default=True, help="At most, a part."
)
@click.option("--edge", type=float, multiple=True, help="Border of shells; give two or more.")
@click.option("--out", required=True, type=_OUT, help="Folder, made by this.")
@click.pass_context
def repartition(
    ctx: click.Context,
    name: str,
    kind: str,
    distance: str | None,
    comoving: bool,
    rows: int,
    edge: tuple[float, ...],
    out: Path,
) -> None:
    """Write a catalogue in parts: a Parquet file each, and partitions.csv with bounds and counts.

    Borders come from all entries, and the bytes do not depend on the number of workers.

    Example: broker batch repartition reference --by healpix --out parts
    """
    from broker.batch.repartition import repartition as divide

    by = distance_of(distance, comoving) if distance else None
    with spark_of(ctx) as spark:
        found = divide(
            spark,
            load(ctx).catalog_path,
            name,
            out,
            by=kind,
            distance=by,
            rows_per_part=rows,
            edges=edge,
        )
    n = sum(found.column("entries").to_pylist())
    click.echo(f"{n} entries in {found.num_rows} parts in {out}", err=True)

"""`broker batch`: work on whole catalogues with Spark."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from broker.cli.batch_images import images, release
from broker.cli.batch_science import reprocess
from broker.cli.main import load
from broker.cli.output import emit_rows, json_option

_OUT = click.Path(path_type=Path)


@click.group()
def command() -> None:
    """Work with Spark: join, cluster and map catalogues, run a program on images, make a release.

    Example: broker batch density reference --order 6 --out density.fits
    """


command.add_command(images)
command.add_command(release)
command.add_command(reprocess)


@contextmanager
def _spark(ctx: click.Context) -> Iterator[Any]:
    from broker.spark.session import make_session, stop_session

    session = make_session(load(ctx), "batch", jars=())
    try:
        yield session
    finally:
        stop_session(session)


@command.command()
@click.argument("left")
@click.argument("right")
@click.option("--radius", type=float, help="One radius; default each right entry's own. [arcsec]")
@click.option("-k", type=click.IntRange(1), help="The k nearest only; default all.")
@click.option("--out", required=True, type=_OUT, help="Folder of Parquet files, made by this.")
@click.pass_context
def crossmatch(
    ctx: click.Context, left: str, right: str, radius: float | None, k: int | None, out: Path
) -> None:
    """Join two catalogues by place: leftId, rightId, separation.

    Example: broker batch crossmatch gaia reference --radius 1.5 -k 1 --out matched
    """
    from broker.batch.catalogs import crossmatch as join

    path = load(ctx).catalog_path
    with _spark(ctx) as spark:
        join(spark, path, left, right, radius_arcsec=radius, k=k).write.parquet(str(out))
        pairs = spark.read.parquet(str(out)).count()
    click.echo(f"{pairs} pairs in {out}", err=True)


@command.command(context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.option("-k", type=click.IntRange(1), default=10, show_default=True, help="How many.")
@click.option("--point", type=float, nargs=2, help="Of one place: RA and Dec. [deg]")
@click.option("--distance", type=float, help="Of that place, to search in three dimensions.")
@click.option("--by", default="redshift", show_default=True, help="Column that is the distance.")
@click.option("--of", "other", help="Of each entry of this catalogue; needs --out.")
@click.option("--out", type=_OUT, help="Folder of Parquet files, made by this.")
@json_option
@click.pass_context
def neighbours(
    ctx: click.Context,
    name: str,
    k: int,
    point: tuple[float, float] | None,
    distance: float | None,
    by: str,
    other: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Find the k nearest entries, however far, of a place or of every entry of a catalogue.

    Example: broker batch neighbours reference -k 100 --point 150.1 2.2
    """
    from broker.batch.catalogs import neighbours as find
    from broker.batch.catalogs import rows_of
    from broker.catalog.neighbours import nearest_to
    from broker.catalog.space import in_space

    path = load(ctx).catalog_path
    if (point is None) == (other is None) or (other is not None and out is None):
        raise click.UsageError("give --point RA DEC, or --of CATALOGUE with --out FOLDER")
    if point is not None:
        rows = rows_of(path, name)
        if distance is None:
            row, separation = nearest_to(rows, *point, k)
        else:
            _, row, separation = in_space(rows, by).nearest(*point, distance, k)
        found = rows.entries.take(row).append_column("separation", [separation])
        emit_rows(found.to_pylist(), found.column_names, as_json=as_json, title=name)
        return
    with _spark(ctx) as spark:
        find(spark, path, str(other), name, k=k).write.parquet(str(out))
    click.echo(f"neighbours are in {out}", err=True)


@command.command()
@click.argument("name")
@click.option("--radius", type=float, required=True, help="Reach of an entry. [arcsec]")
@click.option("--min-points", type=click.IntRange(1), default=5, show_default=True, help="To grow.")
@click.option("--out", required=True, type=_OUT, help=".csv, .parquet, .vot, .ecsv, .fits")
@click.pass_context
def clusters(ctx: click.Context, name: str, radius: float, min_points: int, out: Path) -> None:
    """Find density clusters as DBSCAN does: id, cluster (-1 is noise), isCore.

    Example: broker batch clusters reference --radius 20 --min-points 5 --out clusters.parquet
    """
    from broker.batch.catalogs import clusters as find
    from broker.catalog.table_files import write_table

    with _spark(ctx) as spark:
        found = find(
            spark, load(ctx).catalog_path, name, radius_arcsec=radius, min_points=min_points
        )
    write_table(found, out)
    labels = found.column("cluster").to_numpy()
    noise = int((labels < 0).sum())
    click.echo(f"{labels.max(initial=-1) + 1} clusters, {noise} entries in none: {out}", err=True)


@command.command()
@click.argument("name")
@click.option(
    "--order",
    type=click.IntRange(0, 10),
    default=6,
    show_default=True,
    help="HEALPix order of the map.",
)
@click.option("--out", required=True, type=_OUT, help="FITS file; a .png of the same name beside.")
@click.pass_context
def density(ctx: click.Context, name: str, order: int, out: Path) -> None:
    """Map the density of entries over the sky, as a HEALPix map and a picture.

    Example: broker batch density reference --order 6 --out density.fits
    """
    from broker.batch.catalogs import density as count
    from broker.batch.density import draw_map, write_map

    with _spark(ctx) as spark:
        counts = count(spark, load(ctx).catalog_path, name, order=order)
    write_map(out, counts, order, name=name)
    draw_map(out.with_suffix(".png"), counts, order, title=name)
    click.echo(f"{counts.sum()} entries in {out} and {out.with_suffix('.png')}", err=True)

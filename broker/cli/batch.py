"""`broker batch`: work on whole catalogues with Spark."""

from pathlib import Path
from typing import Any

import click

from broker.cli.batch_images import images, release
from broker.cli.batch_parts import (
    by_option,
    comoving_option,
    distance_of,
    repartition,
    spark_of,
    window,
)
from broker.cli.batch_science import reprocess
from broker.cli.batch_tracklets import tracklets
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
command.add_command(tracklets)
command.add_command(repartition)
command.add_command(window)


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
    with spark_of(ctx) as spark:
        join(spark, path, left, right, radius_arcsec=radius, k=k).write.parquet(str(out))
        pairs = spark.read.parquet(str(out)).count()
    click.echo(f"{pairs} pairs in {out}", err=True)


@command.command(context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.option("-k", type=click.IntRange(1), default=10, show_default=True, help="How many.")
@click.option("--point", type=float, nargs=2, help="Of one place: RA and Dec. [deg]")
@click.option("--distance", type=float, help="Of that place, to search in three dimensions.")
@by_option
@comoving_option
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
    by: str | None,
    comoving: bool,
    other: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Find the k nearest entries, however far, of a place or of every entry of a catalogue.

    With --distance, or --of and --by, in three dimensions.

    Example: broker batch neighbours reference -k 100 --point 150.1 2.2
    """
    from broker.batch.blocks import rows_of
    from broker.batch.catalogs import neighbours as find
    from broker.catalog.neighbours import nearest_to
    from broker.catalog.space import open_space

    path = load(ctx).catalog_path
    if (point is None) == (other is None) or (other is not None and out is None):
        raise click.UsageError("give --point RA DEC, or --of CATALOGUE with --out FOLDER")
    if point is not None:
        rows = rows_of(path, name)
        if distance is None:
            row, separation = nearest_to(rows, *point, k)
        else:
            space = open_space(path, name, distance_of(by or "redshift", comoving))
            rows, (_, row, separation) = space.rows, space.nearest(*point, distance, k)
        found = rows.entries.take(row).append_column("separation", [separation])
        emit_rows(found.to_pylist(), found.column_names, as_json=as_json, title=name)
        return
    in_space = distance_of(by, comoving) if by else None
    with spark_of(ctx) as spark:
        find(spark, path, str(other), name, k=k, distance=in_space).write.parquet(str(out))
    click.echo(f"neighbours are in {out}", err=True)


@command.command()
@click.argument("name")
@click.option(
    "--radius",
    type=float,
    required=True,
    help="Reach of an entry. [arcsec; with --by the unit of lengths]",
)
@click.option("--min-points", type=click.IntRange(1), default=5, show_default=True, help="To grow.")
@by_option
@comoving_option
@click.option("--out", required=True, type=_OUT, help=".csv, .parquet, .vot, .ecsv, .fits")
@click.pass_context
def clusters(
    ctx: click.Context,
    name: str,
    radius: float,
    min_points: int,
    by: str | None,
    comoving: bool,
    out: Path,
) -> None:
    """Find density clusters as DBSCAN does: id, cluster (-1 is noise), isCore.

    With --by in three dimensions.

    Example: broker batch clusters reference --radius 20 --min-points 5 --out clusters.parquet
    """
    from broker.batch.catalogs import clusters as find
    from broker.catalog.table_files import write_table

    reach: dict[str, Any] = {"radius_arcsec": radius}
    if by is not None:
        reach = {"radius": radius, "distance": distance_of(by, comoving)}
    with spark_of(ctx) as spark:
        found = find(spark, load(ctx).catalog_path, name, min_points=min_points, **reach)
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
@click.option("--column", help="Also the number, sum and mean of this column's values.")
@click.option(
    "--quantile", type=float, multiple=True, help="And this quantile, 0 to 1; repeatable."
)
@click.option("--out", required=True, type=_OUT, help="FITS file; a .png of the same name beside.")
@click.pass_context
def density(
    ctx: click.Context,
    name: str,
    order: int,
    column: str | None,
    quantile: tuple[float, ...],
    out: Path,
) -> None:
    """Map the density of entries over the sky, as a HEALPix map and a picture.

    With --column the picture is of its mean, or of the first --quantile.

    Example: broker batch density reference --order 6 --out density.fits
    """
    from broker.batch.catalogs import density as count
    from broker.batch.density import draw_map, draw_values, write_map

    if quantile and not column:
        raise click.UsageError("--quantile is of a --column")
    path, picture = load(ctx).catalog_path, out.with_suffix(".png")
    if column is None:
        with spark_of(ctx) as spark:
            counts = count(spark, path, name, order=order)
        write_map(out, counts, order, name=name)
        draw_map(picture, counts, order, title=name)
    else:
        from broker.batch.histograms import histogram

        with spark_of(ctx) as spark:
            found = histogram(spark, path, name, column, order=order, quantiles=quantile)
        counts, unit = found.counts, _unit(path, name, column)
        of_quantiles = {f"Q{100 * q:g}": (v, unit) for q, v in found.quantiles.items()}
        columns = {
            "KNOWN": (found.known, ""),
            "SUM": (found.total, unit),
            "MEAN": (found.mean, unit),
        }
        write_map(out, counts, order, name=name, columns={**columns, **of_quantiles})
        shown = found.quantiles[quantile[0]] if quantile else found.mean
        label = f"{quantile[0]:g} quantile" if quantile else "mean"
        label = f"{label} of {column}" + (f" [{unit}]" if unit else "")
        draw_values(picture, shown, order, title=name, label=label)
    click.echo(f"{counts.sum()} entries in {out} and {picture}", err=True)


def _unit(path: Path, name: str, column: str) -> str:
    from broker.catalog.registry import definition_of

    units = {c.name: c.unit for c in definition_of(name, path).columns}
    return units.get(column, "")

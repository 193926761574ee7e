"""`broker catalog`: reference catalogues."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from broker.cli.main import load
from broker.cli.output import emit_json, emit_record, emit_rows, json_option
from broker.cli.region import region_of, region_options

if TYPE_CHECKING:
    from broker.catalog.partition import Rows
    from broker.config import Config

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def command() -> None:
    """Add, look at and search the catalogues that alerts are matched with.

    Example: broker catalog list
    """


@command.command()
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@click.option("--name", required=True, help="A defined catalogue, or with --definition a new one.")
@click.option("--version", default="", help="Stands with every match: 2026.1, dr3.")
@click.option("--definition", type=_FILE, help="TOML file that says what the catalogue is.")
@click.option("--coverage", help="Where it has looked: all-sky, or a MOC (FITS or JSON file).")
@json_option
@click.pass_context
def add(
    ctx: click.Context,
    file: Path,
    name: str,
    version: str,
    definition: Path | None,
    coverage: str | None,
    as_json: bool,
) -> None:
    """Add a catalogue from a file, or replace its rows by a new version.

    CSV, Parquet, FITS table, VOTable, ECSV or a HATS folder. The definition says which columns
    are id and position, in which frame and unit, and which columns to attach. Running queries
    take a new version up between two batches, and a new catalogue at their next start.

    Example: broker catalog add stars.fits --name stars --definition stars.toml --version dr3
    """
    from broker.catalog import install_catalog
    from broker.catalog.coverage import all_sky, read_coverage
    from broker.catalog.registry import Catalogs

    config = load(ctx)
    where = None
    if coverage is not None:
        where = all_sky() if coverage == "all-sky" else read_coverage(Path(coverage))
    n_rows = install_catalog(
        config.catalog_path, name, file, version, definition=definition, coverage=where
    )
    rows = Catalogs(config.catalog_path).rows(name)
    assert rows is not None  # noqa: S101 - it was just added
    share = rows.coverage.fraction
    if as_json:
        emit_json({"name": name, "version": rows.version, "rows": n_rows, "skyFraction": share})
        return
    click.echo(f"{name} {rows.version}: {n_rows} rows, {share:.3%} of the sky", err=True)
    if not share:
        click.echo(
            "its rows are too few to tell where it has looked, so places without an entry read "
            "-1, not searched: give --coverage",
            err=True,
        )


@command.command()
@click.argument("name")
@click.pass_context
def remove(ctx: click.Context, name: str) -> None:
    """Remove a catalogue's rows, and its definition if it was added with one.

    Example: broker catalog remove stars
    """
    from broker.catalog.install import remove_catalog

    remove_catalog(load(ctx).catalog_path, name)
    click.echo(f"{name} is removed", err=True)


@command.command("list")
@json_option
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """List the defined catalogues; one without rows reads -1, not searched.

    Example: broker catalog list --json
    """
    from broker.catalog.registry import Catalogs, read_definitions

    path = load(ctx).catalog_path
    catalogs = Catalogs(path)
    rows: list[dict[str, Any]] = []
    for definition in read_definitions(path).values():
        found = catalogs.rows(definition.name)
        rows.append(
            {
                "name": definition.name,
                "version": None if found is None else found.version,
                "rows": 0 if found is None else len(found),
                "skyFraction": 0.0 if found is None else found.coverage.fraction,
                "radiusArcsec": definition.radius_arcsec,
                "columns": [column.name for column in definition.columns],
                "doc": definition.doc,
            }
        )
    columns = ["name", "version", "rows", "skyFraction", "radiusArcsec", "columns", "doc"]
    emit_rows(rows, columns, as_json=as_json)


@command.command()
@click.argument("name")
@json_option
@click.pass_context
def show(ctx: click.Context, name: str, as_json: bool) -> None:
    """Show the columns that a match with a catalogue adds to an alert.

    Example: broker catalog show reference
    """
    from broker.catalog.registry import definition_of

    definition = definition_of(name, load(ctx).catalog_path)
    rows = [
        {"column": c.name, "type": c.dtype, "unit": c.unit, "doc": c.doc}
        for c in definition.match_columns
    ]
    emit_rows(rows, ["column", "type", "unit", "doc"], as_json=as_json, title=name)
    if definition.citation and not as_json:
        click.echo(f"cite: {definition.citation}", err=True)


@command.command(context_settings={"ignore_unknown_options": True})
@click.argument("ra", type=float)
@click.argument("dec", type=float)
@click.option("--mjd", type=float, help="When it was measured, for proper motion (TAI).")
@json_option
@click.pass_context
def match(ctx: click.Context, ra: float, dec: float, mjd: float | None, as_json: bool) -> None:
    """Match one place on the sky, in degrees, with every catalogue.

    Example: broker catalog match 150.1 -2.2
    """
    from broker.catalog import Catalogs
    from broker.catalog.associate import associations
    from broker.catalog.definition import ORBITS
    from broker.catalog.registry import read_definitions
    from broker.errors import AlertError

    if not (0.0 <= ra <= 360.0 and -90.0 <= dec <= 90.0):
        raise AlertError(f"({ra}, {dec}) is no place on the sky: 0 to 360 and -90 to 90 deg")
    path = load(ctx).catalog_path
    found = Catalogs(path).match([ra], [dec], None if mjd is None else [mjd]).to_pylist()[0]
    if as_json:
        emit_json(found)
        return
    emit_record(found)
    definitions = list(read_definitions(path).values())
    for one in associations(definitions, found):
        click.echo(one.sentence)
    if mjd is None and any(definition.kind == ORBITS for definition in definitions):
        click.echo("bodies on orbits are looked for at a time: give --mjd", err=True)


def _rows(config: "Config", name: str) -> "Rows":
    from broker.catalog.registry import Catalogs
    from broker.errors import ConfigError

    rows = Catalogs(config.catalog_path).rows(name)
    if rows is None:
        raise ConfigError(f"the catalogue {name} has no rows yet: `broker catalog add`")
    return rows


@command.command(context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.option("--cone", type=float, nargs=3, help="RA, Dec [deg] and radius [arcsec].")
@region_options
@click.option("--out", type=click.Path(path_type=Path), help=".csv, .parquet, .vot, .ecsv, .fits")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Rows shown.")
@json_option
@click.pass_context
def search(
    ctx: click.Context,
    name: str,
    cone: tuple[float, float, float] | None,
    box: tuple[float, float, float, float] | None,
    polygon: tuple[tuple[float, float], ...],
    moc: Path | None,
    out: Path | None,
    limit: int,
    as_json: bool,
) -> None:
    """List a catalogue's entries in a cone, a box, a polygon or a coverage map.

    Example: broker catalog search reference --cone 150.1 -2.2 30
    """
    from broker.catalog.cone import cone_search
    from broker.catalog.regions import region_search
    from broker.catalog.table_files import write_table

    if sum(bool(given) for given in (cone, box, polygon, moc)) != 1:
        raise click.UsageError("give one of --cone, --box, --polygon and --moc")
    rows = _rows(load(ctx), name)
    found = cone_search(rows, *cone) if cone else region_search(rows, region_of(box, polygon, moc))
    if out:
        write_table(found, out)
        click.echo(f"{found.num_rows} entries in {out}", err=True)
        return
    emit_rows(found.slice(0, limit).to_pylist(), found.column_names, as_json=as_json, title=name)
    if found.num_rows > limit:
        click.echo(f"the first {limit} of {found.num_rows}; --out has all", err=True)


@command.command(context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.option("--mjd", type=float, required=True, help="When (MJD, TAI). [d]")
@click.option("--cone", type=float, nargs=3, required=True, help="RA, Dec [deg], radius [arcsec].")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Rows shown.")
@json_option
@click.pass_context
def ephemeris(
    ctx: click.Context,
    name: str,
    mjd: float,
    cone: tuple[float, float, float],
    limit: int,
    as_json: bool,
) -> None:
    """List which bodies of a catalogue of orbits are in a cone at a time, nearest first.

    Example: broker catalog ephemeris asteroids --mjd 61000.2 --cone 150.1 -2.2 3600
    """
    import numpy as np

    from broker.catalog import Catalogs
    from broker.catalog.moving import predictions
    from broker.units import separation_arcsec

    moving = Catalogs(load(ctx).catalog_path).moving(name)
    row, seen = moving.around(*cone, mjd)
    said = predictions(moving, row, np.full(row.shape, mjd)).to_pylist()
    away = separation_arcsec(cone[0], cone[1], seen.ra, seen.dec)
    ids = moving.rows.table.column("id").take(row).to_pylist()
    columns = ["id", "ra", "dec", "separation", *(said[0] if said else ())]
    rows = [
        {
            "id": one,
            "ra": float(seen.ra[k]),
            "dec": float(seen.dec[k]),
            "separation": float(away[k]),
        }
        | said[k]
        for k, one in enumerate(ids)
    ]
    emit_rows(rows[:limit], columns, as_json=as_json, title=f"{name}, MJD {mjd:g}")
    if len(rows) > limit:
        click.echo(f"the first {limit} of {len(rows)}; --limit shows more", err=True)


@command.command("match-list")
@click.argument("file", type=_FILE)
@click.option("--ra", default="ra", show_default=True, help="Column of right ascension. [deg]")
@click.option("--dec", default="dec", show_default=True, help="Column of declination. [deg]")
@click.option("--mjd", help="Column of time (MJD, TAI), for proper motion.")
@click.option("--out", required=True, type=click.Path(path_type=Path),
              help="File of the matches: .csv, .parquet, .vot, .ecsv, .fits")  # fmt: skip
@click.option("--alerts", type=click.FloatRange(0.0, 3600.0),
              help="Also the objects of the run's alerts within this radius. [arcsec]")  # fmt: skip
@click.pass_context
def match_list(
    ctx: click.Context,
    file: Path,
    ra: str,
    dec: str,
    mjd: str | None,
    out: Path,
    alerts: float | None,
) -> None:
    """Match a list of positions with every catalogue; its columns and theirs go to a file.

    With --alerts also with the objects that have alerts: how many there are, and the nearest.

    Example: broker catalog match-list places.csv --alerts 2 --out matched.vot
    """
    from broker.catalog import Catalogs
    from broker.catalog.source import columns_of, read_file
    from broker.catalog.table_files import write_table

    table, units = read_file(file)
    places = columns_of(table, [ra, dec, *([mjd] if mjd else [])])
    catalogs = Catalogs(load(ctx).catalog_path)
    found = catalogs.match(*places)
    units = {ra: "deg", dec: "deg"} | units
    for definition in catalogs.definitions.values():
        units |= {column.name: column.unit for column in definition.match_columns}
    parts = [found]
    if alerts is not None:
        from broker.cli.assemble import tables_of
        from broker.store.alerts import AlertStore
        from broker.store.match_list import UNITS, match_alerts

        with tables_of(ctx) as tables:
            store = AlertStore(tables, load(ctx).the_run)
            parts.append(match_alerts(store, *places[:2], radius_arcsec=alerts))
        units |= UNITS
    for part in parts:
        for name in part.column_names:
            table = table.append_column(name, part.column(name))
    write_table(table, out, units=units)
    click.echo(f"{table.num_rows} positions in {out}", err=True)


@command.command()
@click.argument("name")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "kind",
    type=click.Choice(["hats", "moc", "table"]),
    default="hats",
    show_default=True,
    help="A folder for LSDB, a map of where it has looked, or one file with all rows.",
)
@click.option(
    "--rows-per-file",
    type=click.IntRange(1000),
    default=1_000_000,
    show_default=True,
    help="At most so many rows in each file of a HATS folder.",
)
@click.option(
    "--margin",
    type=click.FloatRange(min=0.0),
    default=0.0,
    show_default=True,
    help="With a HATS folder also rows this near to each tile, in a collection. [arcsec]",
)
@click.pass_context
def export(
    ctx: click.Context, name: str, path: Path, kind: str, rows_per_file: int, margin: float
) -> None:
    """Write a catalogue for others: as a HATS folder for LSDB, a table, or where it has looked.

    Example: broker catalog export reference reference_hats --format hats
    """
    from broker.catalog.coverage import write_coverage
    from broker.catalog.hats import export_hats
    from broker.catalog.registry import definition_of
    from broker.catalog.table_files import write_table

    config = load(ctx)
    rows, definition = _rows(config, name), definition_of(name, config.catalog_path)
    if kind == "hats":
        files = export_hats(
            rows, definition, path, rows_per_file=rows_per_file, margin_arcsec=margin
        )
        click.echo(f"{len(rows)} rows in {files} files under {path}", err=True)
    elif kind == "moc":
        write_coverage(path, rows.coverage)
    else:
        write_table(rows.entries, path)

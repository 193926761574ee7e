"""`broker image recreate`: a product made again from the record of how it was made."""

import sys
from pathlib import Path
from typing import Any

import click

from broker.cli.assemble import tables_of, topics_of
from broker.cli.main import load
from broker.cli.output import BAD_DATA, emit_rows, json_option
from broker.errors import AlertError


@click.command("recreate")
@click.argument("product", required=False)
@click.option("--visit", type=click.IntRange(1), help="An image of the stream, instead of PRODUCT.")
@click.option(
    "--detector", type=click.IntRange(0), default=0, show_default=True, help="Of that visit."
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for what is made again.",
)
@json_option
@click.pass_context
def recreate(
    ctx: click.Context,
    product: str | None,
    visit: int | None,
    detector: int,
    out: Path,
    as_json: bool,
) -> None:
    """Make an image or a table again, and say whether every byte is the same.

    PRODUCT is a file that `broker image` wrote, or the identifier in its header (PROVID). The
    inputs must be where they were, unchanged. A tile-compressed file (.fz) has the time of its
    making in it, so its bytes differ.

    With --visit: the calibrated image, the difference and the diaSources of an image that the
    stream has taken, from its message, with the calibrations and templates it was done with.
    They are compared with those of the time before, if there was one.

    Example: broker image recreate reduced/night1-reduced.fits --out again
    """
    if (product is None) == (visit is None):
        raise click.UsageError("give either PRODUCT or --visit")
    rows = _of_stream(ctx, visit, detector, out) if visit else _of_files(ctx, str(product), out)
    emit_rows(rows, ["file", "identical", "sha256"], as_json=as_json)
    if any(row["identical"] is False for row in rows):
        sys.exit(BAD_DATA)


def _of_files(ctx: click.Context, product: str, out: Path) -> list[dict[str, Any]]:
    from broker.ops.image_provenance import changed_software, find
    from broker.ops.image_provenance import recreate as make_again

    home = load(ctx).home
    kept = find(home, product)
    for name, (then, now) in changed_software(kept).items():
        click.echo(f"{name} was {then}, now it is {now or 'not there'}", err=True)
    return make_again(home, product, out)


def _of_stream(ctx: click.Context, visit: int, detector: int, out: Path) -> list[dict[str, Any]]:
    from broker.ops.image_stream import StreamImages, recreate_image
    from broker.store.objects import DetectorStore

    config = load(ctx)
    run = config.the_run
    with topics_of(ctx) as topics, tables_of(ctx) as tables:
        if run.table("detector") not in tables.names():
            raise AlertError(f"run {run.name} has no images")
        where = StreamImages(
            topics, DetectorStore(tables, run), config.run_path("templates"), config.home
        )
        return recreate_image(where, visit, detector, out)

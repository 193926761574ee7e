"""`broker image recreate`: a product made again from the record of how it was made."""

import sys
from pathlib import Path

import click

from broker.cli.main import load
from broker.cli.output import emit_rows, json_option

_BAD_DATA = 20


@click.command("recreate")
@click.argument("product")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for what is made again.",
)
@json_option
@click.pass_context
def recreate(ctx: click.Context, product: str, out: Path, as_json: bool) -> None:
    """Make an image or a table again, and say whether every byte is the same.

    PRODUCT is a file that `broker image` wrote, or the identifier in its header (PROVID). The
    inputs must be where they were, unchanged. A tile-compressed file (.fz) has the time of its
    making in it, so its bytes differ.

    Example: broker image recreate reduced/night1-reduced.fits --out again
    """
    from broker.ops.image_provenance import changed_software, find
    from broker.ops.image_provenance import recreate as make_again

    home = load(ctx).home
    for name, (then, now) in changed_software(find(home, product)).items():
        click.echo(f"{name} was {then}, now it is {now or 'not there'}", err=True)
    rows = make_again(home, product, out)
    emit_rows(rows, ["file", "identical", "sha256"], as_json=as_json)
    if not all(row["identical"] for row in rows):
        sys.exit(_BAD_DATA)

"""`broker image quality`: how good images are."""

import sys
from pathlib import Path
from typing import Any

import click

from broker.cli.output import BAD_DATA, emit_rows, json_option, progress
from broker.errors import AlertError

_SHOWN = ["image", "band", "seeing", "ellipticity", "zeroPointOff", "limitingMag", "background",
          "nStars", "flags"]  # fmt: skip


@click.command("quality")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--night", help="YYYYMMDD: the images of a night that the stream has stored.")
@click.option(
    "--template",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Image of the place to hold FILES against: it finds clouds and a wrong WCS.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the table: .parquet, .csv, .vot or .fits.",
)
@click.option(
    "--page",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write a page of plots: .html.",
)
@json_option
@click.pass_context
def quality(
    ctx: click.Context,
    files: tuple[Path, ...],
    night: str | None,
    template: Path | None,
    out: Path | None,
    page: Path | None,
    as_json: bool,
) -> None:
    """Score images: seeing, depth, sky, stars, residuals; and name what is wrong.

    Of FITS files, whose bias must be out of them (broker image reduce), or of the images of a
    stored night. Images of one band are also held against each other, if there are five.

    Example: broker image quality reduced/*.fits --template deep.fits --page quality.html
    """
    if bool(files) == bool(night):
        raise click.UsageError("give either FILES or --night")
    from broker.imaging.tables import write_table
    from broker.ops import image_quality
    from broker.ops.image_quality_page import quality_page

    cards = _of_night(ctx, str(night)) if night else _of_files(files, template)
    cards = image_quality.held_against_each_other(cards)
    if out is not None:
        write_table(out, image_quality.table_of(cards), units=image_quality.NUMBERS)
    if page is not None:
        title = f"Images of {night}" if night else f"{len(cards)} images"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(quality_page(cards, title), encoding="utf-8")
    rows = image_quality.rows_of(cards)
    shown = list(dict.fromkeys(name for row in rows for name in row)) if as_json else _SHOWN
    emit_rows(rows, shown, as_json=as_json)
    click.echo(f"{len(cards)} images, {image_quality.flagged(cards)} with a flag", err=True)
    unread = [card for card in cards if "visit" not in card]
    for card in unread:
        click.echo(str(card["failure"]), err=True)
    if unread:
        sys.exit(BAD_DATA)


def _of_night(ctx: click.Context, night: str) -> list[Any]:
    from broker.cli.assemble import tables_of
    from broker.cli.main import load
    from broker.ops import image_quality
    from broker.store.objects import DetectorStore

    with tables_of(ctx) as tables:
        rows = DetectorStore(tables, load(ctx).the_run).all()
        cards = image_quality.cards_of_rows(rows, night)
    image_quality.require_cards(cards, f"night {night}")
    return cards


def _of_files(files: tuple[Path, ...], template: Path | None) -> list[Any]:
    """Return the scorecards of files; one that is no image has one that says so."""
    from broker.imaging.fits import Defaults
    from broker.ops import image_quality

    deep = image_quality.read_template(template, Defaults()) if template else None
    cards: list[Any] = []
    with progress("images", len(files)) as advance:
        for path in files:
            try:
                cards += image_quality.cards_of_file(path, Defaults(), deep)
            except AlertError as error:
                cards.append({"image": path.name, "failure": error.message})
            advance(1)
    return cards

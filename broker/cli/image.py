"""`broker image`: your own FITS files reduced, searched, measured, subtracted and stacked."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from broker.cli.image_quality import quality
from broker.cli.image_recreate import recreate
from broker.cli.image_work import defaults, each, task
from broker.cli.output import BAD_DATA, emit_rows, json_option
from broker.cli.reliability import train_reliability
from broker.errors import AlertError

_files = click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False)
)
_out = click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the results; made if it is not there.",
)
_table = click.option(
    "--format",
    "table",
    type=click.Choice(["parquet", "csv", "vot", "fits"]),
    default="parquet",
    show_default=True,
    help="Of tables; vot is VOTable.",
)
_threshold = click.option(
    "--threshold",
    type=click.FloatRange(3.0),
    default=5.0,
    show_default=True,
    help="Least signal to noise of a source.",
)
_deblend = click.option(
    "--deblend/--no-deblend",
    "deblended",
    default=True,
    show_default=True,
    help="Take close pairs apart: look again where sources have been subtracted.",
)
_image = click.option(
    "--image-format",
    "image",
    type=click.Choice(["fits", "fits.gz", "fits.fz"]),
    default="fits",
    show_default=True,
    help="Of images; fits.fz is tile-compressed without loss.",
)


def _default_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for name, words in (
        ("--exposure-s", "Exposure time [s]"),
        ("--saturation", "Counts at which a pixel is full [ADU]"),
        ("--zero-point", "AB magnitude of one count [mag]"),
        ("--read-noise", "Read noise [e-]"),
        ("--gain", "Electrons of one count [e-/ADU]"),
    ):
        function = click.option(name, type=float, help=f"{words}, where a header has none.")(
            function
        )
    return click.option("--band", help="Passband, where a header has none that is known.")(function)


@click.group()
def command() -> None:
    """Work on FITS files: plain, gzipped, tile-compressed, with one image or several.

    A file that cannot be used is reported and the others go on; the exit code is then 20.

    Example: broker image detect night/*.fits --out tables
    """


for _other in (train_reliability, quality, recreate):
    command.add_command(_other)


@command.command("reduce")
@_files
@_out
@click.option("--bias", type=click.Path(path_type=Path), help="Master bias.")
@click.option("--dark", type=click.Path(path_type=Path), help="Master dark.")
@click.option("--flat", type=click.Path(path_type=Path), help="Master flat.")
@click.option("--snaps", is_flag=True, help="FILES are pairs of snaps: add and clean each pair.")
@_image
@_default_options
@json_option
def reduce_(
    files: tuple[Path, ...],
    out: Path,
    bias: Path | None,
    dark: Path | None,
    flat: Path | None,
    snaps: bool,
    image: str,
    as_json: bool,
    **given: Any,
) -> None:
    """Take overscan, bias, dark, flat and gain out of raw images.

    Amplifiers in extensions (DATASEC, BIASSEC, DETSEC) are put together. Writes
    NAME-reduced.fits, in electrons, with variance and mask.

    Example: broker image reduce raw/*.fits --bias bias.fits --flat flat.fits --out reduced
    """
    from broker.ops import image_files

    image_files.read_masters(bias, dark, flat)  # a wrong one is told before anything is done
    masters = {n: (p,) for n, p in (("bias", bias), ("dark", dark), ("flat", flat)) if p}
    choices = image_files.Choices(out, defaults(given), image=f".{image}")
    columns = ["images", "background", "badPixels", "saturatedPixels"]
    if not snaps:
        each(files, task("reduce", choices, lambda p: {"raw": (p,)} | masters), columns, as_json)
        return
    if len(files) % 2:
        raise click.UsageError(f"--snaps needs pairs of files; there are {len(files)}")
    second = dict(zip(files[::2], files[1::2], strict=True))
    each(
        files[::2],
        task("snaps", choices, lambda p: {"raw": (p, second[p])} | masters),
        [*columns, "cosmicRayPixels"],
        as_json,
    )


@command.command()
@click.argument("kind", type=click.Choice(["bias", "dark", "flat"]))
@_files
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of the master calibration.",
)
@click.option("--bias", type=click.Path(path_type=Path), help="Master bias, for darks and flats.")
@click.option("--dark", type=click.Path(path_type=Path), help="Master dark, for flats.")
@_default_options
@json_option
def master(
    kind: str,
    files: tuple[Path, ...],
    out: Path,
    bias: Path | None,
    dark: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Make a master bias, dark or flat from a sequence of exposures.

    Example: broker image master flat flats/*.fits --bias bias.fits --out flat.fits
    """
    from broker.ops import image_files, image_masters

    masters = image_files.read_masters(bias, dark, None)
    frames: list[Any] = []
    used: list[Path] = []

    def read(path: Path) -> dict[str, Any]:
        frame = image_masters.calibration_frame(path, kind, masters, defaults(given))
        image_masters.require_shape(frame, frames[:1])
        frames.append(frame)
        used.append(path)
        return {"level": frames[-1].level}

    failed = each(files, read, ["level"], as_json, stop=False)
    choices = image_files.Choices(out.parent, defaults(given))
    inputs = {n: (p,) for n, p in (("bias", bias), ("dark", dark)) if p} | {"frame": tuple(used)}
    more = {"file": out.name, "kind": kind}
    row = task("master", choices, lambda _: inputs, ready=frames, **more)(out)
    click.echo(f"{out}: master {kind} of {row['frames']} exposures", err=True)
    if failed:
        sys.exit(BAD_DATA)


@command.command()
@_files
@_out
@_table
@_threshold
@_deblend
@_default_options
@json_option
def detect(
    files: tuple[Path, ...],
    out: Path,
    table: str,
    threshold: float,
    deblended: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Find and measure the sources of images: PSF flux, place, shape, flags.

    The sky is subtracted, the PSF measured from the stars. Writes NAME-sources.parquet.

    Example: broker image detect reduced/*.fits --out tables --format csv
    """
    from broker.ops import image_files

    choices = image_files.Choices(
        out, defaults(given), table=f".{table}", threshold=threshold, deblended=deblended
    )
    columns = ["images", "sources", "seeing", "limitingMag", "background", "psfStars"]
    each(files, task("detect", choices, lambda p: {"image": (p,)}), columns, as_json)


@command.command()
@_files
@click.option(
    "--at",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Table with ra and dec [deg]; without it, the images' own sources.",
)
@_out
@_table
@_threshold
@_deblend
@click.option(
    "--models/--no-models",
    default=True,
    show_default=True,
    help="Fit galaxies, some 5 ms a place.",
)
@_default_options
@json_option
def measure(
    files: tuple[Path, ...],
    at: Path | None,
    out: Path,
    table: str,
    threshold: float,
    deblended: bool,
    models: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Measure PSF, aperture, Kron, Petrosian and galaxy-model fluxes and shapes at places.

    Forced: a place need not have a source. Writes NAME-measured.parquet.

    Example: broker image measure reduced/*.fits --at places.csv --out tables
    """
    from broker.imaging.tables import read_table
    from broker.ops import image_files

    choices = image_files.Choices(
        out, defaults(given), table=f".{table}", threshold=threshold, deblended=deblended
    )
    places = {"places": (at,)} if at else {}
    if at:
        read_table(at)  # a wrong one is told before anything is done
    columns = ["images", "places", "notMeasured", "seeing"]
    each(
        files,
        task("measure", choices, lambda p: {"image": (p,)} | places, models=models),
        columns,
        as_json,
    )


@command.command()
@_files
@click.option(
    "--catalog",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Table with ra, dec [deg] and a magnitude (AB) in the images' band.",
)
@click.option("--mag", default="mag", show_default=True, help="Its column with the magnitude.")
@_out
@_image
@_default_options
@json_option
def calibrate(
    files: tuple[Path, ...],
    catalog: Path,
    mag: str,
    out: Path,
    image: str,
    as_json: bool,
    **given: Any,
) -> None:
    """Fit zero point and WCS of images to a reference catalogue.

    The WCS may be off by ten pixels. Writes NAME-calibrated.fits.

    Example: broker image calibrate reduced/*.fits --catalog stars.csv --out calibrated
    """
    from broker.imaging.tables import read_table
    from broker.ops import image_files

    choices = image_files.Choices(out, defaults(given), image=f".{image}")
    read_table(catalog)  # a wrong one is told before anything is done
    columns = ["zeroPoint", "zeroPointErr", "wcsRmsArcsec", "shiftPx", "pairs", "calibrationStars"]
    work = task("calibrate", choices, lambda p: {"image": (p,), "catalog": (catalog,)}, mag=mag)
    each(files, work, columns, as_json)


@command.command()
@click.argument("new", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("template", type=click.Path(path_type=Path, dir_okay=False))
@_out
@_table
@_image
@_threshold
@_default_options
@json_option
def difference(
    new: Path,
    template: Path,
    out: Path,
    table: str,
    image: str,
    threshold: float,
    as_json: bool,
    **given: Any,
) -> None:
    """Subtract a template from a new image and measure what changed.

    The template is moved onto the new image's pixels and matched in seeing. Writes
    NAME-difference.fits and NAME-diasources.parquet.

    Example: broker image difference new.fits template.fits --out changed
    """
    from broker.ops import image_files

    choices = image_files.Choices(out, defaults(given), f".{table}", f".{image}", threshold)
    columns = ["sources", "reliable", "seeing", "limitingMag", "kernelStars", "kernelSum"]
    both = task("difference", choices, lambda p: {"image": (p,), "template": (template,)})
    each((new,), both, columns, as_json)


@command.command()
@_files
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of the coadd: .fits, .fits.gz or .fits.fz.",
)
@click.option("--best", type=click.IntRange(1), help="Only so many images, of the best seeing.")
@click.option(
    "--without-visit",
    "without",
    type=int,
    multiple=True,
    help="Leave out a visit that the coadd will be subtracted from.",
)
@_default_options
@json_option
def coadd(
    files: tuple[Path, ...],
    out: Path,
    best: int | None,
    without: tuple[int, ...],
    as_json: bool,
    **given: Any,
) -> None:
    """Stack images of one band on the pixels of the first: clipped, weighted by their noise.

    With --best the first is the one of the best seeing.

    Example: broker image coadd reduced/*.fits --best 12 --without-visit 1207 --out template.fits
    """
    from broker.imaging.templates import best_seeing
    from broker.ops import image_files

    images: list[Any] = []
    used: list[Path] = []

    def read(path: Path) -> dict[str, Any]:
        image = image_files.read_calibrated(path, defaults(given))
        if images:
            image_files.require_same_place(image, images[0])
        images.append(image)
        used.append(path)
        return {"band": images[-1].band, "seeing": images[-1].fwhm_arcsec}

    failed = each(files, read, ["band", "seeing"], as_json=False, stop=False, silent=as_json)
    if best or without:
        seeing, visits = [i.fwhm_arcsec for i in images], [i.visit for i in images]
        chosen = best_seeing(seeing, visits, most=best, without=without)
        images, used = [images[k] for k in chosen], [used[k] for k in chosen]
    if not images:
        raise AlertError("no image can be used")
    choices = image_files.Choices(out.parent, defaults(given))
    work = task("coadd", choices, lambda _: {"image": tuple(used)}, file=out.name)
    row = work(out) | {"file": str(out), "left out": failed}
    columns = ["file", "images", "left out", "band", "exposureS", "seeing", "covered"]
    emit_rows([row], columns, as_json=as_json)
    if failed:
        sys.exit(BAD_DATA)

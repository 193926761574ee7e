"""What the image commands do with a file: read, work, write, and say in a row what came of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from broker import __version__
from broker.detection import columns as dia_columns
from broker.detection.dia import DiaSettings, detect_on_difference
from broker.detection.differencing.difference import subtract_template, without_sky
from broker.detection.direct import UNITS, detect_sources
from broker.detection.psf.width import fit_psf
from broker.errors import AlertError
from broker.imaging.background import LEAST_SIDE_PX
from broker.imaging.calibration import layout_of, read_master
from broker.imaging.coadd import coadd
from broker.imaging.fits import Defaults, Frame, calibration_of, read_frames, to_image, write_image
from broker.imaging.fits_header import PSF_SIGMA, positive
from broker.imaging.image import Image
from broker.imaging.isr import Amplifier, Layout, Masters, remove_signature
from broker.imaging.kernels import Bools
from broker.imaging.mask import UNUSABLE, MaskArray, MaskPlane, set_edge, set_plane
from broker.imaging.psf import GaussianPsf
from broker.imaging.snaps import split_snaps
from broker.imaging.tables import write_table
from broker.imaging.templates import Template
from broker.imaging.wcs import Wcs

_EDGE_PX = 8
_GRID = 9
_MOST_SCALE = 4.0
_ENDINGS = (".fits.gz", ".fits.fz", ".fits", ".fit", ".fts", ".gz", ".fz")
DIA_UNITS = {c.name: c.unit for c in dia_columns.COLUMNS if c.unit}


@dataclass(frozen=True)
class Choices:
    """What a command was told.

    Parameters
    ----------
    out : Path
        Folder of the results.
    defaults : Defaults
        For what a header does not say.
    table : str
        Ending of tables.
    image : str
        Ending of images.
    threshold : float
        Least S/N.
    deblended : bool
        Whether close pairs are taken apart.
    record : mapping
        How the products are made, see `broker.ops.image_provenance`; empty if that is not kept.
    """

    out: Path
    defaults: Defaults = field(default_factory=Defaults)
    table: str = ".parquet"
    image: str = ".fits"
    threshold: float = 5.0
    deblended: bool = True
    record: Mapping[str, Any] = field(default_factory=dict)


def with_record(image: Image, choices: Choices) -> Image:
    """Return an image that carries the record of how it was made."""
    meta = {name: value for name, value in image.meta.items() if name != "provenance"}
    if choices.record:
        meta["provenance"] = said_of(choices.record)
    return replace(image, meta=meta)


def said_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a product says of its record: inputs by name, wherever they lie."""
    if not record:
        return {}
    inputs = [
        {"role": i["role"], "name": Path(i["path"]).name, "sha256": i["sha256"]}
        for i in record.get("inputs", ())
    ]
    return {k: v for k, v in record.items() if k != "inputs"} | {"inputs": inputs}


def stem(path: Path) -> str:
    """Return a file's name without the endings of FITS."""
    for ending in _ENDINGS:
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    return path.name


def named(path: Path, frames: Sequence[Any]) -> list[str]:
    """Return a name for each image of a file."""
    base = stem(path)
    return [base] if len(frames) == 1 else [f"{base}-{k}" for k in range(len(frames))]


def read_masters(bias: Path | None, dark: Path | None, flat: Path | None) -> Masters:
    """Return the master calibrations of files; defects of any of them are defects."""
    planes: dict[str, Any] = {}
    defects: Bools | None = None
    for kind, path in (("bias", bias), ("dark", dark), ("flat", flat)):
        if path is None:
            continue
        planes[kind], wrong = read_master(path, kind)
        if wrong is not None:
            defects = wrong if defects is None or defects.shape != wrong.shape else defects | wrong
    return Masters(**planes, defects=defects)


def reduce_file(path: Path, masters: Masters, choices: Choices) -> dict[str, Any]:
    """Reduce a raw file and write its images; return the row that says how it went."""
    images = reduced_images(path, masters, choices.defaults)
    return _written(images, named(path, images), choices)


def reduce_pair(paths: Sequence[Path], masters: Masters, choices: Choices) -> dict[str, Any]:
    """Reduce two snaps of a visit, split off the cosmic rays, and write their sum."""
    first, second = (reduced_images(p, masters, choices.defaults) for p in paths)
    if len(first) != len(second):
        raise AlertError(f"the snaps have {len(first)} and {len(second)} images")
    images = [join_snaps(a, b) for a, b in zip(first, second, strict=True)]
    row = _written(images, named(paths[0], images), choices)
    return row | {"cosmicRayPixels": sum(int(i.meta["cosmicRayPixels"]) for i in images)}


def _written(images: Sequence[Image], names: Sequence[str], choices: Choices) -> dict[str, Any]:
    for image, name in zip(images, names, strict=True):
        write_image(choices.out / f"{name}-reduced{choices.image}", with_record(image, choices))
    return {
        "images": len(images),
        "background": float(np.median([np.median(i.pixels[::4, ::4]) for i in images])),
        "badPixels": sum(int(i.is_masked(MaskPlane.BAD).sum()) for i in images),
        "saturatedPixels": sum(int(i.is_masked(MaskPlane.SATURATED).sum()) for i in images),
    }


def reduced_images(path: Path, masters: Masters, defaults: Defaults) -> list[Image]:
    """Return the reduced images of a raw file, in electrons.

    Amplifiers with a DETSEC are put together into one; else each image of the file is a detector.
    """
    frames = read_frames(path)
    assembled = len(frames) > 1 and all("DETSEC" in f.header for f in frames)
    groups = [frames] if assembled else [[frame] for frame in frames]
    return [_reduced(group, masters, defaults) for group in groups]


def _reduced(frames: Sequence[Frame], masters: Masters, defaults: Defaults) -> Image:
    layout = layout_of(frames, defaults)
    head = frames[0]
    calibration = calibration_of(head, defaults)
    wcs = _detector_wcs(head, layout.amplifiers[0])
    if masters.dark is not None and not np.isfinite(calibration.exposure_s):
        raise AlertError(f"{head.source}: the dark needs the exposure time; the header has none")
    exposure_s = calibration.exposure_s if np.isfinite(calibration.exposure_s) else 0.0
    got = remove_signature(
        [f.pixels for f in frames], layout, masters=masters, exposure_s=exposure_s
    )
    for frame, amplifier in zip(frames, layout.amplifiers, strict=True):
        if frame.mask is not None:
            amplifier.target.of(got.mask)[...] |= _as_assembled(frame.mask, amplifier)
    if (got.mask & UNUSABLE).all():
        raise AlertError(f"{head.source}: it has no pixel that can be used")
    set_edge(got.mask, _EDGE_PX)
    # A count of the result is an electron; the zero point follows.
    gain, noise, full = _means(layout)
    calibration = replace(
        calibration,
        gain=1.0,
        read_noise=noise,
        saturation=full,
        zero_point=calibration.zero_point + 2.5 * float(np.log10(gain)),
    )
    sigma = positive(head.header, PSF_SIGMA)
    meta = {
        "unit": "electron",
        "psfKnown": sigma is not None,
        "overscanLevels": [round(v, 3) for v in got.overscan_levels],
        "input": head.source,
        "software": f"nightjar-broker {__version__}",
        "masters": [n for n in ("bias", "dark", "flat") if getattr(masters, n) is not None],
    }
    if head.wcs_error_px > 0.0:
        meta["wcsErrorPx"] = head.wcs_error_px
    return Image(
        got.pixels, got.variance, got.mask, wcs, GaussianPsf(sigma or 2.0), calibration, meta
    )


def _as_assembled(mask: MaskArray, amplifier: Amplifier) -> MaskArray:
    """Return the mask of an amplifier's pixels as they lie on the detector."""
    mask = amplifier.data.of(mask)
    mask = mask[::-1] if amplifier.flip_y else mask
    return mask[:, ::-1] if amplifier.flip_x else mask


def _means(layout: Layout) -> tuple[float, float, float]:
    """Return mean gain, rms read noise and least saturation, in electrons."""
    amplifiers = layout.amplifiers
    return (
        float(np.mean([a.gain for a in amplifiers])),
        float(np.sqrt(np.mean([a.read_noise**2 for a in amplifiers]))),
        float(min(a.saturation * a.gain for a in amplifiers)),
    )


def _detector_wcs(frame: Frame, amplifier: Amplifier) -> Wcs:
    """Return the WCS of the assembled image from that of an amplifier's raw plane."""
    if frame.wcs is None:
        raise AlertError(f"{frame.source}: the header has no WCS; RA---TAN, DEC--TAN is needed")
    wcs, data, target = frame.wcs, amplifier.data, amplifier.target
    crpix_x, crpix_y = wcs.crpix_x - data.x, wcs.crpix_y - data.y
    (a, b), (c, d) = wcs.cd
    if amplifier.flip_x:
        crpix_x, a, c = data.shape[1] - 1 - crpix_x, -a, -c
    if amplifier.flip_y:
        crpix_y, b, d = data.shape[0] - 1 - crpix_y, -b, -d
    place = (crpix_x + target.x, crpix_y + target.y)
    return Wcs(wcs.crval_ra, wcs.crval_dec, *place, ((a, b), (c, d)))


def join_snaps(first: Image, second: Image) -> Image:
    """Return the sum of two reduced snaps, cosmic rays taken out; where, is INTERPOLATED."""
    if first.shape != second.shape:
        raise AlertError(f"the snaps are {first.shape} and {second.shape}: one shape is needed")
    planes = MaskPlane.BAD | MaskPlane.SATURATED | MaskPlane.NO_DATA
    split = split_snaps(
        first.pixels,
        second.pixels,
        gain=first.gain,
        read_noise=first.read_noise,
        unusable=first.is_masked(planes) | second.is_masked(planes),
    )
    mask = first.mask | second.mask
    set_plane(mask, MaskPlane.INTERPOLATED, split.struck)
    one, two = first.calibration, second.calibration
    calibration = replace(
        one,
        exposure_s=one.exposure_s + two.exposure_s,
        midpoint_mjd_tai=0.5 * (one.midpoint_mjd_tai + two.midpoint_mjd_tai),
        zero_point=one.zero_point + 2.5 * float(np.log10(2.0)),
        read_noise=one.read_noise * float(np.sqrt(2.0)),
        saturation=one.saturation * 2.0,
    )
    meta = first.meta | {"snaps": 2, "cosmicRayPixels": int(split.struck.sum())}
    return Image(split.pixels, split.variance, mask, first.wcs, first.psf, calibration, meta)


def detect_file(path: Path, choices: Choices) -> dict[str, Any]:
    """Find the sources of a file's images and write their tables; return the summary row."""
    frames = read_frames(path)
    rows = []
    for frame, name in zip(frames, named(path, frames), strict=True):
        got = detect_sources(
            to_image(frame, choices.defaults),
            threshold=choices.threshold,
            deblended=choices.deblended,
        )
        write_table(
            choices.out / f"{name}-sources{choices.table}",
            got.sources,
            units=UNITS,
            record=said_of(choices.record),
        )
        rows.append(got.scorecard)
    return {
        "images": len(rows),
        "sources": sum(int(r["nSources"]) for r in rows),
        "seeing": float(np.mean([float(r["seeing"]) for r in rows])),
        "limitingMag": float(np.mean([float(r["limitingMag"]) for r in rows])),
        "background": float(np.mean([float(r["background"]) for r in rows])),
        "psfStars": min(int(r.get("psfStars", 0)) for r in rows),
    }


def difference_file(new: Path, template: Path, choices: Choices) -> dict[str, Any]:
    """Subtract a template from an image; write the difference and the table of what changed."""
    image = _with_psf(_calibrated(new, choices.defaults))
    deep = _calibrated(template, choices.defaults)
    if "nVisits" not in deep.meta:
        deep = without_sky(_with_psf(deep))[0]
    if not image.band or not deep.band:
        # A filter with no name of ours: the two were named together on purpose.
        band = image.band or deep.band
        image, deep = _in_band(image, band), _in_band(deep, band)
    if image.band != deep.band:
        raise AlertError(f"the image is of band {image.band}, the template of {deep.band}")
    difference = subtract_template(image, Template(deep, stem(template)))
    settings = DiaSettings(threshold=choices.threshold)
    got = detect_on_difference(difference, stem(template), settings=settings)
    mask = difference.science.mask.copy()
    set_plane(mask, MaskPlane.NO_DATA, difference.unusable)
    result = difference.science.with_arrays(
        pixels=difference.pixels, variance=difference.variance, mask=mask
    )
    name = stem(new)
    psf = GaussianPsf(difference.psf_sigma)
    write_image(
        choices.out / f"{name}-difference{choices.image}",
        with_record(replace(result, psf=psf), choices),
    )
    write_table(
        choices.out / f"{name}-diasources{choices.table}",
        got.sources,
        units=DIA_UNITS,
        record=said_of(choices.record),
    )
    return {
        "sources": int(got.scorecard["nSources"]),
        "reliable": int(got.scorecard["nReliable"]),
        "seeing": float(got.scorecard["seeing"]),
        "limitingMag": float(got.scorecard["limitingMag"]),
        "kernelStars": int(got.scorecard["kernelStars"]),
        "kernelSum": float(got.scorecard["kernelSum"]),
    }


def coadd_files(paths: Sequence[Path], target: Path, choices: Choices) -> dict[str, Any]:
    """Write the clipped, weighted mean of files, on the pixels of the first."""
    images = [read_calibrated(p, choices.defaults) for p in paths]
    return write_coadd(images, target, choices)


def write_coadd(images: Sequence[Image], target: Path, choices: Choices) -> dict[str, Any]:
    """Write the coadd of images on the pixels of the first; return its row."""
    deep = coadd(images, images[0].wcs, images[0].shape)
    write_image(target, with_record(deep, choices))
    return {
        "images": len(images),
        "band": deep.band,
        "exposureS": deep.exposure_s,
        "seeing": deep.fwhm_arcsec,
        "covered": float(np.mean(~deep.is_masked(MaskPlane.NO_DATA))),
    }


def read_calibrated(path: Path, defaults: Defaults) -> Image:
    """Return the image of a file with a PSF, measured if its header has none, and a zero point.

    Raises
    ------
    AlertError
        If the file cannot be read, has several images, no zero point, too few stars for a PSF, or
        no two usable pixels that differ.
    """
    image = _with_psf(_calibrated(path, defaults))
    usable = image.pixels[~image.is_masked(UNUSABLE)]
    if usable.size == 0 or usable.min() == usable.max():
        raise AlertError(f"{path}: it has no usable pixels, or all have one value")
    if min(image.shape) < LEAST_SIDE_PX:
        raise AlertError(f"{path}: an image of {image.shape} pixels is too small")
    return image


def require_same_place(image: Image, first: Image) -> None:
    """Raise AlertError unless an image is of the band, the place and the scale of another."""
    if image.band != first.band:
        raise AlertError(f"it is of band {image.band}, the first of {first.band}")
    ny, nx = image.shape
    x, y = np.meshgrid(np.linspace(0, nx - 1, _GRID), np.linspace(0, ny - 1, _GRID))
    at_x, at_y = first.wcs.sky_to_pixel(*image.wcs.pixel_to_sky(x, y))
    rows, columns = first.shape
    with np.errstate(invalid="ignore"):
        inside = (abs(at_x - columns / 2.0) < columns / 2.0) & (abs(at_y - rows / 2.0) < rows / 2.0)
    if not inside.any():
        raise AlertError("it does not lie on the first image")
    ratio = image.wcs.scale_arcsec / first.wcs.scale_arcsec
    if not 1.0 / _MOST_SCALE < ratio < _MOST_SCALE:
        raise AlertError(f"its pixels are {ratio:.3g} times as large as the first image's")


def _calibrated(path: Path, defaults: Defaults) -> Image:
    frames = read_frames(path)
    if len(frames) > 1:
        raise AlertError(f"{path}: it has {len(frames)} images; one is compared at a time")
    image = to_image(frames[0], defaults)
    if not np.isfinite(image.zero_point):
        raise AlertError(f"{path}: the header has no zero point (MAGZP); give --zero-point")
    return image


def _with_psf(image: Image) -> Image:
    if image.meta.get("psfKnown", True):
        return image
    model = fit_psf(without_sky(image)[0])
    return replace(image, psf=model.psf, meta=image.meta | {"psfKnown": True})


def _in_band(image: Image, band: str) -> Image:
    return replace(image, calibration=replace(image.calibration, band=band))

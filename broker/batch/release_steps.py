"""The steps of a data release that work on one image or one tile: pure, the same bytes each time.

Spark, or a plain loop, hands them out; `broker.batch.release` puts their results together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from broker.catalog.healpix import centres, pixel_side_arcsec, pixels_of
from broker.detection.columns import dia_source_ids
from broker.detection.dia import detect_on_difference
from broker.detection.differencing.difference import subtract_template
from broker.detection.direct import detect_sources, prepare, star_profile
from broker.detection.flags import SourceFlag, names
from broker.detection.psf.forced import forced_psf_flux
from broker.detection.psf.tables import PsfTables, gaussian_tables
from broker.detection.psf.width import PsfModel
from broker.errors import AlertError
from broker.imaging.coadd import coadd
from broker.imaging.fits import read_frames, read_image, to_image, write_image
from broker.imaging.image import Image
from broker.imaging.mask import UNUSABLE, MaskPlane, set_plane
from broker.imaging.psf import GaussianPsf
from broker.imaging.templates import Template, best_seeing
from broker.imaging.wcs import Wcs

BAD_FLAGS = (
    SourceFlag.EDGE
    | SourceFlag.SATURATED
    | SourceFlag.BAD
    | SourceFlag.COSMIC_RAY
    | SourceFlag.CENTROID_FAILED
    | SourceFlag.NO_TEMPLATE_DATA
    | SourceFlag.SATURATED_TEMPLATE
    | SourceFlag.DIPOLE
)
"""A source with one of these is kept apart, with their names as the reason."""

_TEMPLATE_MARGIN_PX = 32
_MOST_TEMPLATE_VISITS = 12
_LEAST_TEMPLATE_VISITS = 2
_CUBE = 4.0 / 3.0
"""Sum of a Gaussian PSF's cubes over the square of the sum of its squares: its share of the
photons' own noise in a PSF flux."""


@dataclass(frozen=True)
class Entry:
    """One image of the season.

    Parameters
    ----------
    path : str
    frame : int
        Which image of the file.
    name : str
        Visit and detector, for files.
    visit, detector : int
    band : str
    midpoint_mjd_tai : float
        [d]
    wcs : Wcs
    shape : (int, int)
    psf_sigma : float
        Measured at the centre. [pixel]
    seeing : float
        [arcsec]
    """

    path: str
    frame: int
    name: str
    visit: int
    detector: int
    band: str
    midpoint_mjd_tai: float
    wcs: Wcs
    shape: tuple[int, int]
    psf_sigma: float
    seeing: float


@dataclass(frozen=True)
class Visit:
    """What was found on one image: `sources` with their identifiers, `psf` of it, in words bad."""

    entry: Entry
    sources: pa.Table
    psf: dict[str, Any]


def characterize(path: str) -> list[Visit | tuple[str, str]]:
    """Find the sources of a file's images; (path, reason) for what cannot be used."""
    try:
        frames = read_frames(Path(path))
    except AlertError as error:
        return [(path, error.message)]
    found: list[Visit | tuple[str, str]] = []
    for number, frame in enumerate(frames):
        try:
            found.append(_visit(path, number, to_image(frame)))
        except AlertError as error:
            found.append((path, error.message))
    return found


def _visit(path: str, number: int, image: Image) -> Visit:
    lacking = [
        word
        for word, there in (
            ("visit", image.visit > 0),
            ("band", bool(image.band)),
            ("zero point", np.isfinite(image.zero_point)),
            ("time", np.isfinite(image.midpoint_mjd_tai)),
        )
        if not there
    ]
    if lacking:
        raise AlertError(f"{path}: its header says no {', '.join(lacking)}")
    got = detect_sources(image)
    entry = Entry(
        path,
        number,
        f"{image.visit}-{image.detector}",
        image.visit,
        image.detector,
        image.band,
        image.midpoint_mjd_tai,
        image.wcs,
        image.shape,
        got.image.psf.sigma,
        got.image.fwhm_arcsec,
    )
    x, y = (np.rint(got.sources[n].to_numpy()).astype(np.int64) for n in "xy")
    inside = np.clip(y, 0, image.shape[0] - 1) * image.shape[1] + np.clip(x, 0, image.shape[1] - 1)
    sources = with_columns(
        got.sources,
        {
            "sourceId": pa.array(_distinct(dia_source_ids(image.visit, image.detector, inside))),
            **_identity(entry, len(x)),
        },
    )
    return Visit(entry, sources, _psf_row(entry, got.image, got.psf))


def _distinct(ids: Any) -> Any:
    """Return identifiers, the next one for a source that has met another in its pixel."""
    seen: set[int] = set()
    out = ids.copy()
    for k, value in enumerate(ids.tolist()):
        while value in seen:
            value += 1
        seen.add(value)
        out[k] = value
    return out


def _identity(entry: Entry, n: int) -> dict[str, pa.Array]:
    return {
        "visit": pa.array([entry.visit] * n, pa.int64()),
        "detector": pa.array([entry.detector] * n, pa.int32()),
        "band": pa.array([entry.band] * n, pa.string()),
        "midpointMjdTai": pa.array([entry.midpoint_mjd_tai] * n, pa.float64()),
    }


def with_columns(table: pa.Table, front: dict[str, Any]) -> pa.Table:
    """Return a table with columns in front."""
    return pa.table({**front, **{n: table[n] for n in table.column_names if n not in front}})


def _psf_row(entry: Entry, image: Image, model: PsfModel | None) -> dict[str, Any]:
    width = (image.psf.sigma, 0.0, 0.0) if model is None else model.width
    return {
        "visit": entry.visit,
        "detector": entry.detector,
        "band": entry.band,
        "sigma": float(width[0]),
        "sigmaRight": float(width[1]),
        "sigmaUp": float(width[2]),
        "fwhmArcsec": entry.seeing,
        "elongation": float("nan") if model is None else model.elongation,
        "nStars": 0 if model is None else model.n_stars,
    }


def write_psf(path: Path, row: dict[str, Any]) -> None:
    """Write an image's PSF at its middle and half way to its borders: a cube of nine stamps."""
    from astropy.io import fits

    places = [(u, v) for v in (-1.0, 0.0, 1.0) for u in (-1.0, 0.0, 1.0)]
    widths = [row["sigma"] + u * row["sigmaRight"] + v * row["sigmaUp"] for u, v in places]
    size = 2 * int(np.ceil(5.0 * max(widths))) + 1
    cube = np.stack([GaussianPsf(float(w)).stamp(size=size) for w in widths]).astype(np.float32)
    header = fits.Header({"VISIT": row["visit"], "DETECTOR": row["detector"]})
    for k, (u, v) in enumerate(places):
        header[f"PLACE{k + 1}"] = (f"{u:+.0f} {v:+.0f}", "in half sides from the centre")
        header[f"SIGMA{k + 1}"] = (widths[k], "[pixel]")
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.PrimaryHDU(cube, header).writeto(path, overwrite=True)


def split_bad(table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return the good sources, and the bad ones with a column `reason`."""
    flags = table["flags"].to_numpy()
    values = table["psfFlux"].to_numpy()
    reasons = [", ".join(names(int(f) & int(BAD_FLAGS))) for f in flags]
    reasons = [
        "; ".join(filter(None, (r, "" if np.isfinite(v) else "no flux")))
        for r, v in zip(reasons, values, strict=True)
    ]
    bad = np.array([bool(r) for r in reasons], dtype=bool)
    why = pa.array([r for r in reasons if r], pa.string())
    return table.filter(pa.array(~bad)), table.filter(pa.array(bad)).append_column("reason", why)


def load(entry: Entry) -> Image:
    """Return an entry's image with the PSF that was measured on it."""
    image = to_image(read_frames(Path(entry.path))[entry.frame])
    meta = image.meta | {"psfKnown": True}
    return replace(image, psf=GaussianPsf(entry.psf_sigma), meta=meta)


def tiles_of(entry: Entry, order: int) -> set[int]:
    """Return the HEALPix pixels that an image touches."""
    ny, nx = entry.shape
    step = pixel_side_arcsec(order) / entry.wcs.scale_arcsec / 8.0
    x, y = np.meshgrid(
        np.linspace(-0.5, nx - 0.5, int(nx / step) + 2),
        np.linspace(-0.5, ny - 0.5, int(ny / step) + 2),
    )
    return {int(p) for p in pixels_of(*entry.wcs.pixel_to_sky(x.ravel(), y.ravel()), order)}


def tile_grid(
    tile: int, order: int, entries: Sequence[Entry], margin: int = 16
) -> tuple[Wcs, tuple[int, int]]:
    """Return the pixels of a tile, as fine as the finest image, cut to where images are."""
    ra, dec = (float(v[0]) for v in centres(np.array([tile], np.uint64), order))
    scale = min(e.wcs.scale_arcsec for e in entries)
    wcs = Wcs.from_scale(ra, dec, scale_arcsec=scale, crpix=(0.0, 0.0))
    reach = 0.75 * pixel_side_arcsec(order) * np.sqrt(2.0) / scale + margin
    corners = [wcs.sky_to_pixel(*e.wcs.corners(e.shape)) for e in entries]
    low, high = [], []
    for axis in (0, 1):
        values = np.concatenate([c[axis] for c in corners])
        low.append(int(np.floor(max(values.min(), -reach))))
        high.append(int(np.ceil(min(values.max(), reach))))
    nx, ny = (max(h - a + 1, 1) for a, h in zip(low, high, strict=True))
    return wcs.shifted(low[0], low[1]), (ny, nx)


def make_coadd(task: tuple[int, int, str, list[Entry], str]) -> pa.Table:
    """Write the coadd of a tile and band; return its detections: tile, band and their columns."""
    tile, order, band, entries, path = task
    wcs, shape = tile_grid(tile, order, entries)
    deep = coadd([load(e) for e in entries], wcs, shape)
    write_image(Path(path), deep)
    try:
        found = detect_sources(deep).sources
    except AlertError:
        return pa.table({})  # too little of the tile is covered to measure anything
    n = len(found)
    return with_columns(
        found, {"tile": pa.array([tile] * n, pa.int64()), "band": pa.array([band] * n)}
    )


def forced_on_coadd(task: tuple[str, Any, Any]) -> tuple[Any, Any]:
    """Return flux and error at places on a coadd. [nJy]"""
    path, ra, dec = task
    return _forced(*_with_profile(read_image(Path(path))), ra, dec)


def forced_on_image(task: tuple[Entry, Any, Any, Any]) -> pa.Table:
    """Return the forced fluxes of objects that lie on an image: a row each, null if masked."""
    entry, ids, ra, dec = task
    near = _on(entry, ra, dec)
    flux, error = _forced(*_with_profile(load(entry)), ra[near], dec[near])
    return _forced_rows(entry, ids[near], flux, error)


def _with_profile(image: Image) -> tuple[Image, PsfTables]:
    """Return an image without sky and the PSF that its stars show, with its profile.

    On a coadd that is the mean of its exposures' PSFs, which is no Gaussian.
    """
    clean, model, _ = prepare(image)
    profile = star_profile(clean, model)
    if profile is None:
        return clean, gaussian_tables(clean.psf.sigma, clean.shape)
    return clean, profile.tables()


def forced_on_difference(task: tuple[Entry, str, Any, Any, Any]) -> pa.Table:
    """Return the forced fluxes of diaObjects on a difference image that was written."""
    entry, path, ids, ra, dec = task
    near = _on(entry, ra, dec)
    image = read_image(Path(path))
    tables = gaussian_tables(image.psf.sigma, image.shape)
    flux, error = _forced(image, tables, ra[near], dec[near])
    return _forced_rows(entry, ids[near], flux, error)


def _on(entry: Entry, ra: Any, dec: Any) -> Any:
    x, y = entry.wcs.sky_to_pixel(ra, dec)
    ny, nx = entry.shape
    return (x > -0.5) & (x < nx - 0.5) & (y > -0.5) & (y < ny - 0.5)


def _forced_rows(entry: Entry, ids: Any, flux: Any, error: Any) -> pa.Table:
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            **_identity(entry, len(ids)),
            "psfFlux": pa.array(flux, pa.float32(), from_pandas=True),
            "psfFluxErr": pa.array(error, pa.float32(), from_pandas=True),
        }
    )


def _forced(image: Image, psf: PsfTables, ra: Any, dec: Any) -> tuple[Any, Any]:
    """Return flux and error at places, the photons of the source itself in the error. [nJy]"""
    x, y = image.wcs.sky_to_pixel(ra, dec)
    unusable = image.is_masked(UNUSABLE)
    flux, error = forced_psf_flux(image.pixels, image.variance, x, y, psf=psf, unusable=unusable)
    visits = float(image.meta.get("nVisits", 1))
    error = np.sqrt(error**2 + _CUBE * np.maximum(flux, 0.0) / (image.gain * visits))
    return flux * image.flux_per_count, error * image.flux_per_count


def template_entries(entry: Entry, others: Sequence[Entry], night: Any) -> list[Entry]:
    """Return what an image's template is made of: other nights' images of its band, best first.

    Never the visit itself; other visits of its night only if there are too few other nights.
    """
    mine = [e for e in others if e.band == entry.band and e.visit != entry.visit]
    mine = [e for e in mine if _overlaps(entry, e)]
    other = [e for e in mine if night(e.midpoint_mjd_tai) != night(entry.midpoint_mjd_tai)]
    chosen = other if len(other) >= _LEAST_TEMPLATE_VISITS else mine
    chosen = sorted(chosen, key=lambda e: (e.visit, e.detector))
    seeing, visits = [e.seeing for e in chosen], [e.visit for e in chosen]
    return [chosen[k] for k in best_seeing(seeing, visits, most=_MOST_TEMPLATE_VISITS)]


def _overlaps(a: Entry, b: Entry) -> bool:
    ny, nx = b.shape
    ra, dec = b.wcs.pixel_to_sky((nx - 1) / 2.0, (ny - 1) / 2.0)
    x, y = (float(v) for v in a.wcs.sky_to_pixel(ra, dec))
    return bool(0 <= x < a.shape[1] and 0 <= y < a.shape[0])


def difference(task: tuple[Entry, list[Entry], str]) -> pa.Table | str:
    """Subtract an image's template, write the difference, return its diaSources; or why not."""
    entry, inputs, path = task
    if len(inputs) < _LEAST_TEMPLATE_VISITS:
        return "no template: too few other visits cover it"
    margin = _TEMPLATE_MARGIN_PX
    shape = (entry.shape[0] + 2 * margin, entry.shape[1] + 2 * margin)
    try:
        deep = coadd([load(e) for e in inputs], entry.wcs.shifted(-margin, -margin), shape)
        made = subtract_template(load(entry), Template(deep, entry.name))
        version = "visits " + " ".join(str(e.visit) for e in inputs)
        found = detect_on_difference(made, version).sources
    except AlertError as error:
        return error.message
    mask = made.science.mask.copy()
    set_plane(mask, MaskPlane.NO_DATA, made.unusable)
    result = made.science.with_arrays(pixels=made.pixels, variance=made.variance, mask=mask)
    write_image(Path(path), replace(result, psf=GaussianPsf(made.psf_sigma)))
    return found.select([n for n in found.column_names if not n.startswith("cutout")])

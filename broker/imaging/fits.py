"""FITS files in and out: plain, gzipped or tile-compressed, with one image or many.

An image that is written has its pixels first, then the extensions VARIANCE and MASK, whose planes
have the names that Rubin's files use, so that both are read by name.
"""

import json
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.errors import AlertError
from broker.imaging import fits_header as words
from broker.imaging.fits_check import why_unread
from broker.imaging.fits_header import wcs_of
from broker.imaging.fits_write import write_units
from broker.imaging.image import Calibration, Image, RawExposure
from broker.imaging.kernels import F32
from broker.imaging.mask import MaskArray, MaskPlane, empty_mask, set_plane
from broker.imaging.psf import GaussianPsf
from broker.imaging.wcs import Wcs

PLANE_NAMES = {
    "BAD": MaskPlane.BAD,
    "SAT": MaskPlane.SATURATED,
    "CR": MaskPlane.COSMIC_RAY,
    "EDGE": MaskPlane.EDGE,
    "NO_DATA": MaskPlane.NO_DATA,
    "DETECTED": MaskPlane.DETECTED,
    "INTRP": MaskPlane.INTERPOLATED,
}
"""Names of the mask planes in a file: keywords MP_<name> with the plane's bit."""

_VARIANCES = {"VARIANCE": 1, "VAR": 1, "ERR": 2, "SIGMA": 2}
_MASKS = {"MASK", "DQ", "BPM"}
_OTHERS = {"WEIGHT", "WHT", "IVM", "CATALOG", "PSF"}
_SQUARE_ARCSEC = 1e-12


@dataclass(frozen=True)
class Frame:
    """One image of a file, as it stands there.

    Parameters
    ----------
    pixels : NDArray, shape (ny, nx)
        Scaled as the header says; whole numbers stay so. NaN where blank.
    header : astropy.io.fits.Header
        Of the extension, with the primary's keywords where it inherits them.
    source : str
        File and extension, for messages: `night.fits[1]`.
    name : str
        EXTNAME, or empty.
    variance : NDArray[np.float32], shape (ny, nx), optional
    mask : NDArray[np.uint16], shape (ny, nx), optional
        With the planes of `MaskPlane`.
    """

    pixels: NDArray[Any]
    header: Any
    source: str
    name: str = ""
    variance: F32 | None = None
    mask: MaskArray | None = None
    wcs: Wcs | None = None
    wcs_error_px: float = 0.0
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns: (ny, nx)."""
        ny, nx = self.pixels.shape
        return int(ny), int(nx)


def read_frames(path: Path, *, on_sky: bool = True) -> list[Frame]:
    """Return the images of a file, in the file's order.

    Parameters
    ----------
    path : Path
        FITS; plain, gzipped, or with tile-compressed extensions.
    on_sky : bool
        Whether the WCS is read. Calibrations need none, and some cameras write nonsense there.

    Raises
    ------
    AlertError
        If there is no such file, it is no FITS file, it is cut short or damaged, it has no
        two-dimensional image, or its WCS is off the sky.
    """
    try:
        with _opened(path) as units:
            frames = list(_frames(path, units, on_sky))
    except AlertError:
        raise
    except FileNotFoundError as error:
        raise AlertError(f"{path}: there is no such file") from error
    except (
        OSError,
        EOFError,
        ImportError,
        zlib.error,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        Warning,
    ) as error:
        raise AlertError(f"{path}: {why_unread(path, error)}", path=str(path)) from error
    if not frames:
        raise AlertError(f"{path}: it has no two-dimensional image", path=str(path))
    return frames


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a FITS file, warnings of damage made errors."""
    from astropy.io import fits

    with warnings.catch_warnings(), path.open("rb") as file:
        warnings.simplefilter("ignore")
        for damage in ("truncated", "[Cc]hecksum", "Datasum", "Error validating header"):
            warnings.filterwarnings("error", message=f".*{damage}")
        with fits.open(file, memmap=False, checksum=True, lazy_load_hdus=False) as units:
            yield units


def _frames(path: Path, units: Any, on_sky: bool) -> Iterator[Frame]:
    """Yield each image with the variance and mask that follow it."""
    pending: Frame | None = None
    for index, unit in enumerate(units):
        if not unit.is_image or unit.header.get("NAXIS", 0) < 2:
            continue
        name = str(unit.header.get("EXTNAME", "")).strip().upper()
        if name in _OTHERS:
            continue
        data = _plane(unit.data, f"{path.name}[{index}]")
        if data is None:
            continue
        if pending is not None and name in {*_VARIANCES, *_MASKS}:
            pending = _joined(pending, name, data, unit.header)
            continue
        if pending is not None:
            yield pending
        header = _merged(unit.header, units[0].header if index else None)
        pending = Frame(data, header, f"{path.name}[{index}]", name)
        pending = _with_wcs(pending, path) if on_sky else pending
    if pending is not None:
        yield pending


def _plane(data: Any, source: str) -> NDArray[Any] | None:
    """Return the pixels as a plane of the machine's own numbers; None for cubes and nothing."""
    if data is None:
        return None
    plane = np.squeeze(np.asarray(data)) if data.ndim > 2 else np.asarray(data)
    if plane.ndim != 2 or 0 in plane.shape:
        return None
    if plane.dtype.kind not in "iuf":
        raise AlertError(f"{source}: its pixels are of type {plane.dtype}; numbers are read")
    # FITS is big-endian; compiled loops want the machine's own order.
    return np.ascontiguousarray(plane, dtype=plane.dtype.newbyteorder("="))


def _merged(header: Any, primary: Any) -> Any:
    """Return an extension's header with what it inherits of the primary's."""
    merged = header.copy()
    if primary is not None:
        merged.extend(primary, strip=True, unique=True)
    return merged


def _with_wcs(frame: Frame, path: Path) -> Frame:
    try:
        wcs, error = wcs_of(frame.header, frame.shape)
    except AlertError as reason:
        raise AlertError(f"{frame.source}: {reason.message}", path=str(path)) from reason
    return replace(frame, wcs=wcs, wcs_error_px=error)


def _joined(frame: Frame, name: str, data: NDArray[Any], header: Any) -> Frame:
    if data.shape != frame.pixels.shape:
        raise AlertError(f"{frame.source}: {name} is {data.shape}, the image {frame.shape}")
    if name in _VARIANCES:
        with np.errstate(over="ignore"):
            plane = data.astype(np.float32) ** _VARIANCES[name]
        return replace(frame, variance=plane)
    return replace(frame, mask=_mask(data, header))


def _mask(data: NDArray[Any], header: Any) -> MaskArray:
    """Return a mask by the names of its planes; without names, what is not 0 is BAD."""
    mask = empty_mask((data.shape[0], data.shape[1]))
    named = {n: header.get(f"MP_{n}") for n in PLANE_NAMES}
    if not any(isinstance(bit, int) for bit in named.values()):
        set_plane(mask, MaskPlane.BAD, data != 0)
        return mask
    bits = data.astype(np.int64)
    for name, bit in named.items():
        if isinstance(bit, int) and 0 <= bit < 63:
            set_plane(mask, PLANE_NAMES[name], (bits >> bit) & 1 != 0)
    return mask


@dataclass(frozen=True)
class Defaults:
    """What is taken where a header says nothing.

    Parameters
    ----------
    gain : float
        [e-/ADU]
    read_noise : float
        [e-]
    band : str
        Empty: unknown.
    zero_point : float
        NaN: unknown; fluxes in nJy are then unknown too. [mag]
    saturation : float
        [ADU]
    exposure_s : float
        [s]
    """

    gain: float = 1.0
    read_noise: float = 0.0
    band: str = ""
    zero_point: float = float("nan")
    saturation: float = float("inf")
    exposure_s: float = float("nan")


def calibration_of(frame: Frame, defaults: Defaults | None = None) -> Calibration:
    """Return what a frame's header says of the exposure, NaN or the defaults where it is silent."""
    chosen, header = defaults or Defaults(), frame.header

    def or_default(value: float | None, default: float) -> float:
        return default if value is None else value

    exposure = words.positive(header, words.EXPOSURE)
    return Calibration(
        visit=int(or_default(words.positive(header, words.VISIT), 0.0)),
        detector=int(or_default(words.number(header, words.DETECTOR), 0.0)),
        band=words.band_of(header) or chosen.band,
        midpoint_mjd_tai=or_default(words.midpoint_mjd_tai(header, exposure), float("nan")),
        exposure_s=or_default(exposure, chosen.exposure_s),
        zero_point=or_default(words.number(header, words.ZERO_POINT), chosen.zero_point),
        gain=or_default(words.positive(header, words.GAIN), chosen.gain),
        read_noise=or_default(words.number(header, words.READ_NOISE), chosen.read_noise),
        saturation=or_default(words.positive(header, words.SATURATION), chosen.saturation),
    )


def to_image(frame: Frame, defaults: Defaults | None = None) -> Image:
    """Return a frame as an image.

    Pixels that are not finite become 0 and NO_DATA; those at the saturation are marked so. Without
    a variance in the file it is a first one, from sky, gain and read noise, as for any exposure.
    Without a width of the PSF in the header it is 2 pixels, and `meta["psfKnown"]` is False.

    Raises
    ------
    AlertError
        If it has no WCS, or no usable pixel.
    """
    if frame.wcs is None:
        raise AlertError(f"{frame.source}: the header has no WCS; RA---TAN, DEC--TAN is needed")
    calibration = calibration_of(frame, defaults)
    pixels = frame.pixels.astype(np.float32)
    finite = np.isfinite(pixels)
    if not finite.any():
        raise AlertError(f"{frame.source}: no pixel is a finite number")
    mask = empty_mask(frame.shape) if frame.mask is None else frame.mask.copy()
    set_plane(mask, MaskPlane.NO_DATA, ~finite)
    pixels[~finite] = 0.0
    set_plane(mask, MaskPlane.SATURATED, pixels >= calibration.saturation)
    variance = frame.variance
    if variance is None:
        variance = _first_variance(pixels, finite, calibration)
    else:
        unknown = ~(np.isfinite(variance) & (variance > 0.0))
        set_plane(mask, MaskPlane.NO_DATA, unknown)
        variance = np.where(unknown, np.float32(0.0), variance)
    sigma = words.positive(frame.header, words.PSF_SIGMA)
    meta = _meta(frame.header) | {"psfKnown": sigma is not None}
    if frame.wcs_error_px > 0.0:
        meta["wcsErrorPx"] = frame.wcs_error_px
    return Image(pixels, variance, mask, frame.wcs, GaussianPsf(sigma or 2.0), calibration, meta)


def _first_variance(pixels: F32, finite: NDArray[np.bool_], calibration: Calibration) -> F32:
    sky = max(float(np.median(pixels[finite])), 0.0)
    level = sky / calibration.gain + (calibration.read_noise / calibration.gain) ** 2
    if level <= 0.0:
        # The faint side has no sources: 16 % lie below minus one sigma.
        low, middle = np.percentile(pixels[finite], [15.8655, 50.0])
        level = float(middle - low) ** 2
    return np.full(pixels.shape, level, np.float32)


def _meta(header: Any) -> dict[str, Any]:
    text = header.get("BRKMETA")
    if not isinstance(text, str):
        return {}
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def read_image(path: Path, defaults: Defaults | None = None) -> Image:
    """Return the first image of a file, see `read_frames` and `to_image`."""
    return to_image(read_frames(path)[0], defaults)


def header_of(calibration: Calibration, wcs: Wcs, psf: GaussianPsf) -> dict[str, Any]:
    """Return the keywords of an image; those of unknown values are left out."""
    keys: dict[str, Any] = dict(wcs.header()) | {
        "VISIT": calibration.visit,
        "DETECTOR": calibration.detector,
        "FILTER": calibration.band,
        "MJDTAI": calibration.midpoint_mjd_tai,
        "EXPTIME": calibration.exposure_s,
        "MAGZP": calibration.zero_point,
        "GAIN": calibration.gain,
        "RDNOISE": calibration.read_noise,
        "SATURATE": calibration.saturation,
        "PSFSIGMA": psf.sigma,
        "TIMESYS": "TAI",
    }
    return {k: v for k, v in keys.items() if isinstance(v, str) or np.isfinite(v)}


def write_image(path: Path, image: Image) -> None:
    """Write an image with its variance and mask.

    Parameters
    ----------
    path : Path
        A name that ends in `.fits`, `.fits.gz`, or `.fits.fz` for tiles compressed without loss.
        A file of that name is replaced, by a whole one.
    image : Image
    """
    from astropy.io import fits

    header = header_of(image.calibration, image.wcs, image.psf)
    unit = str(image.meta.get("unit", "adu"))
    header["BUNIT"] = unit
    if not image.meta.get("psfKnown", True):
        del header["PSFSIGMA"]
    made = image.meta.get("provenance", {})
    if "id" in made:
        header["PROVID"] = made["id"]
    if image.meta:
        header["BRKMETA"] = json.dumps(image.meta, sort_keys=True)
    planes = {f"HIERARCH MP_{n}": p.bit_length() - 1 for n, p in PLANE_NAMES.items()}
    parts: list[tuple[str, NDArray[Any], dict[str, Any]]] = [
        ("IMAGE", image.pixels, header),
        ("VARIANCE", image.variance, dict(image.wcs.header()) | {"BUNIT": f"{unit}2"}),
        ("MASK", image.mask.astype(np.int32), dict(image.wcs.header()) | planes),
    ]
    if path.name.endswith(".fz"):
        units: list[Any] = [fits.PrimaryHDU()]
        units += [
            fits.CompImageHDU(d, fits.Header(h), n, compression_type="GZIP_2", quantize_level=0.0)
            for n, d, h in parts
        ]
    else:
        (_, first, keys), *rest = parts
        units = [fits.PrimaryHDU(first, fits.Header(keys))]
        units += [fits.ImageHDU(d, fits.Header(h), n) for n, d, h in rest]
    write_units(path, units)


def write_raw(path: Path, exposure: RawExposure) -> None:
    """Write a raw exposure: 16-bit counts with their bias, whose level is BIASLVL."""
    from astropy.io import fits

    header = header_of(exposure.calibration, exposure.wcs, exposure.psf)
    header |= {"BUNIT": "adu", "BIASLVL": exposure.bias_level}
    write_units(path, [fits.PrimaryHDU(exposure.pixels, fits.Header(header))])

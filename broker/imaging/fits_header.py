"""What a FITS header says of an image: many cameras, a few words for each thing.

A keyword that is absent is unknown, never zero: the functions return None.
"""

import re
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from broker.errors import AlertError
from broker.imaging.wcs import Wcs
from broker.units import BANDS, SECONDS_PER_DAY

Header = Mapping[str, Any]

GAIN = ("GAIN", "EGAIN", "CCDGAIN", "ATODGAIN", "GAINA")
READ_NOISE = ("RDNOISE", "READNOI", "READNOIS", "RON", "RDNOISEA", "ENOISE")
EXPOSURE = ("EXPTIME", "EXPOSURE", "EXP_TIME", "TEXPTIME")
SATURATION = ("SATURATE", "SATLEVEL", "SATURATA", "MAXLIN")
ZERO_POINT = ("MAGZP", "MAGZERO", "MAGZPT", "PHOTZP", "ZEROPT")
PSF_SIGMA = ("PSFSIGMA",)
BIAS_LEVEL = ("BIASLVL",)
VISIT = ("VISIT", "EXPID", "EXPNUM")
DETECTOR = ("DETECTOR", "CCDNUM", "DETNUM", "CCDID")
_FILTER = ("FILTER", "BAND", "FILTER1", "FILTNAM", "FILTER2", "INSFILTE")
_MIDDLE = ("MJDTAI", "MJD-AVG", "MJD-MID", "MJDMID")
_START = ("MJD-OBS", "MJD-BEG", "MJDSTART", "MJD")
_CELESTIAL = ("RA--", "DEC-", "GLON", "GLAT", "ELON", "ELAT")
_MAX_SKY_SHIFT_PX = 1e-3
_GRID = 9


def number(header: Header, names: tuple[str, ...]) -> float | None:
    """Return the first keyword of several that is a finite number; None if none is."""
    for name in names:
        value = header.get(name)
        if not isinstance(value, int | float | str) or isinstance(value, bool):
            continue
        try:
            found = float(value)
        except ValueError:
            continue
        if np.isfinite(found):
            return found
    return None


def positive(header: Header, names: tuple[str, ...]) -> float | None:
    """Return the first keyword of several that is a positive number; None if none is."""
    for name in names:
        value = number(header, (name,))
        if value is not None and value > 0.0:
            return value
    return None


def band_of(header: Header) -> str | None:
    """Return the passband, u g r i z y, of a filter's name; None if it is no such filter.

    Understood are the letter alone or as a word (`SDSS g`, `r_03`, `i.MP9703`), with a prime, or
    after the camera's name (`ZTF_r`, `zg`, `VR` is none of them).
    """
    for name in _FILTER:
        text = header.get(name)
        if not isinstance(text, str):
            continue
        for word in re.split(r"[^A-Za-z']+", text):
            letter = word.rstrip("p'").removeprefix("z") or word
            if letter in BANDS:
                return letter
            if word in ("Y", "U"):
                return word.lower()
    return None


def midpoint_mjd_tai(header: Header, exposure_s: float | None) -> float | None:
    """Return the middle of the exposure, MJD, TAI; None if the header has no time. [d]

    A middle is taken as it stands; a start has half the exposure added. The scale is that of
    TIMESYS, UTC if there is none; MJDTAI is TAI.
    """
    middle = number(header, ("MJDTAI",))
    if middle is not None:
        return middle
    scale = str(header.get("TIMESYS", "UTC")).strip().lower()
    middle = number(header, _MIDDLE)
    if middle is not None:
        return _to_tai(middle, "mjd", scale)
    start = number(header, _START)
    half = (exposure_s or 0.0) / 2.0 / SECONDS_PER_DAY
    if start is not None:
        tai = _to_tai(start, "mjd", scale)
        return None if tai is None else tai + half
    for name, shift in (("DATE-AVG", 0.0), ("DATE-OBS", half), ("DATE-BEG", half)):
        text = header.get(name)
        if isinstance(text, str) and "T" in text:
            tai = _to_tai(text.strip().rstrip("Z"), "isot", scale)
            if tai is not None:
                return tai + shift
    return None


def _to_tai(value: float | str, form: str, scale: str) -> float | None:
    from astropy.time import Time

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return float(Time(value, format=form, scale=scale).tai.mjd)
    except (ValueError, KeyError):
        return None


def wcs_of(header: Header, shape: tuple[int, int]) -> tuple[Wcs | None, float]:
    """Return the WCS of a header, and how far it may be off. [pixel]

    Plain TAN is taken exactly. Any other projection or distortion that astropy knows (SIP, TPV…)
    is replaced by the TAN that fits best over the image; the second number is then the largest
    difference on a grid.

    Parameters
    ----------
    header : astropy.io.fits.Header
    shape : (int, int)
        Of the image: (ny, nx).

    Returns
    -------
    Wcs or None
        None if the header has no celestial coordinates at all.
    float

    Raises
    ------
    AlertError
        If it has, and they are not on the sky, of impossible pixels, not of right ascension and
        declination, of an equinox before 1984, or cannot be read.
    """
    kinds = (str(header.get("CTYPE1", "")).strip(), str(header.get("CTYPE2", "")).strip())
    if not any(kind.startswith(_CELESTIAL) for kind in kinds):
        return None, 0.0
    if not (kinds[0].startswith("RA--") and kinds[1].startswith("DEC-")):
        raise AlertError(f"the header's axes are {kinds}; RA and DEC, in this order, are read")
    frame = str(header.get("RADESYS", header.get("RADECSYS", "ICRS"))).strip().upper()
    equinox = number(header, ("EQUINOX",)) or 2000.0
    if frame.startswith("FK4") or equinox < 1984.0:
        raise AlertError(f"the header's frame is {frame}, equinox {equinox:g}; ICRS or FK5 is read")
    for name in ("CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2"):
        if number(header, (name,)) is None:
            raise AlertError(f"the header's {name} is {header.get(name)!r}; it must be a number")
    declination = float(header["CRVAL2"])
    if abs(declination) > 90.0:
        raise AlertError(f"the header's CRVAL2 is {declination}, beyond a pole")
    wcs, error = _from_astropy(header, shape, kinds)
    wcs.require_image(shape)
    return wcs, error


def _from_astropy(
    header: Header, shape: tuple[int, int], kinds: tuple[str, str]
) -> tuple[Wcs, float]:
    from astropy.wcs import WCS

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = WCS(header, naxis=2)
            plain = (
                kinds == ("RA---TAN", "DEC--TAN")
                and theirs.sip is None
                and not theirs.has_distortion
                and not theirs.wcs.get_pv()
            )
            lonpole = number(header, ("LONPOLE",))
            if plain and lonpole in (None, 180.0) and abs(theirs.wcs.crval[1]) != 90.0:
                (a, b), (c, d) = theirs.pixel_scale_matrix.tolist()
                x, y = (theirs.wcs.crpix - 1.0).tolist()
                ra, dec = theirs.wcs.crval.tolist()
                return Wcs(ra, dec, x, y, ((a, b), (c, d))), 0.0
            return _best_tan(theirs, shape)
    except AlertError:
        raise
    except Exception as error:  # wcslib's errors share no root of their own
        reason = " ".join(str(error).split())
        raise AlertError(f"the header's WCS cannot be read: {reason}") from error


def _best_tan(theirs: Any, shape: tuple[int, int]) -> tuple[Wcs, float]:
    """Return the TAN that fits another projection best over an image, and the largest error."""
    ny, nx = shape
    middle = ((nx - 1) / 2.0, (ny - 1) / 2.0)
    ra, dec = (float(v) for v in theirs.all_pix2world(*middle, 0))
    x, y = np.meshgrid(np.linspace(0, nx - 1, _GRID), np.linspace(0, ny - 1, _GRID))
    sky = theirs.all_pix2world(x.ravel(), y.ravel(), 0)
    plane = Wcs(ra, dec, 0.0, 0.0, ((1.0, 0.0), (0.0, 1.0)))
    offsets = np.column_stack(plane.sky_to_pixel(*sky))
    if not np.isfinite(offsets).all():
        raise AlertError("a part of the image is not on the sky")
    design = np.column_stack([x.ravel() - middle[0], y.ravel() - middle[1], np.ones(x.size)])
    solution = np.linalg.lstsq(design, offsets, rcond=None)[0]
    matrix, shift = solution[:2].T, solution[2]
    if abs(np.linalg.det(matrix)) < 1e-20:
        raise AlertError("the header's WCS is singular")
    error = np.linalg.solve(matrix, (design @ solution - offsets).T)
    at = np.array(middle) - np.linalg.solve(matrix, shift)
    (a, b), (c, d) = matrix.tolist()
    worst = float(np.max(np.hypot(*error)))
    wcs = Wcs(ra, dec, float(at[0]), float(at[1]), ((a, b), (c, d)))
    return wcs, worst if worst > _MAX_SKY_SHIFT_PX else 0.0


def section(text: str) -> tuple[int, int, int, int]:
    """Return a FITS section `[x1:x2,y1:y2]` as x1, x2, y1, y2, counted from 1, ends included.

    Raises
    ------
    AlertError
        If it is no section.
    """
    found = re.fullmatch(r"\s*\[\s*(\d+)\s*:\s*(\d+)\s*,\s*(\d+)\s*:\s*(\d+)\s*\]\s*", text)
    if not found:
        raise AlertError(f"{text!r} is no section of the form [1:100,1:200]")
    x1, x2, y1, y2 = (int(v) for v in found.groups())
    return x1, x2, y1, y2

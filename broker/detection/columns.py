"""The columns of a diaSource as detection makes them, and its identifier."""

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from broker.alerts.columns import CUTOUTS, Column
from broker.errors import AlertError
from broker.imaging.image import MAX_DETECTOR, MAX_PIXELS, MAX_VISIT

_req = {"nullable": False}

COLUMNS: tuple[Column, ...] = (
    Column(
        "diaSourceId", "int64", "", "Visit, detector and peak pixel, packed in 63 bits.", **_req
    ),
    Column("visit", "int64", "", "Identifier of the visit.", **_req),
    Column("detector", "int32", "", "Number of the detector.", **_req),
    Column("band", "string", "", "Passband: u g r i z y.", **_req),
    Column("midpointMjdTai", "float64", "d", "Middle of the exposure, MJD, TAI.", **_req),
    Column("x", "float32", "pixel", "Column on the detector, from 0.", **_req),
    Column("y", "float32", "pixel", "Row on the detector, from 0.", **_req),
    Column("ra", "float64", "deg", "Right ascension, ICRS.", **_req),
    Column("dec", "float64", "deg", "Declination, ICRS.", **_req),
    Column("raErr", "float32", "deg", "1-sigma error of ra, on the sky (times cos dec).", **_req),
    Column("decErr", "float32", "deg", "1-sigma error of dec.", **_req),
    Column("psfFlux", "float32", "nJy", "PSF flux on the difference image.", **_req),
    Column("psfFluxErr", "float32", "nJy", "1-sigma error of psfFlux.", **_req),
    Column("snr", "float32", "", "Signal to noise of the detection, positive.", **_req),
    Column("psfChi2", "float32", "", "Chi-square of the PSF fit per degree of freedom."),
    Column("templateFlux", "float32", "nJy", "PSF flux of the template at this place."),
    Column("templateFluxErr", "float32", "nJy", "1-sigma error of templateFlux."),
    Column("scienceFlux", "float32", "nJy", "PSF flux of the science image at this place."),
    Column("scienceFluxErr", "float32", "nJy", "1-sigma error of scienceFlux."),
    Column("reliability", "float32", "", "Real/bogus score: 0 artefact, 1 real.", **_req),
    Column("isNegative", "bool", "", "Whether the source is fainter than in the template.", **_req),
    Column("isDipole", "bool", "", "Whether it looks like two sources of opposite sign.", **_req),
    Column("flags", "int64", "", "Quality flags, see broker.detection.flags.", **_req),
    Column("fwhm", "float32", "arcsec", "Full width at half maximum of the source."),
    Column("elongation", "float32", "", "Ratio of the major to the minor axis."),
    Column("limitingMag", "float32", "mag", "5-sigma limiting AB magnitude of the image."),
    Column("zeroPoint", "float32", "mag", "AB magnitude of one count in the exposure.", **_req),
    Column("templateVersion", "string", "", "Set of templates it was found with.", **_req),
)
"""What is measured of a diaSource."""

DIA_SOURCES = pa.schema([pa.field(c.name, c.arrow_type, c.nullable) for c in COLUMNS])
"""Arrow schema of diaSources without their cutouts."""

DIA_SOURCES_WITH_CUTOUTS = pa.schema(
    [*DIA_SOURCES, *(pa.field(name, pa.binary(), nullable=False) for name in CUTOUTS)]
)
"""Arrow schema of diaSources with their three cutouts, gzipped FITS."""

_PIXEL_BITS = 24
_DETECTOR_BITS = 8


def dia_source_ids(visit: int, detector: int, peaks: ArrayLike) -> NDArray[np.int64]:
    """Return the identifiers of diaSources: visit (31 bits), detector (8), peak pixel (24).

    Parameters
    ----------
    visit, detector : int
    peaks : array_like of int
        Index of each peak pixel, y * nx + x.

    Raises
    ------
    AlertError
        If a number does not fit its bits.
    """
    pixels = np.asarray(peaks, dtype=np.int64)
    fits = 0 <= visit <= MAX_VISIT and 0 <= detector <= MAX_DETECTOR
    if not fits or (pixels.size and not (pixels.min() >= 0 and pixels.max() < MAX_PIXELS)):
        raise AlertError(
            f"visit {visit}, detector {detector} or a pixel is out of range: at most {MAX_VISIT}, "
            f"{MAX_DETECTOR} and {MAX_PIXELS - 1}",
            visit=visit,
            detector=detector,
        )
    first = (visit << (_DETECTOR_BITS + _PIXEL_BITS)) | (detector << _PIXEL_BITS)
    return np.asarray(first | pixels, dtype=np.int64)


def unpack_dia_source_ids(
    ids: ArrayLike,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return visit, detector and peak pixel of identifiers."""
    values = np.asarray(ids, dtype=np.int64)
    pixel = values & (MAX_PIXELS - 1)
    detector = (values >> _PIXEL_BITS) & MAX_DETECTOR
    return values >> (_DETECTOR_BITS + _PIXEL_BITS), detector, pixel

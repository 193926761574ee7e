"""Cutouts of an alert: as FITS, as picture, as numbers, with where north and east are."""

import io
import math
import zlib
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Path, Query, Response
from numpy.typing import NDArray

from broker.api.errors import ApiError, not_found
from broker.api.formats import json_response
from broker.api.questions import AlertName, SourcesOf, SurveyName
from broker.api.sources import Packet
from broker.errors import AlertError
from broker.imaging.cutout import decode_cutout

router = APIRouter(tags=["cutouts"])

KINDS = {
    "science": "cutoutScience",
    "template": "cutoutTemplate",
    "difference": "cutoutDifference",
}
FORMATS = ("fits", "png", "array")
STRETCHES = ("linear", "asinh", "log", "zscale")
COLOR_MAPS = ("gray", "gray_r", "viridis", "magma", "inferno", "cividis", "RdBu_r")
_MAX_FITS_BYTES = 1 << 26

F32 = NDArray[np.float32]


@router.get("/alerts/{survey}/{alertId}/cutouts")
def list_cutouts(
    sources: SourcesOf,
    survey: SurveyName,
    alertId: AlertName,  # noqa: N803
) -> Response:
    """Tell which cutouts the alert's packet has, their sizes, and where north and east are."""
    return json_response({"data": describe(sources.packet(sources.alert(survey, alertId)))})


def describe(packet: Packet) -> list[dict[str, Any]]:
    """Return kind, shape and orientation of each cutout; `present` false if there is none."""
    rows = []
    for kind, column in KINDS.items():
        data = packet.canonical[column]
        row: dict[str, Any] = {"kind": kind, "present": data is not None, "problem": None}
        if data is not None:
            try:
                row["shape"] = list(decode_cutout(data).shape)
                row |= orientation(data)
            except AlertError as error:
                row |= {"present": False, "problem": error.message}
        rows.append(row)
    return rows


@router.get("/alerts/{survey}/{alertId}/cutouts/{kind}")
def read_cutout(
    sources: SourcesOf,
    survey: SurveyName,
    alertId: AlertName,  # noqa: N803
    kind: Annotated[str, Path(description=", ".join(KINDS), examples=["science"])],
    form: Annotated[
        str, Query(alias="format", description=", ".join(FORMATS), examples=["png"])
    ] = "fits",
    stretch: Annotated[
        str, Query(description=f"Of a picture: {', '.join(STRETCHES)}.", examples=["asinh"])
    ] = "zscale",
    colorMap: Annotated[  # noqa: N803
        str, Query(description=f"Of a picture: {', '.join(COLOR_MAPS)}.", examples=["gray"])
    ] = "gray",
) -> Response:
    """Return a cutout: the FITS file, a PNG picture (first row at the bottom), or its pixels."""
    for name, value, allowed in (
        ("cutout", kind, tuple(KINDS)),
        ("format", form, FORMATS),
        ("stretch", stretch, STRETCHES),
        ("colorMap", colorMap, COLOR_MAPS),
    ):
        if value not in allowed:
            raise ApiError(400, f"there is no {name} {value!r}", allowed)
    data = sources.packet(sources.alert(survey, alertId)).canonical[KINDS[kind]]
    if data is None:
        raise not_found(f"cutout in the packet of alert {alertId},", kind)
    try:
        pixels = decode_cutout(data)
    except AlertError as error:
        raise ApiError(404, f"the cutout cannot be read: {error.message}") from error
    headers = {"Cache-Control": "public, max-age=3600"}
    if form == "array":
        values = [[v if math.isfinite(v) else None for v in row] for row in pixels.tolist()]
        return json_response({"kind": kind, **orientation(data), "pixels": values}, headers)
    if form == "png":
        return Response(picture(pixels, stretch, colorMap), media_type="image/png", headers=headers)
    headers["Content-Disposition"] = f'attachment; filename="{kind}.fits"'
    return Response(plain_fits(data), media_type="application/fits", headers=headers)


def plain_fits(data: bytes) -> bytes:
    """Return a FITS file that may be gzipped, not gzipped."""
    if data[:2] != b"\x1f\x8b":
        return data
    return zlib.decompressobj(31).decompress(data, _MAX_FITS_BYTES)


def orientation(data: bytes) -> dict[str, list[float] | None]:
    """Return unit vectors to north and east in pixels (x right, y up); null if nothing says."""
    from astropy.io.fits import Header

    header = Header.fromstring(plain_fits(data)[:28800].decode("latin-1"))
    nothing: dict[str, list[float] | None] = {"north": None, "east": None}
    scale = (header.get("CDELT1", 1.0), header.get("CDELT2", 1.0))
    if "CD1_1" in header:
        matrix = [[header.get(f"CD{i}_{j}", 0.0) for j in (1, 2)] for i in (1, 2)]
    elif "CTYPE1" in header and ("PC1_1" in header or "CDELT1" in header):
        matrix = [
            [scale[i - 1] * header.get(f"PC{i}_{j}", float(i == j)) for j in (1, 2)] for i in (1, 2)
        ]
    else:
        return nothing
    cd = np.asarray(matrix, dtype=np.float64)
    if not np.isfinite(cd).all() or np.linalg.det(cd) == 0.0:
        return nothing
    inverse = np.linalg.inv(cd)
    east, north = (inverse[:, i] / np.hypot(*inverse[:, i]) for i in (0, 1))
    return {"north": north.tolist(), "east": east.tolist()}


def stretched(pixels: F32, stretch: str) -> F32:
    """Return pixels between 0 and 1; NaN stays NaN."""
    finite = pixels[np.isfinite(pixels)]
    if finite.size == 0:
        return pixels
    if stretch == "zscale":
        from astropy.visualization import ZScaleInterval

        low, high = ZScaleInterval().get_limits(finite)
    else:
        low, high = np.percentile(finite, (0.5, 99.7))
    scaled = np.clip((pixels - low) / max(float(high - low), 1e-30), 0.0, 1.0)
    if stretch == "asinh":
        scaled = np.arcsinh(10.0 * scaled) / np.arcsinh(10.0)
    elif stretch == "log":
        scaled = np.log1p(1000.0 * scaled) / np.log1p(1000.0)
    return np.asarray(scaled, dtype=np.float32)


def picture(pixels: F32, stretch: str, color_map: str) -> bytes:
    """Return a PNG picture, the first row at the bottom; pixels without a value are clear."""
    from matplotlib import colormaps
    from matplotlib.image import imsave

    scaled = stretched(pixels, stretch)
    rgba = colormaps[color_map](np.nan_to_num(scaled))
    rgba[..., 3] = np.isfinite(scaled)
    file = io.BytesIO()
    imsave(file, rgba, format="png", origin="lower")
    return file.getvalue()

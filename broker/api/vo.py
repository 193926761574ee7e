"""What tools of the Virtual Observatory ask: the simple cone search (IVOA SCS 1.03)."""

from typing import Annotated
from xml.sax.saxutils import quoteattr

import pyarrow as pa
from fastapi import APIRouter, Query, Response

from broker.api.errors import ApiError
from broker.api.formats import MEDIA_TYPES, plain, votable
from broker.api.questions import MAX_ROWS, SourcesOf
from broker.api.resolve import check_place
from broker.api.rows import flat_row

router = APIRouter(prefix="/vo", tags=["virtual observatory"])

_SCHEMA = pa.schema(
    [
        ("objectId", pa.string()),
        ("survey", pa.string()),
        ("ra", pa.float64()),
        ("dec", pa.float64()),
        ("separation", pa.float64()),
        ("diaSourceId", pa.string()),
        ("midpointMjdTai", pa.float64()),
        ("band", pa.string()),
        ("psfFlux", pa.float64()),
        ("psfFluxErr", pa.float64()),
        ("mag", pa.float64()),
        ("snr", pa.float64()),
        ("reliability", pa.float64()),
        ("nDiaSources", pa.int64()),
    ]
)
_UCDS = {
    "objectId": "ID_MAIN",
    "ra": "POS_EQ_RA_MAIN",
    "dec": "POS_EQ_DEC_MAIN",
    "midpointMjdTai": "TIME_DATE",
    "mag": "PHOT_MAG",
}
"""UCD1 words, which the standard asks for."""


@router.get("/cone")
def search_cone(
    sources: SourcesOf,
    ra: Annotated[str, Query(alias="RA", description="ICRS. [deg]", examples=["29.1962"])] = "",
    dec: Annotated[str, Query(alias="DEC", description="ICRS. [deg]", examples=["-18.7413"])] = "",
    radius: Annotated[
        str, Query(alias="SR", description="Radius, at most 1. [deg]", examples=["0.01"])
    ] = "",
) -> Response:
    """Return the objects around a place as a VOTable, each by its newest alert.

    With SR=0 only the columns are told. As the standard asks, an error is a VOTable too.
    """
    try:
        rows = _rows(sources, ra, dec, radius)
    except ApiError as error:
        return _error(error.message)
    columns = [
        pa.array([plain(row.get(field.name)) for row in rows], field.type) for field in _SCHEMA
    ]
    table = pa.Table.from_arrays(columns, schema=_SCHEMA)
    return Response(votable(table, meanings=_UCDS), media_type=MEDIA_TYPES["votable"])


def _rows(sources: SourcesOf, ra: str, dec: str, radius: str) -> list[dict[str, object]]:
    numbers = []
    for name, text in (("RA", ra), ("DEC", dec), ("SR", radius)):
        try:
            numbers.append(float(text))
        except ValueError as error:
            raise ApiError(400, f"{name} is {text[:40]!r}; it must be a number") from error
    if numbers[2] == 0.0:
        check_place(numbers[0], numbers[1], 1.0)
        return []
    arcsec = numbers[2] * 3600.0
    check_place(numbers[0], numbers[1], arcsec)
    return [flat_row(alert) for alert in sources.cone(numbers[0], numbers[1], arcsec)[:MAX_ROWS]]


def _error(words: str) -> Response:
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">'
        f'<INFO ID="Error" name="Error" value={quoteattr(words)}/></VOTABLE>'
    )
    return Response(body, media_type=MEDIA_TYPES["votable"])

"""Solar-system objects: which are at a place at a time, and the alerts of one."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from broker.api.errors import ApiError, not_found
from broker.api.pages import page_of
from broker.api.questions import Cursor, Limit, ShapeOf, SourcesOf
from broker.api.resolve import check_place
from broker.api.rows import Row, flat_row, iso_utc
from broker.api.sources import Alert, Sources
from broker.catalog.definition import ORBITS
from broker.errors import AlertError
from broker.store.moving import alerts_of_body
from broker.units import separation_arcsec

router = APIRouter(prefix="/solar-system", tags=["solar system"])

MAX_RADIUS_ARCSEC = 10 * 3600.0
_MJD = (15_000.0, 90_000.0)
"""Elements are good for some years; this is 1899 to 2105."""


def orbit_catalogs(sources: Sources) -> list[str]:
    """Return the installed catalogues of orbits."""
    return [
        name
        for name, definition in sources.catalogs.definitions.items()
        if definition.kind == ORBITS and sources.catalogs.rows(name) is not None
    ]


def bodies_around(
    sources: Sources, ra: float, dec: float, radius_arcsec: float, mjd: float
) -> list[Row]:
    """Return the known bodies in a cone at a time (MJD, TAI), the nearest first."""
    rows: list[Row] = []
    for name in orbit_catalogs(sources):
        moving = sources.catalogs.moving(name)
        found, seen = moving.around(ra, dec, radius_arcsec, mjd)
        ids = moving.rows.entries["id"].take(found).to_pylist()
        for i, body in enumerate(ids):
            at = (float(seen.ra[i]), float(seen.dec[i]))
            rows.append(
                {
                    "catalog": name,
                    "bodyId": body,
                    "ra": at[0],
                    "dec": at[1],
                    "separation": float(separation_arcsec(ra, dec, *at)),
                    "midpointMjdTai": mjd,
                    "midpointUtc": iso_utc(mjd),
                }
            )
    return sorted(rows, key=lambda row: (row["separation"], row["catalog"], row["bodyId"]))


@router.get("/around")
def read_bodies(
    sources: SourcesOf,
    shape: ShapeOf,
    ra: Annotated[float, Query(ge=0.0, le=360.0, description="ICRS. [deg]", examples=[150.0])],
    dec: Annotated[float, Query(ge=-90.0, le=90.0, description="ICRS. [deg]", examples=[2.0])],
    mjdTai: Annotated[  # noqa: N803  # parameters have wire names
        float, Query(ge=_MJD[0], le=_MJD[1], description="When. [d]", examples=[61000.0])
    ],
    radiusArcsec: Annotated[  # noqa: N803
        float, Query(gt=0.0, le=MAX_RADIUS_ARCSEC, description="[arcsec]", examples=[3600.0])
    ] = 600.0,
) -> Response:
    """Return the known bodies in a cone at a time, the nearest first.

    As the installed catalogues of orbits predict, which `catalogs` names; none knows of others.
    """
    check_place(ra, dec, 1.0)
    try:
        rows = bodies_around(sources, ra, dec, radiusArcsec, mjdTai)
    except AlertError as error:
        raise ApiError(400, error.message) from error
    return shape.answer(
        rows, name="bodies", around={"total": len(rows), "catalogs": orbit_catalogs(sources)}
    )


@router.get("/alerts")
def read_body(
    sources: SourcesOf,
    shape: ShapeOf,
    body: Annotated[
        str,
        Query(
            description="Id in a catalogue of orbits, or a survey's ssObjectId.",
            max_length=200,
            examples=["433"],
        ),
    ],
    catalog: Annotated[
        str | None, Query(description="Only as this catalogue of orbits knows it.", max_length=80)
    ] = None,
    limit: Limit = 1000,
    cursor: Cursor = None,
) -> Response:
    """Return the public alerts of a body, the oldest first.

    Those that a catalogue of orbits knew as it when they came, and those of which their survey
    says so.
    """
    alerts = alerts_of(sources, body, catalog)
    page = page_of(
        [flat_row(one) for one in alerts], key=_place, limit=limit, cursor=cursor or None
    )
    return shape.answer_page(page, name=f"body-{body}")


def alerts_of(sources: Sources, body: str, catalog: str | None = None) -> list[Alert]:
    """Return the public alerts of a body, each once, the oldest first.

    Raises
    ------
    ApiError
        If the catalogue is none of orbits.
    """
    orbits = [n for n, one in sources.catalogs.definitions.items() if one.kind == ORBITS]
    if catalog is not None and catalog not in orbits:
        raise not_found("catalogue of orbits", catalog, orbits)
    found: dict[tuple[str, str], Alert] = {}
    names = orbits if catalog is None else [catalog]
    for name in names if sources.has_table("moving") else ():
        keys = alerts_of_body(sources.tables, sources.run, name, body)
        found |= {_name(one): one for one in sources.store.alerts(keys) if one["isPublic"]}
    for survey in sources.surveys if catalog is None else ():
        found |= {_name(one): one for one in sources.find_object(survey, f"ss:{body}")}
    return sorted(found.values(), key=_place)


def _name(alert: Alert) -> tuple[str, str]:
    return alert["survey"], alert["diaSourceId"]


def _place(row: Alert) -> tuple[Any, ...]:
    return row["midpointMjdTai"], row["survey"], row["diaSourceId"]

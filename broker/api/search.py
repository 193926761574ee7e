"""Searches: alerts and objects by date, class, brightness, topic, catalogue and part of the sky."""

import dataclasses
from typing import Annotated, Any

from fastapi import APIRouter, Body, Response

from broker.api.errors import ApiError
from broker.api.finding import find, newest_of_objects, page_of_found
from broker.api.pages import Page
from broker.api.questions import Cursor, Limit, ShapeOf, SourcesOf
from broker.api.rows import Row, flat_row
from broker.api.sources import Sources
from broker.api.wanted import WantedOf, region_of_file
from broker.store.search import Wanted

router = APIRouter(tags=["search"])

MocFile = Annotated[
    bytes,
    Body(
        media_type="application/octet-stream",
        description="A MOC: FITS (ranges or NUNIQ) or JSON.",
        examples=['{"3": [100, 101]}'],
    ),
]


def search(
    sources: Sources,
    wanted: Wanted,
    *,
    by_object: bool = False,
    limit: int = 100,
    cursor: str | None = None,
) -> Page[Row]:
    """Return alerts that are as they are wanted, the newest first, as flat rows.

    Parameters
    ----------
    sources : Sources
    wanted : Wanted
        What is asked for.
    by_object : bool
        Each object once, by the newest of its alerts that are as they are wanted.
    limit : int
        Rows of one answer.
    cursor : str, optional
        `Page.cursor` of the last answer.

    Raises
    ------
    ApiError
        If the cursor is of another question, or too much would have to be looked at.
    """
    found = find(sources, wanted)
    order = newest_of_objects(found) if by_object else found.order
    page = page_of_found(found, order, sources.store, limit=limit, cursor=cursor)
    return Page([flat_row(alert) for alert in page.rows], page.total, page.cursor)


@router.get("/alerts")
def search_alerts(
    sources: SourcesOf, shape: ShapeOf, wanted: WantedOf, limit: Limit = 100, cursor: Cursor = None
) -> Response:
    """Return the alerts that are as they are wanted, the newest first.

    All that is asked holds together. What is not known (no reliability, no positive flux) is in no
    range. The answer may be some seconds old.
    """
    page = search(sources, wanted, limit=limit, cursor=cursor or None)
    return shape.answer_page(page, name="alerts")


@router.get("/objects")
def search_objects(
    sources: SourcesOf, shape: ShapeOf, wanted: WantedOf, limit: Limit = 100, cursor: Cursor = None
) -> Response:
    """Return the objects with an alert that is as it is wanted, each by the newest such alert."""
    page = search(sources, wanted, by_object=True, limit=limit, cursor=cursor or None)
    return shape.answer_page(page, name="objects")


@router.post("/alerts/search")
def search_in_moc(
    sources: SourcesOf,
    shape: ShapeOf,
    wanted: WantedOf,
    moc: MocFile,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Response:
    """Return the alerts in a coverage that is sent as a file; else as `GET /alerts`."""
    if wanted.region is not None:
        raise ApiError(400, "the file says where; leave ra, box, polygon and moc out")
    inside = dataclasses.replace(wanted, region=region_of_file(moc))
    page: Page[Any] = search(sources, inside, limit=limit, cursor=cursor or None)
    return shape.answer_page(page, name="alerts")

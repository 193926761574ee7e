"""Objects and alerts: one, many, around a place, their histories and packets."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from broker.api.errors import ApiError
from broker.api.formats import json_response
from broker.api.own_objects import WholeObject, forced_fluxes, retraction_of, whole_object
from broker.api.pages import page_of
from broker.api.questions import (
    EXAMPLE_OBJECT,
    EXAMPLE_SURVEY,
    AlertName,
    Cursor,
    Limit,
    ObjectName,
    ShapeOf,
    SourcesOf,
    SurveyName,
)
from broker.api.resolve import MAX_RADIUS_ARCSEC, check_place, parse_question
from broker.api.rows import (
    Row,
    flat_row,
    iso_utc,
    limit_magnitude,
    magnitude,
    nested_row,
    object_name,
)
from broker.api.sources import Alert, Sources

router = APIRouter(tags=["objects and alerts"])

MAX_IDS = 2000


class ManyObjects(BaseModel):
    """Many objects of one survey."""

    survey: str = Field(examples=[EXAMPLE_SURVEY])
    ids: list[str] = Field(
        min_length=1, max_length=MAX_IDS, description="As text.", examples=[[EXAMPLE_OBJECT]]
    )


def summary(alerts: list[Alert]) -> Row:
    """Return what is said of an object as a whole, by its alerts, oldest first."""
    first, last = alerts[0], alerts[-1]
    return {
        "survey": last["survey"],
        "objectId": object_name(last),
        "diaObjectId": last["diaObjectId"],
        "ssObjectId": last["ssObjectId"],
        "ra": last["ra"],
        "dec": last["dec"],
        "nAlerts": len(alerts),
        "firstMjdTai": first["midpointMjdTai"],
        "firstUtc": iso_utc(first["midpointMjdTai"]),
        "lastMjdTai": last["midpointMjdTai"],
        "lastUtc": iso_utc(last["midpointMjdTai"]),
        "bands": sorted({a["band"] for a in alerts if a["band"]}, key="ugrizy".find),
        "topics": sorted({topic for alert in alerts for topic in alert["topics"]}),
        "newestAlert": last["diaSourceId"],
    }


def summary_of(whole: WholeObject) -> Row:
    """Return what is said of an object as a whole, with all its names."""
    about = summary(whole.alerts) | {"objectId": whole.name, "aliases": list(whole.aliases)}
    return about | ({"diaObjectId": whole.name} if whole.aliases else {})


@router.get("/objects/{survey}/{objectId}")
def read_object(
    sources: SourcesOf,
    shape: ShapeOf,
    survey: SurveyName,
    objectId: ObjectName,  # noqa: N803  # parameters have wire names
) -> Response:
    """Return an object: what is said of it as a whole, and its alerts, oldest first.

    `isRetracted` tells that a reprocessing found none of its sources any more. `aliases` are other
    names of the same object; its alerts under all of them are there, whichever is asked for.
    """
    whole = whole_object(sources, survey, objectId)
    about = {**summary_of(whole), **retraction_of(sources, survey, whole.name)}
    if shape.form == "json" and shape.columns is None:
        return json_response({**about, "data": [nested_row(alert) for alert in whole.alerts]})
    rows = [flat_row(alert) for alert in whole.alerts]
    return shape.answer(rows, name=f"{survey}-{objectId}", around=about)


@router.post("/objects")
def read_objects(sources: SourcesOf, shape: ShapeOf, many: ManyObjects) -> Response:
    """Return many objects of one survey, a row each; `missing` names those that are not there."""
    found = sources.find_objects(many.survey, many.ids)
    rows = [summary(alerts) for alerts in found.values() if alerts]
    missing = [name for name, alerts in found.items() if not alerts]
    return shape.answer(rows, name="objects", around={"missing": missing, "total": len(rows)})


@router.get("/cone-search")
def search_cone(
    sources: SourcesOf,
    shape: ShapeOf,
    ra: Annotated[float, Query(ge=0.0, le=360.0, description="ICRS. [deg]", examples=[29.1962])],
    dec: Annotated[float, Query(ge=-90.0, le=90.0, description="ICRS. [deg]", examples=[-18.7413])],
    radiusArcsec: Annotated[  # noqa: N803
        float, Query(gt=0.0, le=MAX_RADIUS_ARCSEC, description="[arcsec]", examples=[30.0])
    ] = 10.0,
    limit: Limit = 1000,
    cursor: Cursor = None,
) -> Response:
    """Return the objects around a place, the nearest first, each by its newest alert."""
    check_place(ra, dec, radiusArcsec)
    rows = [flat_row(alert) for alert in sources.cone(ra, dec, radiusArcsec)]
    page = page_of(
        rows,
        key=lambda row: (row["separation"], row["survey"], row["objectId"]),
        limit=limit,
        cursor=cursor or None,
    )
    return shape.answer_page(page, name="cone")


@router.get("/alerts/{survey}/{alertId}")
def read_alert(
    sources: SourcesOf,
    shape: ShapeOf,
    survey: SurveyName,
    alertId: AlertName,  # noqa: N803
) -> Response:
    """Return an alert: canonical columns, matches, outputs by module version, provenance."""
    alert = sources.alert(survey, alertId)
    if shape.form == "json" and shape.columns is None:
        return json_response(nested_row(alert))
    return shape.answer([flat_row(alert)], name=f"{survey}-{alertId}")


@router.get("/alerts/{survey}/{alertId}/packet")
def read_packet(
    sources: SourcesOf,
    survey: SurveyName,
    alertId: AlertName,  # noqa: N803
) -> Response:
    """Return the alert's packet as it came in: Avro, in a container or with a schema's id."""
    packet = sources.packet(sources.alert(survey, alertId))
    if not packet.is_public:
        raise ApiError(403, "the packet has epochs that its survey does not let everyone see")
    name = "".join(c for c in f"{survey}-{alertId}" if c.isascii() and (c.isalnum() or c in "-_"))
    headers = {"Content-Disposition": f'attachment; filename="{name}.avro"'}
    return Response(packet.raw, media_type="application/octet-stream", headers=headers)


def history_rows(sources: Sources, alerts: list[Alert]) -> list[Row]:
    """Return every epoch of an object, oldest first: stored alerts, and what its packets tell.

    The newest packet that can be had tells of detections before the broker's time, of forced
    fluxes and of upper limits; of our own images, forced fluxes are known up to the last visit.
    An epoch that an alert tells of is there once, as the alert.
    """
    rows = [_epoch_of_alert(alert) for alert in alerts]
    known = {(row["band"], round(row["midpointMjdTai"] * 864_000 / 2)) for row in rows}
    forced = [{**row, "kind": "forced"} for row in forced_fluxes(sources, alerts)]
    for entry in (*_told(sources, alerts), *forced):
        tick = round(entry["midpointMjdTai"] * 864_000 / 2)
        if not known & {(entry["band"], tick + d) for d in (-1, 0, 1)}:
            rows.append(_epoch_of_entry(entry))
            known.add((entry["band"], tick))
    return sorted(rows, key=lambda row: row["midpointMjdTai"])


def _told(sources: Sources, alerts: list[Alert]) -> list[dict[str, Any]]:
    for alert in reversed(alerts[-3:]):
        try:
            return sources.packet(alert).history
        except ApiError:
            continue
    return []


def _epoch(mjd: float, band: str | None, flux: Any, flux_err: Any, kind: str) -> Row:
    mag, mag_err = magnitude(flux, flux_err)
    return {
        "midpointMjdTai": mjd,
        "midpointUtc": iso_utc(mjd),
        "band": band,
        "kind": kind,
        "psfFlux": flux,
        "psfFluxErr": flux_err,
        "mag": mag,
        "magErr": mag_err,
        "limitingMag": limit_magnitude(flux_err) if mag is None else None,
    }


def _epoch_of_alert(alert: Alert) -> Row:
    numbers = (alert["band"], alert["psfFlux"], alert["psfFluxErr"])
    return {
        **_epoch(alert["midpointMjdTai"], *numbers, "detection"),
        "diaSourceId": alert["diaSourceId"],
        "reliability": alert["reliability"],
    }


def _epoch_of_entry(entry: dict[str, Any]) -> Row:
    numbers = (entry["band"], entry["psfFlux"], entry["psfFluxErr"])
    epoch = _epoch(entry["midpointMjdTai"], *numbers, entry["kind"])
    return {**epoch, "diaSourceId": None, "reliability": None}


@router.get("/objects/{survey}/{objectId}/history")
def read_history(
    sources: SourcesOf,
    shape: ShapeOf,
    survey: SurveyName,
    objectId: ObjectName,  # noqa: N803
) -> Response:
    """Return every epoch of an object, oldest first: detections, forced fluxes, upper limits.

    `limitingMag` is the magnitude of five sigma where there is no positive flux. Epochs without
    `diaSourceId` come from the history in the newest packet.
    """
    rows = history_rows(sources, whole_object(sources, survey, objectId).alerts)
    return shape.answer(rows, name=f"{survey}-{objectId}-history", around={"total": len(rows)})


@router.get("/resolve")
def resolve(
    sources: SourcesOf,
    q: Annotated[
        str,
        Query(
            description="An id, a name, a place, topic:…, class:…, night:…",
            max_length=200,
            examples=["J100027.91-021204.3"],
        ),
    ],
) -> Response:
    """Tell what a text means: a place, an object or an alert by its id, a topic, a night."""
    asked = parse_question(q, sources.surveys)
    answer: dict[str, Any] = {"kind": asked.kind, "text": asked.text}
    if asked.kind == "place":
        answer |= {"ra": asked.ra, "dec": asked.dec, "radiusArcsec": asked.radius_arcsec}
    if asked.kind == "name":
        answer["matches"] = [
            {"kind": kind, "survey": survey, "id": name}
            for kind, survey, name in sources.find_name(asked.text, asked.survey)
        ]
    return json_response(answer)

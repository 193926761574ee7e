"""The two calls of SkyPortal's plug-in for any broker: a list of alerts, and one of them.

Its administrator enters this broker's address with `/api/v1/skyportal` as the base address; no
code is needed there.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from broker.api.errors import not_found
from broker.api.finding import find, page_of_found
from broker.api.formats import json_response
from broker.api.objects import history_rows
from broker.api.questions import EXAMPLE_ALERT, Cursor, SourcesOf
from broker.api.rows import magnitude, object_name
from broker.api.sources import Alert, Sources
from broker.api.wanted import WantedOf
from broker.units import mjd_tai_to_jd_utc

router = APIRouter(prefix="/skyportal", tags=["virtual observatory"])

_MOST = 500


def candidate(alert: Alert, prior: list[dict[str, Any]]) -> dict[str, Any]:
    """Return an alert in the shape that the plug-in reads.

    Parameters
    ----------
    alert : dict
        As stored.
    prior : list of dict
        Epochs before it, as of `history_rows`.
    """
    return {
        "objectId": object_name(alert),
        "candid": alert["diaSourceId"],
        "survey": alert["survey"],
        "candidate": {
            "candid": alert["diaSourceId"],
            "ra": alert["ra"],
            "dec": alert["dec"],
            **_photometry(alert),
            "drb": alert["reliability"],
            "ndethist": alert["nDiaSources"],
        },
        "prv_candidates": [_photometry(epoch) for epoch in prior],
    }


def _photometry(epoch: dict[str, Any]) -> dict[str, Any]:
    mag, mag_err = magnitude(epoch["psfFlux"], epoch["psfFluxErr"])
    return {
        "jd": float(mjd_tai_to_jd_utc(epoch["midpointMjdTai"])),
        "band": epoch["band"],
        "magpsf": mag,
        "sigmapsf": mag_err,
        "diffmaglim": epoch.get("limitingMag"),
    }


@router.get("/alerts")
def list_alerts(
    sources: SourcesOf,
    wanted: WantedOf,
    limit: Annotated[int, Query(ge=1, le=_MOST, description="Alerts.", examples=[10])] = 100,
    cursor: Cursor = None,
) -> Response:
    """Return alerts in SkyPortal's shape, the newest first; narrowed as any search."""
    found = find(sources, wanted)
    page = page_of_found(found, found.order, sources.store, limit=limit, cursor=cursor or None)
    rows = [candidate(alert, []) for alert in page.rows]
    return json_response({"data": rows, "total": page.total, "next": page.cursor})


@router.get("/alerts/{alertId}")
def read_alert(
    sources: SourcesOf,
    alertId: Annotated[  # noqa: N803  # parameters have wire names
        str,
        Path(
            description="diaSourceId, or an objectId: its newest.",
            max_length=200,
            examples=[EXAMPLE_ALERT],
        ),
    ],
) -> Response:
    """Return an alert, or the newest alert of an object, with all epochs before it."""
    alert = _one(sources, alertId)
    alerts = sources.find_object(alert["survey"], object_name(alert))
    before = [
        epoch
        for epoch in history_rows(sources, alerts)
        if epoch["midpointMjdTai"] < alert["midpointMjdTai"]
    ]
    return json_response({"data": candidate(alert, before)})


def _one(sources: Sources, name: str) -> Alert:
    for kind, survey, found in sources.find_name(name):
        if kind == "alert":
            return sources.alert(survey, found)
        return sources.find_object(survey, found)[-1]
    raise not_found("alert or object", name)

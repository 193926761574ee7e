"""The page of an object: all that is known of it, and how it came to be known."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from broker.api.app import PREFIX
from broker.api.cutouts import COLOR_MAPS, KINDS, STRETCHES, describe
from broker.api.errors import ApiError, not_found
from broker.api.objects import history_rows, summary_of
from broker.api.own_objects import retraction_of, whole_object
from broker.api.questions import SourcesOf
from broker.api.resolve import notations
from broker.api.rows import flat_row, nested_row, object_name
from broker.api.sources import Alert, Packet, Sources
from broker.portal.app import address, as_data, pages_of
from broker.portal.classes import class_history, probabilities
from broker.portal.sky_view import sky_view
from broker.portal.words import matches

router = APIRouter()

_CHART_EPOCHS = 5000
_LINKS = (
    ("SIMBAD", "https://simbad.cds.unistra.fr/simbad/sim-coo?Coord={ra}d{dec}d&Radius=5&Radius.unit=arcsec"),
    ("NED", "https://ned.ipac.caltech.edu/conesearch?in_csys=Equatorial&in_equinox=J2000&ra={ra}d&dec={dec}d&radius=0.1&search_type=Near%20Position%20Search"),
    ("VizieR", "https://vizier.cds.unistra.fr/viz-bin/VizieR-4?-c={ra}{dec}&-c.rs=5"),
    ("Legacy Survey", "https://www.legacysurvey.org/viewer?ra={ra}&dec={dec}&zoom=16&layer=ls-dr10"),
    ("TNS", "https://www.wis-tns.org/search?ra={ra}&decl={dec}&radius=5&coords_unit=arcsec"),
)  # fmt: skip  # addresses do not break


@router.get("/objects/{survey}/{name}")
def show_object(
    request: Request, sources: SourcesOf, survey: str, name: str, alert: str | None = None
) -> Response:
    """Show an object at one of its epochs; the newest one if none is named."""
    whole = whole_object(sources, survey, name)
    alerts = whole.alerts
    shown = _chosen(alerts, alert, name)
    row = flat_row(shown)
    history = history_rows(sources, alerts)[-_CHART_EPOCHS:]
    definitions = list(sources.catalogs.definitions.values())
    outputs = _outputs(sources, shown)
    packet, problem = _packet(sources, shown)
    return pages_of(request).page(
        "object.html",
        api=f"{PREFIX}{address('objects', survey, name)}",
        whole=summary_of(whole),
        retraction=retraction_of(sources, survey, whole.name),
        place=notations(shown["ra"], shown["dec"]),
        alert=row,
        alerts=[flat_row(one) for one in reversed(alerts)],
        chart=as_data({"epochs": history, "shown": shown["diaSourceId"]}),
        n_epochs=len(history),
        cutouts=describe(packet) if packet else [],
        problem=problem,
        sky=sky_view(sources, packet, alerts) if packet else None,
        classes=class_history(alerts),
        probabilities=probabilities(shown),
        kinds=tuple(KINDS),
        stretches=STRETCHES,
        color_maps=COLOR_MAPS,
        matches=matches(shown, definitions),
        outputs=outputs,
        origins=shown["origins"],
        provenance=shown["provenance"],
        links=[
            (label, url.format(ra=f"{shown['ra']:.6f}", dec=f"{shown['dec']:+.6f}"))
            for label, url in _LINKS
        ],
    )


def _chosen(alerts: Sequence[Alert], name: str | None, of: str) -> Alert:
    if name is None:
        return alerts[-1]
    for one in alerts:
        if one["diaSourceId"] == name:
            return one
    raise not_found(f"alert of object {of},", name)


def _packet(sources: Sources, alert: Alert) -> tuple[Packet | None, str | None]:
    try:
        return sources.packet(alert), None
    except ApiError as error:
        return None, error.message


def _outputs(sources: Sources, shown: Alert) -> list[dict[str, Any]]:
    """Return what each version of a module gave for the shown alert, with units and words."""
    columns = sources.contributions.qualified_columns
    rows = []
    for module, values in shown["outputs"].items():
        name, _, version = module.partition("@")
        cells = []
        for column, value in values.items():
            declared = columns.get(f"{module}:{column}")
            cells.append(
                {
                    "name": column,
                    "value": value,
                    "unit": declared.unit if declared else "",
                    "doc": declared.doc if declared else "",
                }
            )
        rows.append({"module": name, "version": version, "cells": cells})
    return rows


@router.get("/alerts/{survey}/{name}")
def show_alert(sources: SourcesOf, survey: str, name: str) -> Response:
    """Go to the page of the alert's object, at the alert's epoch."""
    alert = sources.alert(survey, name)
    place = address("objects", survey, object_name(alert), alert=name)
    return RedirectResponse(place, status_code=303)


@router.get("/alerts/{survey}/{name}/packet")
def show_packet(request: Request, sources: SourcesOf, survey: str, name: str) -> Response:
    """Show all that the packet says, but for its pixels."""
    alert = sources.alert(survey, name)
    packet = sources.packet(alert)
    canonical = {
        key: (f"{len(value)} bytes" if isinstance(value, bytes) else value)
        for key, value in packet.canonical.items()
        if key not in ("history", "origin")
    }
    return pages_of(request).page(
        "packet.html",
        api=f"{PREFIX}{address('alerts', survey, name, 'packet')}",
        alert=nested_row(alert),
        canonical=canonical,
        history=packet.history,
        size=len(packet.raw),
        is_public=packet.is_public,
    )

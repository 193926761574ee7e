"""An object as a report to the Transient Name Server, in the form of its bulk reports."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from broker.alerts.columns import KINDS, UPPER_LIMIT
from broker.errors import ConfigError
from broker.units import ARCSEC_PER_DEG, flux_err_to_mag_err, flux_to_mag, mjd_tai_to_jd_utc

LIMIT_SIGMA = 5.0
"""A limit of a history is told as the flux of so many times its error."""

AB_MAG, POSSIBLE_SUPERNOVA, OTHER_ARCHIVE = "1", "1", "0"
ZTF_FILTERS, ZTF_INSTRUMENT = {"g": "110", "r": "111", "i": "112"}, "196"

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Reporter:
    """Who reports, in the numbers of the Transient Name Server.

    Parameters
    ----------
    names : str
        Authors, as they shall be printed.
    group, source : str
        Numbers of the reporting group and of the group the data are from.
    instrument : str
        Number of the instrument; empty for ZTF's own.
    filters : dict of str to str
        Numbers of the passbands; empty for ZTF's own.
    """

    names: str
    group: str
    source: str
    instrument: str = ""
    filters: Mapping[str, str] = field(default_factory=dict)


def tns_report(alerts: Sequence[Record], history: Sequence[Record], who: Reporter) -> str:
    """Return the report of an object as JSON text.

    Parameters
    ----------
    alerts : sequence of dict
        Its stored alerts, oldest first.
    history : sequence of dict
        Epochs of its oldest packet, for the last limit before the discovery.
    who : Reporter

    Raises
    ------
    ConfigError
        If it is not to be reported: nothing public and brighter than the template, a
        solar-system object, or a passband or instrument whose number is not known.
    """
    seen = [a for a in alerts if a["isPublic"] and a["psfFlux"] > 0.0 and not a["isNegative"]]
    if not seen:
        raise ConfigError("no public alert of it is brighter than the template: not to be reported")
    if any(a.get("ssObjectId") for a in seen):
        raise ConfigError("it is a known solar-system object: not to be reported")
    first = seen[0]
    numbers = _numbers(first["survey"], who)
    best = max(seen, key=lambda a: float(a["snr"]))
    report: dict[str, Any] = {
        "ra": _coordinate(best["ra"], best.get("raErr")),
        "dec": _coordinate(best["dec"], best.get("decErr")),
        "reporting_group_id": who.group,
        "discovery_data_source_id": who.source,
        "reporter": who.names,
        "discovery_datetime": _jd(first["midpointMjdTai"]),
        "at_type": POSSIBLE_SUPERNOVA,
        "internal_name": first["diaObjectId"],
        "non_detection": _non_detection(history, first, numbers),
        "photometry": {
            "photometry_group": {str(i): _point(a, numbers) for i, a in enumerate(seen[:10])}
        },
    }
    return json.dumps({"at_report": {"0": report}}, indent=1, ensure_ascii=False)


def _numbers(survey: str, who: Reporter) -> tuple[str, Mapping[str, str]]:
    if survey == "ztf":
        return who.instrument or ZTF_INSTRUMENT, {**ZTF_FILTERS, **who.filters}
    if not who.instrument or not who.filters:
        raise ConfigError(f"name the numbers of instrument and passbands of survey {survey}")
    return who.instrument, who.filters


def _coordinate(value: float, error: float | None) -> dict[str, str]:
    found = {"value": f"{value:.7f}"}
    if error is not None and error > 0.0:
        found |= {"error": f"{error * ARCSEC_PER_DEG:.3f}", "units": "arcsec"}
    return found


def _jd(mjd_tai: float) -> str:
    return f"{float(mjd_tai_to_jd_utc(mjd_tai)):.6f}"


def _filter(band: str | None, filters: Mapping[str, str]) -> str:
    if band not in filters:
        raise ConfigError(f"the number of passband {band} is not known: name it")
    return filters[band or ""]


def _point(alert: Record, numbers: tuple[str, Mapping[str, str]]) -> dict[str, str]:
    flux, error = float(alert["psfFlux"]), float(alert["psfFluxErr"])
    return {
        "obsdate": _jd(alert["midpointMjdTai"]),
        "flux": f"{float(flux_to_mag(flux)):.3f}",
        "flux_error": f"{float(flux_err_to_mag_err(error, flux)):.3f}",
        "flux_units": AB_MAG,
        "filter_value": _filter(alert["band"], numbers[1]),
        "instrument_value": numbers[0],
    }


def _non_detection(
    history: Sequence[Record], first: Record, numbers: tuple[str, Mapping[str, str]]
) -> dict[str, str]:
    """Return the last limit before the discovery; without one, that there is none here."""
    limits = [
        entry
        for entry in history
        if entry["kind"] in (UPPER_LIMIT, KINDS[UPPER_LIMIT])
        and entry["isPublic"]
        and entry["midpointMjdTai"] < first["midpointMjdTai"]
        and entry["psfFluxErr"]
        and entry["band"] in numbers[1]
    ]
    if not limits:
        remarks = "no limit before the discovery is in its packet"
        return {"archiveid": OTHER_ARCHIVE, "archival_remarks": remarks}
    last = max(limits, key=lambda entry: float(entry["midpointMjdTai"]))
    limit = float(flux_to_mag(LIMIT_SIGMA * float(last["psfFluxErr"])))
    return {
        "obsdate": _jd(last["midpointMjdTai"]),
        "limiting_flux": f"{limit:.3f}",
        "flux_units": AB_MAG,
        "filter_value": _filter(last["band"], numbers[1]),
        "instrument_value": numbers[0],
    }

"""What the service says of itself and its jobs in XML: VOSI, VODataService, TAPRegExt, UWS."""

from collections.abc import Mapping
from datetime import UTC, datetime
from xml.etree.ElementTree import Element, SubElement, register_namespace, tostring

from broker.api.tap.asking import DEFAULT_ROWS, FORMATS, MOST_ROWS
from broker.api.tap.jobs import COMPLETED, DEFAULT_S, ERROR, KEPT_S, MOST_S, Job
from broker.api.tap.tables import INDEXED, KEYS, TapTable

_UWS = "http://www.ivoa.net/xml/UWS/v1.0"
_XLINK = "http://www.w3.org/1999/xlink"
_XSI = "http://www.w3.org/2001/XMLSchema-instance"
_TABLES = "http://www.ivoa.net/xml/VOSITables/v1.0"
_CAPABILITIES = "http://www.ivoa.net/xml/VOSICapabilities/v1.0"
_AVAILABILITY = "http://www.ivoa.net/xml/VOSIAvailability/v1.0"
_PREFIXES = {
    "uws": _UWS,
    "xlink": _XLINK,
    "xsi": _XSI,
    "vosit": _TABLES,
    "vosic": _CAPABILITIES,
    "vosia": _AVAILABILITY,
}
for _prefix, _space in _PREFIXES.items():
    register_namespace(_prefix, _space)

_IN_VALUES = {
    "vs": "http://www.ivoa.net/xml/VODataService/v1.1",
    "vr": "http://www.ivoa.net/xml/VOResource/v1.0",
    "tr": "http://www.ivoa.net/xml/TAPRegExt/v1.0",
}
"""Prefixes that stand in values, where no writer of XML finds them."""

_FEATURES = {
    "ivo://ivoa.net/std/TAPRegExt#features-adqlgeo": (
        "POINT", "CIRCLE", "BOX", "POLYGON", "CONTAINS", "INTERSECTS", "DISTANCE", "AREA",
        "CENTROID", "COORD1", "COORD2",
    ),
    "ivo://ivoa.net/std/TAPRegExt#features-adql-string": ("LOWER", "UPPER", "ILIKE"),
    "ivo://ivoa.net/std/TAPRegExt#features-adql-sets": ("UNION", "EXCEPT", "INTERSECT"),
    "ivo://ivoa.net/std/TAPRegExt#features-adql-common-table": ("WITH",),
    "ivo://ivoa.net/std/TAPRegExt#features-adql-type": ("CAST",),
    "ivo://ivoa.net/std/TAPRegExt#features-adql-offset": ("OFFSET",),
}  # fmt: skip


_DOCUMENTS = {
    "capabilities": "VOSI#capabilities",
    "availability": "VOSI#availability",
    "tables": "VOSI#tables-1.1",
    "examples": "DALI#examples",
}

EXAMPLES = {
    "Objects around a place": (
        "SELECT TOP 100 objectId, survey, ra, dec, nAlerts, mag, DISTANCE(POINT('ICRS', ra, "
        "dec), POINT('ICRS', 150.1, 2.2)) AS away FROM broker.objects WHERE CONTAINS(POINT('ICRS', "
        "ra, dec), CIRCLE('ICRS', 150.1, 2.2, 0.5)) = 1 ORDER BY away"
    ),
    "Alerts of a night": (
        "SELECT TOP 1000 * FROM broker.alerts WHERE night = '20251110' AND snr > 10"
    ),
    "Alerts and objects by topic": (
        "SELECT topics, COUNT(*) AS n, COUNT(DISTINCT objectId) AS objects FROM broker.alerts "
        "GROUP BY topics ORDER BY n DESC"
    ),
}
"""Queries to begin with, by what they ask for."""


def examples() -> bytes:
    """Return queries to begin with as a page that tools read (IVOA DALI-examples 1.0)."""
    root = Element("html", {"xmlns": "http://www.w3.org/1999/xhtml"})
    _child(_child(root, "head"), "title", "Examples")
    body = _child(root, "body", vocab="http://www.ivoa.net/rdf/examples#")
    for number, (name, query) in enumerate(EXAMPLES.items()):
        identity = f"example-{number + 1}"
        part = _child(body, "div", typeof="example", id=identity, resource=f"#{identity}")
        _child(part, "h2", name, property="name")
        _child(part, "pre", query, property="query")
    return _document(root)


def _document(root: Element) -> bytes:
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root)


def _child(parent: Element, tag: str, text: object = None, **attributes: str) -> Element:
    found = SubElement(parent, tag, attributes)
    found.text = None if text is None else str(text)
    return found


def _root(tag: str) -> Element:
    root = Element(tag)
    for prefix, space in _IN_VALUES.items():
        root.set(f"xmlns:{prefix}", space)
    return root


def iso(moment: float | None) -> str:
    """Return seconds since 1970 as ISO 8601, UTC; empty for none."""
    if moment is None:
        return ""
    text = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def availability() -> bytes:
    """Return that the service is there."""
    root = Element(f"{{{_AVAILABILITY}}}availability")
    _child(root, f"{{{_AVAILABILITY}}}available", "true")
    return _document(root)


def table_set(tables: Mapping[str, TapTable]) -> bytes:
    """Return all tables with their columns."""
    root = _root(f"{{{_TABLES}}}tableset")
    schemas: dict[str, Element] = {}
    for table in tables.values():
        if table.schema not in schemas:
            schemas[table.schema] = _child(root, "schema")
            _child(schemas[table.schema], "name", table.schema)
        schemas[table.schema].append(_table(table))
    return _document(root)


def _table(table: TapTable) -> Element:
    found = Element("table", {"type": "table"})
    _child(found, "name", table.name)
    _child(found, "description", table.description)
    for column in table.columns:
        one = _child(found, "column")
        _child(one, "name", '"size"' if column.name == "size" else column.name)
        for tag in ("description", "unit", "ucd"):
            if getattr(column, tag):
                _child(one, tag, getattr(column, tag))
        kind = _child(one, "dataType", column.datatype)
        kind.set(f"{{{_XSI}}}type", "vs:VOTableType")
        if column.arraysize:
            kind.set("arraysize", column.arraysize)
        if column.name in INDEXED:
            _child(one, "flag", "indexed")
    for key in KEYS:
        if key.table == table.name:
            one = _child(found, "foreignKey")
            _child(one, "targetTable", key.target)
            for column_from, column_to in key.columns:
                pair = _child(one, "fkColumn")
                _child(pair, "fromColumn", column_from)
                _child(pair, "targetColumn", column_to)
    return found


def capabilities(base: str) -> bytes:
    """Return what the service can do.

    Parameters
    ----------
    base : str
        Its address.
    """
    root = _root(f"{{{_CAPABILITIES}}}capabilities")
    tap = _child(root, "capability", standardID="ivo://ivoa.net/std/TAP")
    tap.set(f"{{{_XSI}}}type", "tr:TableAccess")
    _interface(tap, base, "base", "1.1", role="std")
    _language(tap)
    for form, names in FORMATS.items():
        output = _child(tap, "outputFormat")
        _child(output, "mime", next(name for name in names if name.count("/") and "td" not in name))
        _child(output, "alias", form)
    _limits(tap, "retentionPeriod", KEPT_S, KEPT_S)
    _limits(tap, "executionDuration", DEFAULT_S, MOST_S)
    output = _child(tap, "outputLimit")
    _child(output, "default", DEFAULT_ROWS, unit="row")
    _child(output, "hard", MOST_ROWS, unit="row")
    for name, standard in _DOCUMENTS.items():
        one = _child(root, "capability", standardID=f"ivo://ivoa.net/std/{standard}")
        _interface(one, f"{base}/{name}", "full", None)
    return _document(root)


def _interface(
    parent: Element, url: str, use: str, version: str | None, role: str | None = None
) -> None:
    more = {name: value for name, value in (("role", role), ("version", version)) if value}
    found = _child(parent, "interface", **more)
    found.set(f"{{{_XSI}}}type", "vs:ParamHTTP")
    _child(found, "accessURL", url, use=use)


def _language(tap: Element) -> None:
    language = _child(tap, "language")
    _child(language, "name", "ADQL")
    for version in ("2.0", "2.1"):
        identity = f"ivo://ivoa.net/std/ADQL#v{version}"
        _child(language, "version", version, **{"ivo-id": identity})
    _child(language, "description", "One SELECT; places are ICRS.")
    for kind, names in _FEATURES.items():
        features = _child(language, "languageFeatures", type=kind)
        for name in names:
            _child(_child(features, "feature"), "form", name)


def _limits(tap: Element, name: str, default: float, hard: float) -> None:
    found = _child(tap, name)
    _child(found, "default", int(default))
    _child(found, "hard", int(hard))


def _uws(tag: str) -> str:
    return f"{{{_UWS}}}{tag}"


def job_list() -> bytes:
    """Return the list of jobs, which is empty: a job is known to who made it."""
    return _document(Element(_uws("jobs"), {"version": "1.1"}))


def job_document(job: Job, url: str) -> bytes:
    """Return a job.

    Parameters
    ----------
    job : Job
    url : str
        Its address.
    """
    root = Element(_uws("job"), {"version": "1.1"})
    _child(root, _uws("jobId"), job.job_id)
    if "RUNID" in job.parameters:
        _child(root, _uws("runId"), _xml(job.parameters["RUNID"]))
    _child(root, _uws("ownerId")).set(f"{{{_XSI}}}nil", "true")
    _child(root, _uws("phase"), job.phase)
    _child(root, _uws("quote")).set(f"{{{_XSI}}}nil", "true")
    _child(root, _uws("creationTime"), iso(job.created))
    for tag, moment in (("startTime", job.started), ("endTime", job.ended)):
        one = _child(root, _uws(tag), iso(moment) or None)
        if moment is None:
            one.set(f"{{{_XSI}}}nil", "true")
    _child(root, _uws("executionDuration"), int(job.duration_s))
    _child(root, _uws("destruction"), iso(job.destruction))
    root.append(_parameters(job))
    root.append(_results(job, url))
    if job.phase == ERROR:
        summary = _child(root, _uws("errorSummary"), type="fatal", hasDetail="true")
        _child(summary, _uws("message"), _xml(job.error or ""))
    return _document(root)


def parameters_document(job: Job) -> bytes:
    """Return what a job was asked."""
    return _document(_parameters(job))


def results_document(job: Job, url: str) -> bytes:
    """Return where the answer to a job is."""
    return _document(_results(job, url))


def _parameters(job: Job) -> Element:
    root = Element(_uws("parameters"))
    for name, value in job.parameters.items():
        _child(root, _uws("parameter"), _xml(value), id=_xml(name))
    return root


def _results(job: Job, url: str) -> Element:
    root = Element(_uws("results"))
    if job.phase == COMPLETED:
        one = _child(root, _uws("result"), id="result", size=str(job.size))
        one.set("mime-type", job.media_type)
        one.set(f"{{{_XLINK}}}type", "simple")
        one.set(f"{{{_XLINK}}}href", f"{url}/results/result")
    return root


def _xml(text: str) -> str:
    """Return a text without what no XML can say."""
    return "".join(c if c in "\t\n\r" or c >= " " else "\ufffd" for c in text)

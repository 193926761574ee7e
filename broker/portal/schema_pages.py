"""The schema browser: every field of what is published, with its type and what it means."""

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import APIRouter, Request, Response

from broker.api.app import PREFIX
from broker.api.errors import not_found
from broker.api.questions import SourcesOf
from broker.portal.app import pages_of

router = APIRouter()


@router.get("/schemas")
def show_schemas(request: Request, sources: SourcesOf) -> Response:
    """Show the schemas of what this run publishes."""
    rows = [
        {"id": number, "name": schema.get("name"), "fields": sum(1 for _ in fields_of(schema))}
        for number, schema in sorted(sources.schemas().items())
    ]
    return pages_of(request).page("schemas.html", api=f"{PREFIX}/schemas", schemas=rows)


@router.get("/schemas/{number}")
def show_schema(request: Request, sources: SourcesOf, number: str) -> Response:
    """Show a schema, field by field."""
    if not (number.isascii() and number.isdigit() and len(number) < 12):
        raise not_found("schema", number, map(str, sorted(sources.schemas())))
    schema = sources.schema(int(number))
    return pages_of(request).page(
        "schema.html",
        api=f"{PREFIX}/schemas/ids/{number}",
        number=number,
        schema=schema,
        fields=list(fields_of(schema)),
    )


def fields_of(schema: Mapping[str, Any], within: str = "") -> Iterator[dict[str, Any]]:
    """Yield the fields of a record, those of inner records after the field that holds them.

    Each has `name` (`outer.inner`), `type` in words, `isNull` (whether it may be null), `doc`.
    """
    for field in schema.get("fields", ()):
        name = f"{within}.{field['name']}" if within else field["name"]
        kinds = field["type"] if isinstance(field["type"], list) else [field["type"]]
        solid = [kind for kind in kinds if kind != "null"]
        yield {
            "name": name,
            "type": " or ".join(_words(kind) for kind in solid),
            "isNull": "null" in kinds,
            "doc": field.get("doc", ""),
        }
        for kind in solid:
            inner = kind.get("items", kind) if isinstance(kind, dict) else {}
            if isinstance(inner, list):
                inner = next((one for one in inner if isinstance(one, dict)), {})
            if isinstance(inner, dict) and inner.get("type") == "record":
                yield from fields_of(inner, name)


def _words(kind: Any) -> str:
    if isinstance(kind, list):
        return " or ".join(_words(one) for one in kind if one != "null")
    if not isinstance(kind, dict):
        return str(kind)
    if kind["type"] == "array":
        return f"list of {_words(kind['items'])}"
    if kind["type"] == "map":
        return f"map to {_words(kind['values'])}"
    if kind["type"] in ("record", "enum", "fixed"):
        return f"{kind['type']} {kind.get('name', '')}".strip()
    return (
        f"{kind['type']} ({kind['logicalType']})" if "logicalType" in kind else _words(kind["type"])
    )

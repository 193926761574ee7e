"""Parts that questions share: surveys, ids, formats, columns, pages."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request, Response
from fastapi.routing import APIRoute

from broker.api.errors import ApiError
from broker.api.formats import FORMATS, choose_format, json_response, table_response
from broker.api.pages import Page
from broker.api.rows import Row, projected
from broker.api.sources import Sources

EXAMPLE_SURVEY, EXAMPLE_OBJECT, EXAMPLE_ALERT = "ztf", "ZTF24qmscadj", "2301100000015000000"
EXAMPLE_NIGHT, EXAMPLE_TOPIC, EXAMPLE_SCHEMA = "20230420", "young-supernova", 418166038
MAX_ROWS = 10_000

SurveyName = Annotated[
    str, Path(description="sim, ztf or lsst.", examples=[EXAMPLE_SURVEY], max_length=40)
]
ObjectName = Annotated[
    str,
    Path(
        description="diaObjectId; ss: and the ssObjectId for a solar-system object.",
        examples=[EXAMPLE_OBJECT],
        max_length=200,
    ),
]
AlertName = Annotated[
    str, Path(description="diaSourceId.", examples=[EXAMPLE_ALERT], max_length=200)
]
Cursor = Annotated[
    str | None, Query(description="`next` of the last answer.", max_length=500, examples=[""])
]
Limit = Annotated[int, Query(ge=1, le=MAX_ROWS, description="Rows of one answer.", examples=[100])]


def sources_of(request: Request) -> Sources:
    """Return the stores that the application reads."""
    found: Sources = request.app.state.sources
    return found


SourcesOf = Annotated[Sources, Depends(sources_of)]


_LENIENT = ("/tap", "/account/openid")
"""There, and in `/vo/`, what is not known must be ignored: as the standards say; OpenID providers
send more back than they have to."""


def refuse_unknown(request: Request) -> None:
    """Refuse a question with a parameter that would be ignored: its answer would be wrong."""
    route = request.scope.get("route")
    if not isinstance(route, APIRoute) or "/vo/" in route.path or route.path.startswith(_LENIENT):
        return
    known = list(dict.fromkeys(_query_names(route.dependant)))
    unknown = sorted(set(request.query_params) - set(known))
    if unknown:
        raise ApiError(400, f"there is no parameter {unknown[0]!r} here", known)


def _query_names(dependant: Any) -> Iterator[str]:
    yield from (parameter.alias for parameter in dependant.query_params)
    for inner in dependant.dependencies:
        yield from _query_names(inner)


@dataclass(frozen=True)
class Shape:
    """How a table is wanted: its format and its columns."""

    form: str
    columns: tuple[str, ...] | None

    def answer(
        self, rows: list[Row], *, name: str, around: dict[str, Any] | None = None
    ) -> Response:
        """Return rows: in JSON as `data` beside what is `around`, else as a table."""
        if self.form == "json":
            return json_response({**(around or {}), "data": projected(rows, self.columns)})
        return table_response(rows, name=name, form=self.form, columns=self.columns)

    def answer_page(self, page: Page[Row], *, name: str) -> Response:
        """Return a part of an answer: JSON says `total` and `next`, others have headers."""
        headers = {"X-Total-Count": str(page.total)}
        if page.cursor is not None:
            headers["X-Next-Cursor"] = page.cursor
        if self.form == "json":
            data = projected(page.rows, self.columns)
            return json_response({"data": data, "total": page.total, "next": page.cursor}, headers)
        return table_response(
            page.rows, name=name, form=self.form, columns=self.columns, headers=headers
        )


def shape_of(
    request: Request,
    form: Annotated[
        str | None,
        Query(
            alias="format",
            description=f"{', '.join(FORMATS)}; else by the header Accept; else json.",
            examples=["json"],
        ),
    ] = None,
    columns: Annotated[
        str | None,
        Query(
            description="Names of columns with commas between; default all.",
            examples=["diaSourceId,midpointMjdTai,band,psfFlux"],
            max_length=4000,
        ),
    ] = None,
) -> Shape:
    """Return how the table is wanted."""
    names = tuple(name.strip() for name in columns.split(",")) if columns else None
    return Shape(choose_format(form, request.headers.get("accept", "")), names)


ShapeOf = Annotated[Shape, Depends(shape_of)]

"""The web application: routes, errors, limits and the headers of every answer."""

import logging
from collections.abc import Awaitable, Callable

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from broker import __version__
from broker.api import (
    cutouts,
    objects,
    search,
    sky_maps,
    skyportal,
    solar_system,
    statistics,
    system,
    topics,
    vo,
)
from broker.api.access import limited_as
from broker.api.errors import ApiError
from broker.api.formats import MEDIA_TYPES, json_response, votable_error
from broker.api.limits import TokenBuckets
from broker.api.metrics import router as metrics_router
from broker.api.questions import refuse_unknown
from broker.api.sources import Sources
from broker.errors import BrokerError, ServiceError

PREFIX = "/api/v1"

_LOG = logging.getLogger(__name__)

_ABOUT = (
    "Alerts as they were judged and kept. Identifiers are text; times are MJD (TAI) and ISO 8601 "
    "(UTC); positions degrees (ICRS); fluxes nJy; null means not computed or not said, never a "
    "number. Tables come as JSON, CSV, VOTable or Parquet. An error is a JSON object with a "
    "sentence in `error` and what may be asked instead in `allowed`. Alerts that their survey "
    "does not let everyone see are never served."
)

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
"""What every answer carries: no script or style but our own files, no request elsewhere."""

ErrorPage = Callable[[Request, int, str, tuple[str, ...]], Response]


def make_app(sources: Sources, *, requests_per_s: float = 20.0, burst: int = 200) -> FastAPI:
    """Return the application with the API; the portal adds its pages to it.

    Parameters
    ----------
    sources : Sources
        What it reads.
    requests_per_s, burst : float, int
        What one client may send: for long, and at once. [1/s]
    """
    app = FastAPI(
        title="Nightjar broker",
        version=__version__,
        description=_ABOUT,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,  # its page loads scripts from elsewhere; ours does not
        redoc_url=None,
        dependencies=[Depends(refuse_unknown)],
    )
    app.state.sources = sources
    app.state.error_page = None
    app.state.sky_maps = sky_maps.SkyMaps()
    app.state.buckets = TokenBuckets(per_s=requests_per_s, burst=burst)
    for part in _PARTS:
        app.include_router(part.router, prefix=PREFIX, responses=_ERRORS)
    app.include_router(topics.registry_router, include_in_schema=False)
    app.include_router(metrics_router)
    app.middleware("http")(_guard)
    app.exception_handler(ApiError)(_say_api_error)
    app.exception_handler(ServiceError)(_say_service_error)
    app.exception_handler(BrokerError)(_say_broker_error)
    app.exception_handler(RequestValidationError)(_say_invalid)
    app.exception_handler(HTTPException)(_say_http_error)
    return app


_PARTS = (
    search,
    objects,
    cutouts,
    topics,
    system,
    statistics,
    sky_maps,
    solar_system,
    vo,
    skyportal,
)
"""Modules with a router each."""

_REGISTRY_CODES = {404: 40403, 500: 50001}
"""What a schema registry calls these: no such schema, an error of the store."""

_ERROR = {
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    "error": {"type": "string"},
                    "allowed": {"type": "array", "items": {"type": "string"}},
                },
            }
        }
    }
}
_ERRORS: dict[int | str, dict[str, object]] = {
    status: {"description": words, **_ERROR}
    for status, words in {
        400: "The question cannot be understood.",
        403: "Not for everyone.",
        404: "There is no such thing.",
        406: "No answer in that format.",
        422: "A value is not allowed.",
        429: "Too many questions; Retry-After says when to ask again.",
        503: "A store does not answer.",
    }.items()
}


async def _guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Hold a client to its limit; add the headers of every answer."""
    is_file = request.url.path.startswith("/static/")
    wait_s = 0 if is_file else request.app.state.buckets.take(*limited_as(request))
    if wait_s:
        response = _say(request, 429, f"too many requests; ask again in {wait_s} s")
        response.headers["Retry-After"] = str(wait_s)
    else:
        response = await call_next(request)
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _say(request: Request, status: int, words: str, allowed: tuple[str, ...] = ()) -> Response:
    """Return an error: a page for a browser on a page's address, else JSON."""
    page: ErrorPage | None = request.app.state.error_page
    path = request.url.path
    if path == "/tap" or path.startswith("/tap/"):  # as the Virtual Observatory's tools read it
        words = f"{words}; allowed: {', '.join(allowed)}" if allowed else words
        return Response(votable_error(words), status, media_type=MEDIA_TYPES["votable"])
    if page is not None and not path.startswith(("/api/", "/schemas/ids/")):
        return page(request, status, words, allowed)
    said: dict[str, object] = {"error": words, "allowed": list(allowed)}
    if path.startswith("/schemas/ids/"):  # as clients of schema registries read it
        said |= {"error_code": _REGISTRY_CODES.get(status, status), "message": words}
    response = json_response(said)
    response.status_code = status
    return response


def _say_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)  # noqa: S101  # it is registered for that class
    return _say(request, error.status, error.message, error.allowed)


def _say_service_error(request: Request, error: Exception) -> Response:
    _LOG.warning("a store does not answer: %s", error)
    response = _say(request, 503, "a store does not answer; try again later")
    response.headers["Retry-After"] = "10"
    return response


def _say_broker_error(request: Request, error: Exception) -> Response:
    _LOG.error("a question failed: %s", error)
    return _say(request, 500, "the broker's set-up does not let it answer this")


def _say_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101  # as above
    problems = [
        f"{'.'.join(str(part) for part in one['loc'][1:]) or one['loc'][0]}: {one['msg']}; "
        f"got {str(one.get('input'))[:80]!r}"
        for one in error.errors()
    ]
    return _say(request, 422, "; ".join(problems[:5]))


def _say_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # as above
    words = {404: "there is no such page", 405: "this is asked with another method"}
    response = _say(request, error.status_code, words.get(error.status_code, str(error.detail)))
    response.headers.update(error.headers or {})
    return response

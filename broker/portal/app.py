"""The pages: each one made from what the API answers, and naming the call that answers it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.staticfiles import StaticFiles

from broker import __version__
from broker.api.app import PREFIX
from broker.api.formats import plain
from broker.api.sources import Sources
from broker.portal import words

if TYPE_CHECKING:
    from broker.portal.openid import Provider

_FOLDER = Path(__file__).parent


class Pages:
    """Templates with what all pages share.

    Parameters
    ----------
    sources : Sources
        Whose run is shown.
    """

    def __init__(self, sources: Sources) -> None:
        self.has_watchlists = sources.watchlists is not None
        self._environment = Environment(
            loader=FileSystemLoader(_FOLDER / "templates"),
            autoescape=select_autoescape(default=True, default_for_string=True),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= words.FILTERS
        self._environment.globals |= {
            "run": sources.run.name,
            "version": __version__,
            "prefix": PREFIX,
            "has_watchlists": self.has_watchlists,
        }

    def page(
        self, template: str, *, api: str | None = None, status: int = 200, **values: Any
    ) -> Response:
        """Return a page; `api` is the call that gives the same to a program."""
        text = self._environment.get_template(template).render(api=api, **values)
        return HTMLResponse(text, status_code=status)


def address(*parts: str, **query: Any) -> str:
    """Return an address of parts, each made safe, and a query."""
    path = "/" + "/".join(quote(part, safe=":") for part in parts)
    return path + ("?" + urlencode(query) if query else "")


def as_data(value: Any) -> str:
    """Return JSON for a `script` element that is data: no `<` ends it early."""
    text = json.dumps(plain(value))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def add_portal(app: FastAPI, openid: "Provider | None" = None) -> None:
    """Add the pages to an application that has the API.

    Parameters
    ----------
    app : FastAPI
    openid : Provider, optional
        With whom people may sign in, besides with their tokens.
    """
    from broker.portal import (
        account,
        object_page,
        pages,
        periods,
        schema_pages,
        search_pages,
        statistics,
        watchlists,
    )

    shared = Pages(app.state.sources)
    app.state.pages = shared
    app.state.error_page = lambda request, status, text, allowed: _error_page(
        shared, request, status, text, allowed
    )
    app.mount("/static", StaticFiles(directory=_FOLDER / "static"), name="static")
    parts = (pages, search_pages, object_page, schema_pages, statistics)
    for router in (part.router for part in parts):
        app.include_router(router, include_in_schema=False)
    app.include_router(periods.router)
    if shared.has_watchlists:
        app.state.openid = openid
        app.state.sessions = account.Sessions()
        for part in (account, watchlists):
            app.include_router(part.router, include_in_schema=False)


def _error_page(
    pages: Pages, request: Request, status: int, text: str, allowed: tuple[str, ...]
) -> Response:
    q = request.query_params.get("q", "")[:200]
    return pages.page("error.html", status=status, code=status, text=text, allowed=allowed, q=q)


def pages_of(request: Request) -> Pages:
    """Return the templates of the application."""
    found: Pages = request.app.state.pages
    return found

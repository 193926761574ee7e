"""The link in a message that ends a subscription."""

from typing import Annotated

from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.responses import HTMLResponse

from broker.api.errors import ApiError
from broker.ops.push import PushBook

router = APIRouter(tags=["subscriptions"])

Token = Annotated[str, Query(description="From a message.", max_length=300)]

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<body><h1>{title}</h1>{body}</body></html>"""
_FORM = '<form method="post"><button>End these messages</button></form>'


def add_push(app: FastAPI, book: PushBook, *, prefix: str) -> None:
    """Add the calls to an application.

    Parameters
    ----------
    app : FastAPI
    book : PushBook
        The run's subscriptions; one whose token is shown can be removed, nothing else.
    prefix : str
        `/api/v1`.
    """
    app.state.push_book = book
    app.include_router(router, prefix=prefix)


@router.get("/unsubscribe", response_class=HTMLResponse)
def ask_unsubscribe(request: Request, token: Token) -> Response:
    """Return a page with a button; a program that only follows links ends nothing."""
    _name(request, token)
    return HTMLResponse(_PAGE.format(title="Messages of alerts", body=_FORM))


@router.post("/unsubscribe", response_class=HTMLResponse)
def unsubscribe(request: Request, token: Token) -> Response:
    """End a subscription; again is no error. Mail programs post here for their button, too."""
    request.app.state.push_book.remove(_name(request, token))
    return HTMLResponse(_PAGE.format(title="No more messages", body="<p>It has ended.</p>"))


def _name(request: Request, token: str) -> str:
    book: PushBook = request.app.state.push_book
    name = book.name_of(token)
    if name is None:
        raise ApiError(403, "this link is not one of ours, or not whole")
    return name

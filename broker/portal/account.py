"""Signing in: guests read what is public, an owner also sees and changes their own."""

import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from broker.api.app import PREFIX
from broker.api.errors import ApiError
from broker.api.limits import TokenBuckets
from broker.api.watchlists import lists_for, read_body
from broker.errors import ServiceError
from broker.ops.tokens import READ, Grant, Tokens
from broker.portal.app import pages_of

if TYPE_CHECKING:  # it takes a third of a second, and most have no provider
    from broker.portal.openid import Provider

COOKIE = "session"
LIFETIME_S = 12 * 3600
"""How long one stays signed in. [s]"""

LEAVE = "/account/openid"
BACK = f"{LEAVE}/back"
"""Where a provider sends people back to, under the address of the portal."""

WAIT_S = 600.0
"""How long someone may take at the provider. [s]"""

_STATE = "sign-in"
_MOST, _FORM_BYTES = 10_000, 4096
_TRIES_PER_S, _TRIES = 0.1, 10

_LOG = logging.getLogger(__name__)

Look = Callable[[], Grant | None]

router = APIRouter()


class Sessions:
    """Who is signed in: random names of sessions, in memory; a new start of the server ends all.

    A session asks each time what its holder may, so that it ends when that is taken back.

    Parameters
    ----------
    clock : callable
        Seconds that only rise.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._open: OrderedDict[str, tuple[Look, float]] = OrderedDict()
        self.tries = TokenBuckets(per_s=_TRIES_PER_S, burst=_TRIES, clock=clock)

    def begin(self, look: Look) -> str | None:
        """Return the name of a new session; None if its holder may not see anything.

        Parameters
        ----------
        look : callable
            What its holder may; None if they may nothing any more.
        """
        found = look()
        if found is None or not found.may(READ):
            return None
        name = secrets.token_urlsafe(32)
        with self._lock:
            self._open[name] = look, self._clock() + LIFETIME_S
            if len(self._open) > _MOST:
                self._open.popitem(last=False)
        return name

    def grant(self, name: str) -> Grant | None:
        """Return what who is signed in under a name of a session may; None if nobody is."""
        with self._lock:
            look, until = self._open.get(name, (None, 0.0))
            if look is not None and until < self._clock():
                del self._open[name]
                look = None
        return look() if look is not None else None

    def end(self, name: str) -> None:
        """Sign out."""
        with self._lock:
            self._open.pop(name, None)


def signed_in(request: Request, scope: str = READ) -> str | None:
    """Return who asks; None for a guest, or if their token is not for that."""
    sessions: Sessions = request.app.state.sessions
    found = sessions.grant(request.cookies.get(COOKIE, ""))
    return found.name if found is not None and found.may(scope) else None


async def read_form(request: Request, most: int) -> dict[str, str]:
    """Return the fields of a form that was sent from one of our own pages.

    Raises
    ------
    ApiError
        400 if it cannot be read, 403 if it comes from elsewhere, 413 if it is too long.
    """
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise ApiError(403, "a form is sent from the broker's own page")
    body = await read_body(request, most)
    try:
        return {k: v[0] for k, v in parse_qs(body.decode("utf-8"), max_num_fields=20).items()}
    except ValueError as error:
        raise ApiError(400, "the form cannot be read") from error


@router.get("/account")
def account(request: Request) -> Response:
    """Show who is signed in, or the form to do so."""
    return _page(request, signed_in(request))


@router.post("/account")
async def change(request: Request) -> Response:
    """Sign in with a token, or out."""
    fields = await read_form(request, _FORM_BYTES)
    if fields.get("do") == "sign-out":
        return _sign_out(request)
    return _sign_in(request, fields)


def _sign_in(request: Request, fields: Mapping[str, str]) -> Response:
    late = _too_many(request)
    if late is not None:
        return late
    tokens: Tokens = request.app.state.watch_owners
    look = partial(tokens.find, fields.get("token", "").strip())
    return _opened(request, look) or _page(
        request, None, problem="This token is none of ours, or not to read with", status=401
    )


def _too_many(request: Request) -> Response | None:
    sessions: Sessions = request.app.state.sessions
    wait_s = sessions.tries.take(request.client.host if request.client else "unknown")
    if not wait_s:
        return None
    answer = _page(request, None, problem=f"Too many tries; again in {wait_s} s", status=429)
    answer.headers["Retry-After"] = str(wait_s)
    return answer


def _opened(request: Request, look: Look) -> Response | None:
    """Return the page of someone for whom a session has begun; None if they may see nothing."""
    sessions: Sessions = request.app.state.sessions
    found, name = look(), sessions.begin(look)
    if found is None or name is None:
        return None
    answer = _page(request, found.name)
    answer.set_cookie(COOKIE, name, max_age=LIFETIME_S, path="/", httponly=True,
                      samesite="strict", secure=_is_encrypted(request))  # fmt: skip
    return answer


def _is_encrypted(request: Request) -> bool:
    return request.url.scheme == "https"


def _provider(request: Request) -> "Provider":
    found: Provider | None = request.app.state.openid
    if found is None:
        raise ApiError(404, "nobody is signed in with a provider here")
    return found


def _silent(request: Request, provider: "Provider", error: ServiceError) -> Response:
    _LOG.warning("nobody can be signed in by their provider: %s", error)
    problem = f"{provider.name} does not answer as it should; try later, or use a token"
    return _page(request, None, problem=problem, status=503)


@router.get(LEAVE)
def leave(request: Request) -> Response:
    """Send someone to the provider, to say there who they are."""
    late = _too_many(request)
    if late is not None:
        return late
    provider = _provider(request)
    try:
        where, state = provider.begin()
    except ServiceError as error:
        return _silent(request, provider, error)
    answer = RedirectResponse(where, status_code=303)
    # Not strict: it has to come with someone whom the provider sends back.
    answer.set_cookie(_STATE, state, max_age=int(WAIT_S), path=LEAVE, httponly=True,
                      samesite="lax", secure=_is_encrypted(request))  # fmt: skip
    answer.headers["Cache-Control"] = "no-store"
    return answer


@router.get(BACK)
def come_back(request: Request) -> Response:
    """Sign someone in whom the provider sends back."""
    provider = _provider(request)
    asked = request.query_params
    state = asked.get("state", "")
    if not secrets.compare_digest(state.encode(), request.cookies.get(_STATE, "").encode()):
        raise ApiError(400, "this way to sign in was not begun in this browser")
    if "error" in asked:
        problem = f"{provider.name} does not say who you are: {asked['error'][:100]}"
        return _page(request, None, problem=problem, status=401)
    try:
        known_as = provider.finish(state, asked.get("code", ""))
    except ServiceError as error:
        return _silent(request, provider, error)
    tokens: Tokens = request.app.state.watch_owners
    found = tokens.find_openid(known_as)
    opened = None
    if found is not None and found.openid is not None:
        opened = _opened(request, partial(tokens.held_by, found.name, found.openid))
    if opened is None:
        problem = (f"{provider.name} knows you as {' and '.join(sorted(known_as))}, who is none of "
                   "ours or may not read; ask who runs the broker")  # fmt: skip
        return _page(request, None, problem=problem, status=403)
    opened.headers["Refresh"] = "0; url=/account"  # the address of this page serves only once
    opened.delete_cookie(_STATE, path=LEAVE, httponly=True, samesite="lax")
    return opened


def _sign_out(request: Request) -> Response:
    sessions: Sessions = request.app.state.sessions
    sessions.end(request.cookies.get(COOKIE, ""))
    answer = _page(request, None, said="You are signed out")
    answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return answer


def _page(
    request: Request, owner: str | None, *, said: str = "", problem: str = "", status: int = 200
) -> Response:
    mine = [one for one in lists_for(request, owner) if one.owner == owner] if owner else []
    openid: Provider | None = request.app.state.openid
    provider = openid.name if openid is not None else None
    answer = pages_of(request).page(
        "account.html", api=f"{PREFIX}/watchlists", status=status,
        owner=owner, n_lists=len(mine), said=said, problem=problem, provider=provider,
    )  # fmt: skip
    answer.headers["Cache-Control"] = "no-store"
    return answer

"""Signing in with a token: guests read what is public, an owner also sees and changes their own."""

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from urllib.parse import parse_qs, urlsplit

from fastapi import APIRouter, Request, Response

from broker.api.app import PREFIX
from broker.api.errors import ApiError
from broker.api.limits import TokenBuckets
from broker.api.watchlists import lists_for, read_body
from broker.ops.tokens import READ, Grant
from broker.portal.app import pages_of

COOKIE = "session"
LIFETIME_S = 12 * 3600
"""How long one stays signed in. [s]"""

_MOST, _FORM_BYTES = 10_000, 4096
_TRIES_PER_S, _TRIES = 0.1, 10

router = APIRouter()


class Sessions:
    """Who is signed in: random names of sessions, in memory; a new start of the server ends all.

    A session keeps the token that began it, so that it ends when the token is taken back.

    Parameters
    ----------
    find : callable
        What a token is for; None if it is none.
    clock : callable
        Seconds that only rise.
    """

    def __init__(
        self, find: Callable[[str], Grant | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._find, self._clock = find, clock
        self._lock = threading.Lock()
        self._open: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self.tries = TokenBuckets(per_s=_TRIES_PER_S, burst=_TRIES, clock=clock)

    def begin(self, token: str) -> str | None:
        """Return the name of a new session; None if the token is none that may see anything."""
        found = self._find(token)
        if found is None or not found.may(READ):
            return None
        name = secrets.token_urlsafe(32)
        with self._lock:
            self._open[name] = token, self._clock() + LIFETIME_S
            if len(self._open) > _MOST:
                self._open.popitem(last=False)
        return name

    def grant(self, name: str) -> Grant | None:
        """Return what who is signed in under a name of a session may; None if nobody is."""
        with self._lock:
            token, until = self._open.get(name, ("", 0.0))
            if token and until < self._clock():
                del self._open[name]
                token = ""
        return self._find(token) if token else None

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
    sessions: Sessions = request.app.state.sessions
    wait_s = sessions.tries.take(request.client.host if request.client else "unknown")
    if wait_s:
        answer = _page(request, None, problem=f"Too many tries; again in {wait_s} s", status=429)
        answer.headers["Retry-After"] = str(wait_s)
        return answer
    token = fields.get("token", "").strip()
    name = sessions.begin(token)
    if name is None:
        return _page(request, None, problem="This token is none of ours, or not to read with",
                     status=401)  # fmt: skip
    answer = _page(request, request.app.state.watch_owners.name_of(token, READ))
    answer.set_cookie(COOKIE, name, max_age=LIFETIME_S, path="/", httponly=True,
                      samesite="strict", secure=request.url.scheme == "https")  # fmt: skip
    return answer


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
    answer = pages_of(request).page(
        "account.html", api=f"{PREFIX}/watchlists", status=status,
        owner=owner, n_lists=len(mine), said=said, problem=problem,
    )  # fmt: skip
    answer.headers["Cache-Control"] = "no-store"
    return answer

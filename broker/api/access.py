"""Who asks, by the token that a request carries, and what they may."""

from fastapi import Request

from broker.api.errors import ApiError
from broker.ops.tokens import Grant, Tokens


def bearer_of(authorization: str | None) -> str | None:
    """Return the token of a header `Authorization: Bearer …`; None if it has none."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def asking(tokens: Tokens, authorization: str | None) -> Grant | None:
    """Return who asks; None without a token. ApiError 401 if the token is none of ours."""
    if not authorization:
        return None
    token = bearer_of(authorization)
    found = None if token is None else tokens.find(token)
    if found is None:
        raise ApiError(
            401, "this token is none of ours, or has ended: `broker token add` makes one"
        )
    return found


def required(tokens: Tokens, authorization: str | None, scope: str) -> Grant:
    """Return who asks.

    Raises
    ------
    ApiError
        401 without a token or with none of ours, 403 if it is for something else.
    """
    found = asking(tokens, authorization)
    if found is None:
        raise ApiError(
            401, f"this takes a token: `broker token add NAME --scope {scope}` makes one"
        )
    if not found.may(scope):
        raise ApiError(403, f"this token is for {', '.join(found.scopes)}; this takes {scope}")
    return found


def limited_as(request: Request) -> tuple[str, float | None]:
    """Return by what a request's limit is counted, and its own rate: token or address. [1/s]"""
    tokens: Tokens | None = getattr(request.app.state, "tokens", None)
    token = bearer_of(request.headers.get("authorization"))
    found = tokens.find(token) if tokens is not None and token is not None else None
    if found is not None:
        return f"token {found.name}", found.per_s
    return request.client.host if request.client else "unknown", None

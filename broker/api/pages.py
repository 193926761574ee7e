"""Parts of long answers: a cursor says after which row the next part begins."""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from broker.api.errors import ApiError

T = TypeVar("T")


@dataclass(frozen=True)
class Page(Generic[T]):
    """A part of an answer.

    Parameters
    ----------
    rows : list
        The part.
    total : int
        Rows of the whole.
    cursor : str or None
        Where the next part begins; None if this is the last.
    """

    rows: list[T]
    total: int
    cursor: str | None


def encode_cursor(place: Any) -> str:
    """Return a place in an answer as text that fits into an address."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def decode_cursor(text: str) -> Any:
    """Return the place of a cursor; ApiError if it is none of ours."""
    try:
        return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, binascii.Error) as error:
        raise ApiError(400, "the cursor is not one that an answer gave") from error


def page_of(
    rows: Sequence[T], *, key: Callable[[T], Sequence[Any]], limit: int, cursor: str | None
) -> Page[T]:
    """Return the part of sorted rows after a cursor.

    Rows that are added while a client turns the pages neither repeat nor hide others, because a
    cursor names the last row that was seen, not a number.
    """
    start = 0
    if cursor is not None:
        last = decode_cursor(cursor)
        try:
            start = next((i for i, row in enumerate(rows) if list(key(row)) > last), len(rows))
        except TypeError as error:
            raise ApiError(400, "the cursor belongs to another question") from error
    part = list(rows[start : start + limit])
    more = start + limit < len(rows)
    return Page(part, len(rows), encode_cursor(list(key(part[-1]))) if part and more else None)

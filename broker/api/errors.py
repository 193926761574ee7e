"""What is said to a client whose question cannot be answered."""

from collections.abc import Iterable

from broker.errors import BrokerError


class ApiError(BrokerError):
    """A question that cannot be answered: becomes an HTTP status and a sentence.

    Parameters
    ----------
    status : int
        HTTP status, 4xx or 503.
    message : str
        What was found and what to do.
    allowed : iterable of str
        What may stand in its place.
    """

    def __init__(self, status: int, message: str, allowed: Iterable[str] = ()) -> None:
        allowed = tuple(allowed)
        super().__init__(message, status=status, allowed=allowed)
        self.status = status
        self.allowed = allowed

    def __reduce__(self) -> tuple[type["ApiError"], tuple[int, str, tuple[str, ...]]]:
        return (ApiError, (self.status, self.message, self.allowed))


def not_found(what: str, name: str, allowed: Iterable[str] = ()) -> ApiError:
    """Return the error for something that is not there."""
    allowed = tuple(allowed)
    hint = f"; there are {', '.join(allowed)}" if allowed else ""
    return ApiError(404, f"there is no {what} {name!r}{hint}", allowed)

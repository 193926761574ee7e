"""Every error that the broker raises on purpose.

Three kinds, three fates: no work is not an error (return an empty result); bad data is an
`AlertError` (it becomes a dead letter, the stream goes on); a wrong set-up is a `ConfigError`
(stop and say what to do). `ServiceError` is a server that does not answer.
"""

from typing import Any


class BrokerError(Exception):
    """The root of all errors raised by the broker.

    Parameters
    ----------
    message : str
        What was found, what is allowed, what to do.
    **data
        Values and identifiers that belong to the error. They survive pickling, because an
        error crosses processes under Spark.
    """

    exit_code = 1

    def __init__(self, message: str, **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, self.data))


def _rebuild(kind: type[BrokerError], message: str, data: dict[str, Any]) -> BrokerError:
    return kind(message, **data)


class AlertError(BrokerError):
    """A packet or an image that cannot be used: it becomes a dead letter."""

    exit_code = 20


class ConfigError(BrokerError):
    """A set-up that cannot work: the program stops before it touches data."""

    exit_code = 21


class ServiceError(BrokerError):
    """A server that does not start, or does not answer."""

    exit_code = 21

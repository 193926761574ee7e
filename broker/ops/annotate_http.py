"""One request over HTTP that ends in time, whatever the other side does."""

import http.client
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from broker.errors import ConfigError, ServiceError

MAX_BYTES = 8 << 20
_CHUNK = 1 << 16


class MomentaryError(ServiceError):
    """A failure that may be none the next time; `data["retry_after_s"]` if the server says when."""


@dataclass(frozen=True)
class Address:
    """Where a service is."""

    scheme: str
    host: str
    port: int | None
    path: str


def parse_address(url: str) -> Address:
    """Return the parts of an address.

    Raises
    ------
    ConfigError
        If it is not http or https, or names no host.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{url!r} is no address: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{url!r} is no address that begins with http:// or https://")
    query = f"?{parts.query}" if parts.query else ""
    return Address(parts.scheme, parts.hostname, port, (parts.path or "/") + query)


def fetch(url: str, *, timeout_s: float, body: bytes | None = None) -> bytes:
    """Return the body of an answer with status 200; to what is posted, of any success.

    Parameters
    ----------
    url : str
        What to ask.
    timeout_s : float
        From the connection to the last byte: a server that sends a byte now and then does not
        get longer. [s]
    body : bytes, optional
        JSON that is posted.

    Raises
    ------
    MomentaryError
        If there is no connection, it breaks, the answer is cut short or late, or the server says
        that it is busy (429, 5xx).
    ServiceError
        If the server refuses the question, or the answer is too long.
    ConfigError
        If it is no address.
    """
    at = parse_address(url)
    kind = http.client.HTTPSConnection if at.scheme == "https" else http.client.HTTPConnection
    connection = kind(at.host, at.port, timeout=timeout_s)
    late = threading.Event()

    def cut() -> None:
        late.set()
        if connection.sock is not None:
            with suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(timeout_s, cut)
    timer.daemon = True
    timer.start()
    try:
        headers = {"Connection": "close"}
        if body is None:
            connection.request("GET", at.path, headers=headers)
        else:
            headers["Content-Type"] = "application/json"
            connection.request("POST", at.path, body=body, headers=headers)
        return _body(connection.getresponse(), any_success=body is not None)
    except ServiceError:
        if late.is_set():
            raise MomentaryError(f"no answer within {timeout_s:g} s") from None
        raise
    except (OSError, http.client.HTTPException) as error:
        if late.is_set() or isinstance(error, TimeoutError):
            raise MomentaryError(f"no answer within {timeout_s:g} s") from error
        raise MomentaryError(f"{type(error).__name__}: {error}") from error
    finally:
        timer.cancel()
        connection.close()


def _body(response: http.client.HTTPResponse, *, any_success: bool = False) -> bytes:
    if response.status == http.HTTPStatus.TOO_MANY_REQUESTS or response.status >= 500:
        after = response.headers.get("Retry-After", "")
        raise MomentaryError(
            f"the service answers {response.status} {response.reason}",
            retry_after_s=float(after) if after.isdigit() else 0.0,
        )
    if response.status != http.HTTPStatus.OK and not (any_success and response.status // 100 == 2):
        raise ServiceError(f"the service answers {response.status} {response.reason}")
    stated = response.length
    parts: list[bytes] = []
    size = 0
    while chunk := response.read(_CHUNK):
        parts.append(chunk)
        size += len(chunk)
        if size > MAX_BYTES:
            raise ServiceError(f"the answer is longer than {MAX_BYTES >> 20} MB")
    if stated is not None and size != stated:
        raise MomentaryError(f"the answer has {size} bytes; {stated} were announced")
    return b"".join(parts)

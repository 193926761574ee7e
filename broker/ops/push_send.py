"""Messages to people and programs: by mail, to a web-hook, to a chat."""

import json
import math
import smtplib
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from types import MappingProxyType
from typing import Any

from broker.config import PushConfig
from broker.errors import ServiceError
from broker.ops.annotate_http import MomentaryError, fetch
from broker.ops.push import CHAT, EMAIL, PushSubscription, read_private

_SHOWN = ("survey", "diaSourceId", "diaObjectId", "ssObjectId", "midpointMjdTai", "band", "ra",
          "dec", "psfFlux", "psfFluxErr", "snr", "reliability")  # fmt: skip
_TIMEOUT_S = 20.0

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Digest:
    """What one message says.

    Parameters
    ----------
    subscription : PushSubscription
    alerts : sequence of dict
        Those that are shown, oldest first.
    number : int
        How many there are in all.
    url, unsubscribe : str
        Address of the portal; address that ends the subscription.
    """

    subscription: PushSubscription
    alerts: Sequence[Record]
    number: int
    url: str
    unsubscribe: str

    @property
    def subject(self) -> str:
        """One line."""
        noun = "alert" if self.number == 1 else "alerts"
        return f"{self.number} {noun}: {self.subscription.title}"

    @property
    def text(self) -> str:
        """All of it as text."""
        more = self.number - len(self.alerts)
        lines = [self.subject, "", *(_line(alert, self.url) for alert in self.alerts)]
        lines += [f"… and {more} more, which are on the topic and in the portal."] if more else []
        return "\n".join([*lines, "", f"To end these messages: {self.unsubscribe}", ""])

    def as_json(self) -> dict[str, Any]:
        """All of it for a program."""
        return {
            "subscription": self.subscription.name,
            "topic": self.subscription.topic or None,
            "object": self.subscription.object_id or None,
            "number": self.number,
            "alerts": [{n: _plain(alert.get(n)) for n in _SHOWN} for alert in self.alerts],
            "unsubscribe": self.unsubscribe,
        }


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _line(alert: Record, url: str) -> str:
    ss_object = alert.get("ssObjectId")
    name = alert.get("diaObjectId") or (f"ss:{ss_object}" if ss_object else "")
    band = alert.get("band") or "?"
    return (
        f"{alert['midpointMjdTai']:.5f} {band} {alert['psfFlux']:.6g} nJy S/N {alert['snr']:.1f} "
        f"at {alert['ra']:.6f} {alert['dec']:+.6f}  {url}/object/{alert['survey']}/{name}"
    )


def sender(config: PushConfig) -> Callable[[Digest], None]:
    """Return what sends a digest; it raises MomentaryError where another try may help."""

    def send(digest: Digest) -> None:
        one = digest.subscription
        if one.kind == EMAIL:
            _mail(config, digest)
            return
        post(one.address, {"text": digest.text} if one.kind == CHAT else digest.as_json())

    return send


def post(address: str, value: Any) -> None:
    """Post JSON to a web-hook; the errors are those of `annotate_http.fetch`."""
    body = json.dumps(value, ensure_ascii=False).encode()
    fetch(address, timeout_s=_TIMEOUT_S, body=body)


def _mail(config: PushConfig, digest: Digest) -> None:
    headers = {
        "List-Unsubscribe": f"<{digest.unsubscribe}>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    }
    mail(config, digest.subscription.address, digest.subject, digest.text, headers)


def mail(
    config: PushConfig,
    address: str,
    subject: str,
    text: str,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Send a mail.

    Raises
    ------
    MomentaryError
        Where another try may help.
    ServiceError
        If the server refuses the recipient for good.
    """
    message = EmailMessage()
    message["Subject"], message["From"] = subject, config.sender
    message["To"] = address
    for name, value in headers.items():
        message[name] = value
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text)
    password = ""
    if config.smtp_user:
        from pathlib import Path

        password = read_private(Path(config.smtp_password_file)).decode().strip()
    try:
        with smtplib.SMTP(config.smtp_host, config.smtp_port, timeout=_TIMEOUT_S) as server:
            if config.smtp_tls:
                server.starttls(context=ssl.create_default_context())
            if config.smtp_user:
                server.login(config.smtp_user, password)
            server.send_message(message)
    except smtplib.SMTPRecipientsRefused as error:
        code, words = next(iter(error.recipients.values()))
        kind = ServiceError if code >= 500 else MomentaryError
        raise kind(f"the mail server refuses the recipient: {code} {words!r}") from error
    except (OSError, smtplib.SMTPException) as error:
        raise MomentaryError(f"mail: {type(error).__name__} {error}") from error

"""Who is told of what: subscriptions as files that only the operator reads, and their tokens."""

import base64
import binascii
import hashlib
import hmac
import json
import os
import re
import secrets
import tomllib
from dataclasses import dataclass
from email.utils import parseaddr
from pathlib import Path

from broker.errors import ConfigError
from broker.ops.annotate_http import parse_address

EMAIL, WEBHOOK, CHAT = KINDS = ("email", "webhook", "chat")
LEAST_EVERY_S = 60.0
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,60}")


@dataclass(frozen=True)
class PushSubscription:
    """One recipient of one topic or of one object.

    Parameters
    ----------
    name : str
        Lower-case letters, digits, dashes.
    kind : str
        One of `KINDS`.
    address : str
        Of mail, or the address that is posted to.
    topic : str
        A filter's topic; empty for an object.
    survey, object_id : str
        The object that is followed; empty for a topic.
    every_s : float
        At most one message in so long. [s]
    most : int
        Alerts that a message shows; of more it says how many.
    """

    name: str
    kind: str
    address: str
    topic: str = ""
    survey: str = ""
    object_id: str = ""
    every_s: float = 900.0
    most: int = 50

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(f"{self.name!r} is no name: lower-case letters, digits, dashes")
        if self.kind not in KINDS:
            raise ConfigError(f"there is no kind {self.kind!r}; there are {', '.join(KINDS)}")
        if bool(self.topic) == bool(self.object_id) or bool(self.survey) != bool(self.object_id):
            raise ConfigError(f"{self.name}: name a topic, or an object with its survey")
        if self.every_s < LEAST_EVERY_S or self.most < 1:
            raise ConfigError(f"{self.name}: at most one message in {LEAST_EVERY_S:g} s")
        check_address(self.address, is_mail=self.kind == EMAIL)

    @property
    def title(self) -> str:
        """What it is about, for a person."""
        return f"topic {self.topic}" if self.topic else f"object {self.object_id} ({self.survey})"


def check_address(address: str, *, is_mail: bool) -> None:
    """Raise ConfigError unless something can be sent to an address, of mail or of a web-hook."""
    if not is_mail:
        parse_address(address)
    elif parseaddr(address)[1] != address or "@" not in address:
        raise ConfigError(f"{address!r} is no address of mail")


class PushBook:
    """The subscriptions of a run: a TOML file each, which only its owner may read.

    Parameters
    ----------
    folder : Path
        `push/<run>` under the home; made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, one: PushSubscription) -> Path:
        """Keep a subscription; ConfigError if there is one of that name."""
        path = self._folder / f"{one.name}.toml"
        if path.exists():
            raise ConfigError(f"there is a subscription {one.name} already; take another name")
        fields = {name: getattr(one, name) for name in PushSubscription.__dataclass_fields__}
        lines = [f"{name} = {json.dumps(value)}\n" for name, value in fields.items()]
        _write_private(path, "".join(lines).encode())
        return path

    def all(self) -> list[PushSubscription]:
        """Return the subscriptions, sorted by name.

        Raises
        ------
        ConfigError
            If a file cannot be read, or others than its owner can read it.
        """
        return [self._read(path) for path in sorted(self._folder.glob("*.toml"))]

    def _read(self, path: Path) -> PushSubscription:
        try:
            return PushSubscription(**tomllib.loads(read_private(path).decode()))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{path} is no subscription: {error}") from error

    def remove(self, name: str) -> bool:
        """Forget a subscription; return whether there was one."""
        if not _NAME.fullmatch(name):
            return False
        path = self._folder / f"{name}.toml"
        there = path.exists()
        path.unlink(missing_ok=True)
        self.sent_path(name).unlink(missing_ok=True)
        return there

    def sent_path(self, name: str) -> Path:
        """Return the file with what was sent of an object."""
        return self._folder / f"{name}.sent.json"

    def token(self, name: str) -> str:
        """Return what lets its holder end a subscription, and nothing else."""
        text = base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")
        return f"{text}.{self._sign(name)}"

    def name_of(self, token: str) -> str | None:
        """Return the subscription of a token; None if we have not signed it."""
        text, _, signature = token.partition(".")
        try:
            name = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
        except (ValueError, binascii.Error):
            return None
        if not signature.isascii():
            return None
        return name if hmac.compare_digest(signature, self._sign(name)) else None

    def _sign(self, name: str) -> str:
        path = self._folder / "secret"
        if not path.exists():
            _write_private(path, secrets.token_bytes(32))
        return hmac.new(read_private(path), name.encode(), hashlib.sha256).hexdigest()


def read_private(path: Path) -> bytes:
    """Return a file with a secret.

    Raises
    ------
    ConfigError
        If it is not there, or others than its owner can read it.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path} holds a secret and others can read it: chmod 600 {path}")
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def _write_private(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{os.getpid()}.{path.name}")
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    new.replace(path)

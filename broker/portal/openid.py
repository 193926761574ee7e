"""Signing in with OpenID Connect: a provider that the operator trusts says who someone is.

The code flow with PKCE of OpenID Connect Core 1.0, section 3.1, and RFC 7636. What the person may
is ours alone to say: the provider's word chooses among the holders that `broker token` knows.
"""

import json
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from broker.api.errors import ApiError
from broker.errors import ConfigError, ServiceError
from broker.ops.push import read_private
from broker.portal.account import WAIT_S

_MOST = 10_000
_TIMEOUT_S = 10.0
_LEEWAY_S = 60
_SCOPE = "openid email"
_SIGNED = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "Ed25519",
)
"""Signatures with a public key: one made with the client's own secret is no provider's word."""

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_KEYS = {"issuer", "client_id", "client_secret", "name"}


@dataclass(frozen=True)
class Registration:
    """What the provider knows us as.

    Parameters
    ----------
    issuer : str
        The provider's address; its `/.well-known/openid-configuration` says the rest.
    client_id, client_secret : str
        As it registered us.
    name : str
        What people call it.
    """

    issuer: str
    client_id: str
    client_secret: str
    name: str


def read_registration(path: Path) -> Registration:
    """Return what a private JSON file says of a provider: issuer, client_id, client_secret, name.

    Raises
    ------
    ConfigError
        If others can read the file, it says too little or something unknown, or the provider
        would be asked without encryption.
    """
    try:
        said = json.loads(read_private(path))
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}", path=str(path)) from error
    wanted = _KEYS - {"name"}
    if not isinstance(said, dict) or not wanted <= set(said) <= _KEYS:
        needs = "issuer, client_id and client_secret, and may say a name"
        raise ConfigError(f"{path} must say {needs}, and nothing else", path=str(path))
    if not all(isinstance(value, str) and value for value in said.values()):
        raise ConfigError(f"all that {path} says must be text", path=str(path))
    if not _is_safe(said["issuer"]):
        raise ConfigError(f"{path}: the issuer's address must begin with https://", path=str(path))
    host = urlsplit(said["issuer"]).netloc
    return Registration(said["issuer"], said["client_id"], said["client_secret"],
                        said.get("name", host))  # fmt: skip


@dataclass(frozen=True)
class _Pending:
    nonce: str
    verifier: str
    until: float


class Provider:
    """Whom people sign in with.

    Parameters
    ----------
    ours : Registration
    back : str
        The whole address to which people are sent back.
    clock : callable
        Seconds that only rise.
    """

    def __init__(
        self, ours: Registration, back: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ours, self._back, self._clock = ours, back, clock
        self._lock = threading.Lock()
        self._pending: OrderedDict[str, _Pending] = OrderedDict()
        self._says: dict[str, Any] | None = None
        self._keys: KeySet | None = None

    @property
    def name(self) -> str:
        """What people call it."""
        return self._ours.name

    def begin(self) -> tuple[str, str]:
        """Return where to send someone, and the word that must come back with them.

        Raises
        ------
        ServiceError
            If the provider does not answer, or not as one.
        """
        pending = _Pending(
            secrets.token_urlsafe(32), secrets.token_urlsafe(48), self._clock() + WAIT_S
        )
        with self._session() as session:
            where, state = session.create_authorization_url(
                self._place("authorization_endpoint"),
                state=secrets.token_urlsafe(32),
                nonce=pending.nonce,
                code_verifier=pending.verifier,
            )
        with self._lock:
            self._pending[state] = pending
            if len(self._pending) > _MOST:
                self._pending.popitem(last=False)
        return where, state

    def finish(self, state: str, code: str) -> frozenset[str]:
        """Return as whom the provider knows someone: their subject, and an address it vouches for.

        Parameters
        ----------
        state : str
            The word of `begin`; it serves once.
        code : str
            What the provider gave them for us.

        Raises
        ------
        ApiError
            400 if we did not send them or too long ago, 401 if the provider does not say who they
            are, or says it in a way that cannot be trusted.
        ServiceError
            If it does not answer, or not as a provider.
        """
        with self._lock:
            pending = self._pending.pop(state, None)
        if pending is None or pending.until < self._clock():
            raise ApiError(400, "this way to sign in was begun too long ago, or not here")
        try:
            with self._session() as session:
                said = session.fetch_token(
                    self._place("token_endpoint"), grant_type="authorization_code", code=code,
                    code_verifier=pending.verifier,
                )  # fmt: skip
                claims = self._checked(said, pending.nonce)
                if "email" not in claims:
                    claims = claims | self._user_info(session, claims["sub"])
        except requests.RequestException as error:
            raise ServiceError(f"{self.name} does not answer: {error}") from error
        except (AuthlibBaseError, JoseError, ValueError) as error:
            raise ApiError(401, f"{self.name} does not say who you are: {error}") from error
        return _known_as(claims)

    def _session(self) -> Any:
        return OAuth2Session(
            self._ours.client_id, self._ours.client_secret, scope=_SCOPE, redirect_uri=self._back,
            code_challenge_method="S256", default_timeout=_TIMEOUT_S,
        )  # fmt: skip

    def _checked(self, said: Mapping[str, Any], nonce: str) -> dict[str, Any]:
        """Return the claims of an ID token; JoseError, ValueError if it cannot be trusted."""
        word = said.get("id_token")
        if not isinstance(word, str):
            raise ValueError("there is no ID token")
        try:
            token = jwt.decode(word, self._key_set(), algorithms=list(_SIGNED))
        except (JoseError, ValueError):  # perhaps its keys are new ones
            self._keys = None
            token = jwt.decode(word, self._key_set(), algorithms=list(_SIGNED))
        claims = CodeIDToken(
            token.claims,
            token.header,
            options={"iss": {"value": self._ours.issuer}, "aud": {"value": self._ours.client_id}},
            params={"nonce": nonce, "client_id": self._ours.client_id,
                    "access_token": said.get("access_token")},
        )  # fmt: skip
        claims.validate(leeway=_LEEWAY_S)
        return dict(token.claims)

    def _user_info(self, session: Any, subject: str) -> dict[str, Any]:
        """Return what is said of someone besides the ID token; nothing if it is of another."""
        if "userinfo_endpoint" not in self._discovered():
            return {}
        answer = session.get(self._place("userinfo_endpoint"))
        said = answer.json() if answer.ok else {}
        if not isinstance(said, dict) or said.get("sub") != subject:
            return {}
        return {name: said[name] for name in ("email", "email_verified") if name in said}

    def _key_set(self) -> KeySet:
        if self._keys is None:
            self._keys = KeySet.import_key_set(_read(self._place("jwks_uri"), self.name))
        return self._keys

    def _discovered(self) -> dict[str, Any]:
        if self._says is None:
            where = self._ours.issuer.rstrip("/") + "/.well-known/openid-configuration"
            said = _read(where, self.name)
            if said.get("issuer") != self._ours.issuer:
                raise ServiceError(f"{where} speaks for {str(said.get('issuer'))[:200]!r}")
            self._says = said
        return self._says

    def _place(self, what: str) -> str:
        found = self._discovered().get(what)
        if not isinstance(found, str) or not _is_safe(found):
            raise ServiceError(f"{self.name} names no {what} that begins with https://")
        return found


def _read(url: str, name: str) -> Any:
    try:
        answer = requests.get(url, timeout=_TIMEOUT_S)
        answer.raise_for_status()
        said = answer.json()
    except (requests.RequestException, ValueError) as error:
        raise ServiceError(f"{name} does not answer at {url}: {error}") from error
    if not isinstance(said, dict):
        raise ServiceError(f"{name} answers at {url} with no JSON object")
    return said


def _known_as(claims: Mapping[str, Any]) -> frozenset[str]:
    """Return the subject, and the address if the provider has made sure whose it is."""
    known = {f"sub:{claims['sub']}"}
    if claims.get("email_verified") is True and isinstance(claims.get("email"), str):
        known.add(claims["email"].lower())
    return frozenset(known)


def _is_safe(url: str) -> bool:
    parts = urlsplit(url)
    inside = parts.scheme == "http" and parts.hostname in _LOOPBACK
    return bool(parts.hostname) and (parts.scheme == "https" or inside)

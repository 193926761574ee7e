"""Tokens of the API: what their holders may do, until when, and how often; kept as hashes."""

import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from broker.config import Config
from broker.errors import ConfigError
from broker.ops.push import read_private
from broker.topics.kafka_access import write_private

READ, WATCH, ANNOTATE, TRANSFER = "read", "watch", "annotate", "transfer"
SCOPES = {
    READ: "see one's own private watchlists",
    WATCH: "keep one's own watchlists; has read",
    ANNOTATE: "say something of alerts",
    TRANSFER: "start bulk transfers where guests may not",
}
"""What a token may be for. What everyone may see needs none; operators have the command line."""

MOST_PER_S, DAY_S = 1000.0, 86_400.0
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,60}")
_HASH = re.compile(r"[0-9a-f]{64}")
_OPENID = re.compile(r"sub:[!-~]{1,255}|[!-?A-~]{1,64}@[!-?A-~]{1,255}")
"""The subject is up to 255 ASCII characters (OpenID Connect Core 1.0, section 2)."""


@dataclass(frozen=True)
class Grant:
    """What the holder of a token may do.

    Parameters
    ----------
    name : str
        The holder's.
    scopes : tuple of str
        Some of `SCOPES`, sorted.
    expires_s : float or None
        When it ends; None is never. [s since 1970]
    per_s : float or None
        Requests that it may go on sending; None is as everyone. [1/s]
    openid : str or None
        As whom an OpenID provider knows the holder: an e-mail address, or `sub:` and the subject.
    """

    name: str
    scopes: tuple[str, ...]
    expires_s: float | None = None
    per_s: float | None = None
    openid: str | None = None

    def may(self, scope: str) -> bool:
        """Return whether it is for that; who may change lists may see them."""
        return scope in self.scopes or (scope == READ and WATCH in self.scopes)


class Tokens:
    """The tokens of a run: of each a private file with the hash and what it is for.

    Parameters
    ----------
    folder : Path
        `tokens/<run>` under the home; made when something is written.
    scopes : collection of str
        What a token is for if nothing is said, and those whose file says nothing.
    earlier : sequence of Tokens
        Folders in which an earlier version kept some; they are good still.
    clock : callable
        Seconds since 1970.
    """

    def __init__(
        self, folder: Path, *, scopes: Collection[str] = (), earlier: Sequence["Tokens"] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._folder, self._scopes, self._earlier = folder, tuple(sorted(scopes)), tuple(earlier)
        self._clock = clock

    def add(
        self, name: str, scopes: Collection[str] = (), *, days: float | None = None,
        per_s: float | None = None, openid: str | None = None,
    ) -> str:  # fmt: skip
        """Make a token for someone who has none; return it, which is kept nowhere.

        Parameters
        ----------
        name : str
            The holder's.
        scopes : collection of str
            What it is for.
        days : float, optional
            After which it ends. [d]
        per_s : float, optional
            Requests that it may go on sending. [1/s]
        openid : str, optional
            As whom an OpenID provider knows the holder, who may then sign in without the token.

        Raises
        ------
        ConfigError
            If the name or a value is not allowed, the name has a token, or someone else has that
            `openid`.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{name!r} is no name: lower-case letters, digits, dashes")
        if self.grant(name) is not None:
            raise ConfigError(
                f"there is a token of {name} already: broker token rotate {name} gives another, "
                "with other scopes too"
            )
        wanted = Grant(name, tuple(sorted(set(scopes or self._scopes))), None, per_s)
        return self._write(self._known_as(wanted, openid), days)

    def rotate(
        self, name: str, scopes: Collection[str] = (), *, days: float | None = None,
        per_s: float | None = None, openid: str | None = None,
    ) -> str:  # fmt: skip
        """Give someone another token; the old one is good no more at once.

        What is not said stays as it was; `days` count from now; an empty `openid` takes it away.

        Raises
        ------
        ConfigError
            If nobody has that name, a value is not allowed, or the old one has ended and nothing
            is said of the new one's end.
        """
        before = self.grant(name)
        if before is None:
            known = ", ".join(one.name for one in self.all()) or "nobody"
            raise ConfigError(f"{name[:80]!r} has no token; there are {known}")
        if days is None and self._has_ended(before):
            raise ConfigError(f"the token of {name} has ended: say for how many days (--days)")
        wanted = replace(before, scopes=tuple(sorted(set(scopes or before.scopes))),
                         per_s=before.per_s if per_s is None else per_s)  # fmt: skip
        token = self._write(self._known_as(wanted, openid), days)
        for place in self._earlier:
            place.remove(name)
        return token

    def remove(self, name: str) -> bool:
        """Let someone in no more; return whether there was a token. What they wrote stays."""
        there = self.grant(name) is not None
        for place in (self, *self._earlier):
            if _NAME.fullmatch(name):
                (place._folder / name).unlink(missing_ok=True)
        return there

    def take(self, name: str, scope: str) -> bool:
        """Let someone do one thing no more; return whether they might. Other scopes stay."""
        found = self.grant(name)
        if found is None or scope not in found.scopes:
            return False
        for place in (self, *self._earlier):
            path = place._folder / name
            if not path.exists():
                continue
            kept, grant = _read(path, name, place._scopes)
            left = tuple(one for one in grant.scopes if one != scope)
            if left:
                _put(path, kept, replace(grant, scopes=left))
            else:
                path.unlink()
        return True

    def all(self) -> list[Grant]:
        """Return whose tokens there are and what they are for, sorted by name."""
        return [found for name in self._names() if (found := self.grant(name)) is not None]

    def grant(self, name: str) -> Grant | None:
        """Return what a name's token is for, also one that has ended; None if there is none."""
        kept = [grant for _, grant in self._kept(name)]
        if not kept:
            return None
        return replace(kept[0], scopes=tuple(sorted({s for one in kept for s in one.scopes})))

    def find(self, token: str) -> Grant | None:
        """Return what a token is for; None if it is none, or has ended."""
        for kept, grant in self._kept(token.partition(".")[0]):
            if hmac.compare_digest(kept, _hash(token)):
                return None if self._has_ended(grant) else grant
        return None

    def find_openid(self, known_as: Collection[str]) -> Grant | None:
        """Return what someone whom an OpenID provider knows so may; None if they are none of ours.

        Parameters
        ----------
        known_as : collection of str
            The subject and the address that the provider vouches for, as in `Grant.openid`.
        """
        for grant in self.all():
            if grant.openid in known_as and not self._has_ended(grant):
                return grant
        return None

    def held_by(self, name: str, openid: str) -> Grant | None:
        """Return what someone may who signed in so; None if that has ended or is another's now."""
        grant = self.grant(name)
        if grant is None or grant.openid != openid or self._has_ended(grant):
            return None
        return grant

    def name_of(self, token: str, scope: str) -> str | None:
        """Return whose token it is, if it is for that; else None."""
        found = self.find(token)
        return found.name if found is not None and found.may(scope) else None

    def _names(self) -> list[str]:
        folders = [one._folder for one in (self, *self._earlier) if one._folder.is_dir()]
        return sorted({p.name for f in folders for p in f.iterdir() if _NAME.fullmatch(p.name)})

    def _kept(self, name: str) -> Iterator[tuple[str, Grant]]:
        if not _NAME.fullmatch(name):
            return
        for place in (self, *self._earlier):
            path = place._folder / name
            if path.exists():
                yield _read(path, name, place._scopes)

    def _known_as(self, wanted: Grant, openid: str | None) -> Grant:
        if not openid:
            return wanted if openid is None else replace(wanted, openid=None)
        if not _OPENID.fullmatch(openid):
            raise ConfigError(f"{openid[:80]!r} is neither an e-mail address nor sub:SUBJECT")
        said = openid if openid.startswith("sub:") else openid.lower()
        for other in self.all():
            if other.openid == said and other.name != wanted.name:
                raise ConfigError(f"{other.name} signs in as {said} already")
        return replace(wanted, openid=said)

    def _has_ended(self, grant: Grant) -> bool:
        return grant.expires_s is not None and grant.expires_s <= self._clock()

    def _write(self, wanted: Grant, days: float | None) -> str:
        _check(wanted, days)
        token = f"{wanted.name}.{secrets.token_urlsafe(32)}"
        ends = wanted.expires_s if days is None else self._clock() + days * DAY_S
        _put(self._folder / wanted.name, _hash(token), replace(wanted, expires_s=ends))
        return token


def tokens_of(config: Config) -> Tokens:
    """Return the tokens of a run, with those of earlier versions."""
    earlier = (
        Tokens(config.run_path("annotators"), scopes=(ANNOTATE,)),
        Tokens(config.run_path("watchlist-owners"), scopes=(WATCH,)),
    )
    return Tokens(config.run_path("tokens"), earlier=earlier)


def _put(path: Path, kept: str, grant: Grant) -> None:
    said = {"hash": kept, "scopes": grant.scopes, "expiresS": grant.expires_s, "perS": grant.per_s}
    known = {} if grant.openid is None else {"openid": grant.openid}
    write_private(path, json.dumps(said | known))


def _read(path: Path, name: str, scopes: tuple[str, ...]) -> tuple[str, Grant]:
    text = read_private(path).decode("utf-8", "replace")
    if _HASH.fullmatch(text):  # as an earlier version wrote it
        return text, Grant(name, scopes)
    try:
        said = json.loads(text)
        kept = Grant(name, tuple(said["scopes"]), said["expiresS"], said["perS"],
                     said.get("openid"))  # fmt: skip
        return str(said["hash"]), kept
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is no token's file", path=str(path)) from error


def _check(wanted: Grant, days: float | None) -> None:
    unknown = sorted(set(wanted.scopes) - set(SCOPES))
    if unknown or not wanted.scopes:
        raise ConfigError(f"a token is for some of {', '.join(SCOPES)}; got {unknown or 'none'}")
    if days is not None and not 0.0 < days < 1e5:
        raise ConfigError(f"{days} days; it must be positive")
    if wanted.per_s is not None and not 0.0 < wanted.per_s <= MOST_PER_S:
        raise ConfigError(f"{wanted.per_s} requests a second; at most {MOST_PER_S:g}")


def _hash(token: str) -> str:
    # A token is 256 random bits: nothing slower is needed against guessing.
    return hashlib.sha256(token.encode()).hexdigest()

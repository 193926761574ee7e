"""A remote cone search, asked with patience and restraint."""

import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlencode

import numpy as np

from broker.catalog.healpix import centres, on_sky, pixels_of
from broker.errors import AlertError, ServiceError
from broker.ops.annotate_answer import Entry, Names, read_answer
from broker.ops.annotate_http import MomentaryError, fetch, parse_address
from broker.store.annotations import FAILED, MATCH, NO_MATCH, NOT_ASKED
from broker.units import ARCSEC_PER_DEG, separation_arcsec

_ORDER = 15
_CELL_ARCSEC = 6.0
"""No place in a pixel of that order (side 6.4 arcsec) is as far as this from its centre, but in
the stretched ones near the poles; see `_reach`."""

_LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True)
class Patience:
    """How a service is asked.

    Parameters
    ----------
    timeout_s : float
        For one question. [s]
    tries : int
        How often one is asked in all.
    pause_s : float
        Before the second try; doubled before each further one. [s]
    per_s : float
        Questions a second at most. [1/s]
    max_wait_s : float
        A question that would have to wait longer for its turn is not asked. [s]
    failures_to_rest : int
        After so many questions in a row without an answer the service is left alone…
    rest_s : float
        …for so long. [s]
    cached : int
        Answers that are remembered.
    cache_s : float
        How long. [s]
    """

    timeout_s: float = 10.0
    tries: int = 3
    pause_s: float = 0.5
    per_s: float = 5.0
    max_wait_s: float = 30.0
    failures_to_rest: int = 5
    rest_s: float = 60.0
    cached: int = 100_000
    cache_s: float = 86_400.0


@dataclass(frozen=True)
class Answer:
    """What is known of a place: a status of `broker.store.annotations`, and an entry."""

    status: str
    entry: Entry | None = None
    separation: float | None = None
    reason: str = ""


@dataclass
class _State:
    next_turn: float = 0.0
    failures: int = 0
    rest_until: float = 0.0
    cache: "OrderedDict[int, tuple[float, list[Entry]]]" = field(default_factory=OrderedDict)


class ConeService:
    """The entry of a remote catalogue that is nearest to a place.

    The service is asked for all entries around the middle of a HEALPix pixel, by a radius that
    holds the cone around every place in it; so the next alert of the same object needs no
    question, and its answer is as exact. It may be asked by several threads.

    Parameters
    ----------
    url : str
        Address of a simple cone search: `RA`, `DEC` and `SR` in degrees are appended; or with
        `{ra}`, `{dec}` and `{sr}` in it.
    radius_arcsec : float
        An entry matches within this radius. [arcsec]
    names : Names
        What the columns of its answers are called.
    patience : Patience
        How it is asked.
    clock, sleep : callable
        Seconds that only rise, and waiting for some.

    Raises
    ------
    ConfigError
        If the address is none.
    """

    def __init__(
        self,
        url: str,
        *,
        radius_arcsec: float,
        names: Names | None = None,
        patience: Patience | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._url, self._radius = url, radius_arcsec
        self._names = Names() if names is None else names
        self._patience = Patience() if patience is None else patience
        self._clock, self._sleep = clock, sleep
        self._lock, self._state = threading.Lock(), _State()
        self.questions = 0
        """How often the service was asked, tries counted."""
        parse_address(self._address(0.0, 0.0, 0.0))

    def ask(self, ra: float | None, dec: float | None) -> Answer:
        """Return what is nearest to a place [deg]; it never raises for what the service does."""
        if ra is None or dec is None or not bool(on_sky(ra, dec)):
            return Answer(NOT_ASKED, reason="the alert has no position")
        pixel = int(pixels_of([ra], [dec], _ORDER)[0])
        entries = self._remembered(pixel)
        if entries is None:
            reason = self._turn()
            if reason:
                return Answer(NOT_ASKED, reason=reason)
            try:
                entries = self._question(pixel)
            except ServiceError as error:
                self._note(failed=True)
                return Answer(FAILED, reason=error.message)
            self._note(failed=False)
            self._remember(pixel, entries)
        return _nearest(entries, ra, dec, self._radius)

    def _question(self, pixel: int) -> list[Entry]:
        centre_ra, centre_dec = (float(x[0]) for x in centres(np.array([pixel], np.uint64), _ORDER))
        reach = self._radius + _reach(centre_dec)
        url = self._address(centre_ra, centre_dec, reach / ARCSEC_PER_DEG)
        for attempt in range(1, self._patience.tries + 1):
            with self._lock:
                self.questions += 1
            try:
                return self._read(fetch(url, timeout_s=self._patience.timeout_s), pixel, reach)
            except MomentaryError as error:
                if attempt == self._patience.tries:
                    raise
                self._sleep(self._pause(attempt, float(error.data.get("retry_after_s", 0.0))))
        raise ServiceError("the service was not asked: tries is 0")

    def _read(self, body: bytes, pixel: int, reach: float) -> list[Entry]:
        try:
            entries = read_answer(body, self._names)
        except AlertError as error:
            raise ServiceError(error.message) from error
        ra, dec = (float(x[0]) for x in centres(np.array([pixel], np.uint64), _ORDER))
        distances = [float(separation_arcsec(ra, dec, one.ra, one.dec)) for one in entries]
        if distances and min(distances) > 1.01 * reach + 1.0:
            raise ServiceError(
                f"no row of the answer is within {reach:.1f} arcsec; the nearest is "
                f"{min(distances):.1f} away: it answers something else"
            )
        return entries

    def _pause(self, attempt: int, stated_s: float) -> float:
        """Return how long to wait: doubled, by chance up to half shorter, as the server says."""
        grown = self._patience.pause_s * 2.0 ** (attempt - 1) * random.uniform(0.5, 1.0)  # noqa: S311
        return min(max(grown, stated_s), _LONGEST_PAUSE_S)

    def _turn(self) -> str:
        """Wait for a turn; return why there is none, empty if there is."""
        with self._lock:
            now, state = self._clock(), self._state
            if now < state.rest_until:
                return f"the service has failed {state.failures} times in a row and is left alone"
            turn = max(now, state.next_turn)
            if turn - now > self._patience.max_wait_s:
                return f"the turn would come in {turn - now:.0f} s"
            state.next_turn = turn + 1.0 / self._patience.per_s
        if turn > now:
            self._sleep(turn - now)
        return ""

    def _note(self, *, failed: bool) -> None:
        with self._lock:
            self._state.failures = self._state.failures + 1 if failed else 0
            if self._state.failures >= self._patience.failures_to_rest:
                self._state.rest_until = self._clock() + self._patience.rest_s

    def _remembered(self, pixel: int) -> list[Entry] | None:
        with self._lock:
            found = self._state.cache.get(pixel)
            if found is None or self._clock() - found[0] > self._patience.cache_s:
                return None
            self._state.cache.move_to_end(pixel)
            return found[1]

    def _remember(self, pixel: int, entries: list[Entry]) -> None:
        with self._lock:
            self._state.cache[pixel] = (self._clock(), entries)
            while len(self._state.cache) > self._patience.cached:
                self._state.cache.popitem(last=False)

    def _address(self, ra: float, dec: float, sr: float) -> str:
        texts = {"ra": f"{ra:.7f}", "dec": f"{dec:.7f}", "sr": f"{sr:.7f}"}
        if "{ra}" in self._url:
            url = self._url
            for name, text in texts.items():
                url = url.replace(f"{{{name}}}", text)
            return url
        joint = "" if self._url[-1:] in "?&" else "&" if "?" in self._url else "?"
        return self._url + joint + urlencode({name.upper(): text for name, text in texts.items()})


def _reach(dec: float) -> float:
    """Return how far the farthest place of a pixel may be from its centre. [arcsec]

    Half the diagonal of a square pixel is 4.6 arcsec; near the poles pixels are up to 1.6 times
    as long.
    """
    return _CELL_ARCSEC if abs(dec) < 41.8 else 1.6 * _CELL_ARCSEC


def _nearest(entries: list[Entry], ra: float, dec: float, radius: float) -> Answer:
    found = sorted(
        (float(separation_arcsec(ra, dec, one.ra, one.dec)), one.id, i)
        for i, one in enumerate(entries)
    )
    if not found or found[0][0] > radius:
        return Answer(NO_MATCH)
    separation, _, i = found[0]
    return Answer(MATCH, entries[i], separation)

"""The notices that matter now, remembered, and the alerts that meet them."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from broker.catalog.healpix import Floats, Pixels
from broker.notices import Known, Notice, Window, best_matches, members
from broker.notices.match import Members
from broker.notices.wire import encode_pairs, notice_matches_topic
from broker.store.alerts import AlertStore
from broker.store.keys import SKY_ORDER, merged_ranges
from broker.store.notices import NoticeStore
from broker.topics.topic import Message
from broker.types import Run

_SPAN_DAYS = 2.0  # alerts of some nights come and go: not everything is read anew for each batch
_MOST_SCANS = 300
_GET_ROWS = 500
_IDS = ("survey", "diaSourceId", "diaObjectId", "midpointMjdTai", "ra", "dec")


class NoticeBoard:
    """Matches alerts with the notices that are known when they come.

    No pair is missed, whichever comes first: alerts are stored before `pairs` looks for notices,
    and notices are stored before `pairs_of` looks for alerts, so that at least one of the two sees
    the other. Both may, and so give the same message twice.

    Parameters
    ----------
    store : NoticeStore
        Where notices are.
    run : Run
        Whose.
    window : Window
        What counts as near.
    """

    def __init__(self, store: NoticeStore, run: Run, window: Window) -> None:
        self.topic = notice_matches_topic(run)
        self._store, self._window = store, window
        self._generation = ""
        self._known: list[Known] = []
        self._loaded: tuple[float, float] = (np.inf, -np.inf)

    def match(self, ra: ArrayLike, dec: ArrayLike, mjd: ArrayLike) -> pa.Table:
        """Return the columns `NOTICE_COLUMNS` of alerts at places [deg] and times (MJD, TAI)."""
        ra, dec, mjd = (np.asarray(x, np.float64) for x in (ra, dec, mjd))
        return best_matches(self._now(mjd), ra, dec, mjd, self._window)

    def pairs(self, batch: pa.Table) -> Iterator[Message]:
        """Yield the message of each pair of a stored alert and a notice, known now.

        Parameters
        ----------
        batch : pa.Table
            Canonical columns; what is not public makes no pair.
        """
        ra, dec, mjd = (
            np.asarray(batch.column(n), np.float64) for n in ("ra", "dec", "midpointMjdTai")
        )
        known = self._now(mjd)
        if not known:
            return
        is_public = np.asarray(batch.column("isPublic"))
        for one in known:
            if one.is_retracted:
                continue
            found = _chosen(members(one.notice, ra, dec, mjd, self._window), is_public)
            alerts = batch.select(_IDS).take(pa.array(found.rows)).to_pylist()
            yield from _messages(one.notice, found, alerts, b"alert")

    def pairs_of(self, notice: Notice, store: AlertStore) -> Iterator[Message]:
        """Yield the message of each pair of a stored notice and an alert, stored now."""
        if notice.place is None or notice.trigger_mjd_tai is None:
            return
        window, trigger = self._window, notice.trigger_mjd_tai
        ranges = _few(notice.place.ranges(window.credible_level))
        seen = list(
            store.sightings(ranges, trigger - window.days_before, trigger + window.days_after)
        )
        for low in range(0, len(seen), _GET_ROWS):
            alerts = store.alerts(
                [
                    one.key
                    for one in seen[low : low + _GET_ROWS]
                    if notice.place.level(one.ra, one.dec) <= window.credible_level
                ]
            )
            ra, dec, mjd = (
                np.array([a[n] for a in alerts], np.float64)
                for n in ("ra", "dec", "midpointMjdTai")
            )
            is_public = np.array([a["isPublic"] for a in alerts], bool)
            found = _chosen(members(notice, ra, dec, mjd, window), is_public)
            yield from _messages(notice, found, [alerts[i] for i in found.rows], b"notice")

    def _now(self, mjd: Floats) -> Sequence[Known]:
        """Return the notices whose window may hold a time, those just announced too."""
        times = mjd[np.isfinite(mjd)]
        generation = self._store.generation()
        if not generation or not times.size:
            return ()
        low = float(times.min()) - self._window.days_after
        high = float(times.max()) + self._window.days_before
        is_inside = self._loaded[0] <= low and high <= self._loaded[1]
        if generation != self._generation or not is_inside:
            span = (low - _SPAN_DAYS, high + _SPAN_DAYS)
            self._known, self._loaded = self._store.between(*span), span
            self._generation = generation
        return self._known


def _chosen(found: Members, is_wanted: Any) -> Members:
    kept = is_wanted[found.rows]
    return Members(
        found.rows[kept], found.levels[kept], found.separations[kept], found.delays[kept]
    )


def _messages(
    notice: Notice, found: Members, alerts: Sequence[dict[str, Any]], found_by: bytes
) -> Iterator[Message]:
    # Which of the two came last is of no pair's bytes: it may be both.
    for key, body in encode_pairs(notice, found, alerts):
        yield Message(body, key=key, headers=(("foundBy", found_by),))


def _few(ranges: tuple[Pixels, Pixels]) -> list[tuple[int, int]]:
    """Return ranges of pixels of the sky table, across the smaller gaps where there are many."""
    merged = merged_ranges(*ranges, SKY_ORDER)
    if len(merged) <= _MOST_SCANS:
        return merged
    gaps = np.array([merged[i + 1][0] - merged[i][1] for i in range(len(merged) - 1)])
    cuts = sorted(np.argsort(-gaps, kind="stable")[: _MOST_SCANS - 1].tolist())
    firsts = [0, *(cut + 1 for cut in cuts)]
    lasts = [*cuts, len(merged) - 1]
    return [(merged[a][0], merged[b][1]) for a, b in zip(firsts, lasts, strict=True)]

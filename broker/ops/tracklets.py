"""Tracklets of a stored night: which alerts may move, what links them, and how true that is."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from broker.detection.tracklets import Detections, Tracklet
from broker.simulation.moving import NAME as MOVING
from broker.units import ARCSEC_PER_DEG, separation_arcsec

STANDS_DAYS = 1.0 / 24.0
"""What is found at one place for longer does not move."""

_UNKNOWN_ERR_ARCSEC = 0.1
_MATCH_ARCSEC = 1.5
_ENOUGH = 3
"""A mover with candidates in so many visits is expected to be found."""

SCHEMA = pa.schema(
    [
        pa.field("trackletId", pa.string(), nullable=False),
        pa.field("nDetections", pa.int32(), nullable=False),
        pa.field("midpointMjdTai", pa.float64(), nullable=False),
        pa.field("ra", pa.float64(), nullable=False),
        pa.field("dec", pa.float64(), nullable=False),
        pa.field("rate", pa.float64(), nullable=False),
        pa.field("rateErr", pa.float64(), nullable=False),
        pa.field("positionAngle", pa.float64(), nullable=False),
        pa.field("chi2PerDof", pa.float64()),
        pa.field("chance", pa.float64(), nullable=False),
        pa.field("ssObjectId", pa.string()),
        pa.field("diaSourceIds", pa.list_(pa.string()), nullable=False),
    ]
)
"""A row for each tracklet. Its id is that of its first diaSource, its place and time are those of
its middle [deg], [d]; rate [deg/d], position angle [deg] from north to east; `chance`: how many
such tracklets chance makes in the night; `ssObjectId`: if all its alerts say the same."""


@dataclass(frozen=True)
class Candidates:
    """Alerts that may be of something that moves.

    Parameters
    ----------
    detections : Detections
        n of them.
    dia_source_ids : tuple of str, length n
    ss_object_ids : tuple of str or None, length n
    alerts : int
        From how many they were chosen.
    """

    detections: Detections
    dia_source_ids: tuple[str, ...]
    ss_object_ids: tuple[str | None, ...]
    alerts: int


@dataclass(frozen=True)
class TrackletScores:
    """Tracklets against the moving objects that were put into a night.

    Parameters
    ----------
    movers : int
        Objects with candidates in three visits or more, not faster than was looked for.
    linked : int
        Of these, the objects with a tracklet that is mostly theirs.
    faster : int
        Objects with as many candidates that are faster.
    tracklets, pure : int
        Tracklets, and those all of whose detections are of one object.
    detections, linked_detections : int
        Candidates that are of moving objects, and those of them in tracklets of their object.
    others : int
        Candidates that are of nothing that moves.
    """

    movers: int
    linked: int
    faster: int
    tracklets: int
    pure: int
    detections: int
    linked_detections: int
    others: int

    @property
    def completeness(self) -> float:
        """Share of objects that were linked; NaN without any."""
        return self.linked / self.movers if self.movers else float("nan")

    @property
    def purity(self) -> float:
        """Share of tracklets that are of one object alone; NaN without any."""
        return self.pure / self.tracklets if self.tracklets else float("nan")


def candidates(
    alerts: Iterable[Mapping[str, Any]], survey: str, *, least_reliability: float = 0.5
) -> Candidates:
    """Choose the alerts of a night that may be of something that moves.

    Positive, reliable (or of a survey that does not say), not a dipole, and at a place where
    nothing was found an hour before or after. Stars and galaxies there are no reason against it.

    Parameters
    ----------
    alerts : iterable of mappings
        Canonical columns by name, such as `AlertStore.night` has them.
    survey : str
        Only its alerts: visits are numbered by survey.
    least_reliability : float
    """
    rows = [alert for alert in alerts if alert["survey"] == survey]
    first, last = _seen_between(rows)
    chosen = []
    for alert in rows:
        score = alert["reliability"]
        thing = alert["diaObjectId"] or alert["diaSourceId"]
        stood = max(alert["ageDays"] or 0.0, last[thing] - first[thing]) > STANDS_DAYS
        real = score is None or score >= least_reliability
        if real and not (stood or alert["isNegative"] or alert["isDipole"]):
            chosen.append(alert)
    columns = {
        name: np.array([alert[name] for alert in chosen], np.float64)
        for name in ("midpointMjdTai", "ra", "dec")
    }
    errors = [max(alert["raErr"] or 0.0, alert["decErr"] or 0.0) for alert in chosen]
    err = np.array(errors, np.float64) * ARCSEC_PER_DEG
    detections = Detections(
        columns["midpointMjdTai"],
        columns["ra"],
        columns["dec"],
        np.where(err > 0.0, err, _UNKNOWN_ERR_ARCSEC),
        np.array([alert["visit"] for alert in chosen], np.int64),
    )
    return Candidates(
        detections,
        tuple(alert["diaSourceId"] for alert in chosen),
        tuple(alert["ssObjectId"] for alert in chosen),
        len(rows),
    )


def _seen_between(rows: Iterable[Mapping[str, Any]]) -> tuple[dict[str, float], dict[str, float]]:
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    for alert in rows:
        thing, mjd = alert["diaObjectId"] or alert["diaSourceId"], alert["midpointMjdTai"]
        first[thing] = min(mjd, first.get(thing, mjd))
        last[thing] = max(mjd, last.get(thing, mjd))
    return first, last


def tracklet_table(found: Sequence[Tracklet], among: Candidates) -> pa.Table:
    """Return tracklets with the schema `SCHEMA`, the surest first."""
    rows = []
    for one in found:
        ids = [among.dia_source_ids[row] for row in one.rows]
        known = {among.ss_object_ids[row] for row in one.rows}
        rows.append(
            {
                "trackletId": ids[0],
                "nDetections": len(ids),
                "midpointMjdTai": one.mjd,
                "ra": one.ra,
                "dec": one.dec,
                "rate": one.rate,
                "rateErr": one.rate_err,
                "positionAngle": one.position_angle,
                "chi2PerDof": one.chi2_per_dof if np.isfinite(one.chi2_per_dof) else None,
                "chance": one.chance,
                "ssObjectId": known.pop() if len(known) == 1 else None,
                "diaSourceIds": ids,
            }
        )
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def score_tracklets(
    found: Sequence[Tracklet], among: Candidates, truth: pa.Table, *, max_rate: float
) -> TrackletScores:
    """Compare tracklets with a simulated night's truth.

    Parameters
    ----------
    found : sequence of Tracklet
    among : Candidates
        What they were made of.
    truth : pa.Table
        With the schema `broker.simulation.truth.TRUTH`.
    max_rate : float
        Fastest motion that was looked for. [deg/d]
    """
    movers = _Movers.of(truth)
    owner = movers.owners(among.detections)
    seen = np.unique(np.stack([owner, among.detections.visit])[:, owner >= 0], axis=1)[0]
    names, visits = np.unique(seen, return_counts=True)
    enough = names[visits >= _ENOUGH]
    is_slow = movers.rates()[enough] <= max_rate
    linked, pure, detections = set(), 0, 0
    for one in found:
        known, number = np.unique(owner[list(one.rows)], return_counts=True)
        most = int(number.argmax())
        if known[most] >= 0 and 2 * number[most] > len(one.rows):
            pure += int(known.size == 1)
            linked.add(int(known[most]))
            detections += int(number[most])
    return TrackletScores(
        movers=int(is_slow.sum()),
        linked=len(set(enough[is_slow].tolist()) & linked),
        faster=int((~is_slow).sum()),
        tracklets=len(found),
        pure=pure,
        detections=int((owner >= 0).sum()),
        linked_detections=detections,
        others=int((owner < 0).sum()),
    )


@dataclass(frozen=True)
class _Movers:
    """Rows of the truth that are of moving objects, arrays of shape (n,); objects from 0."""

    number: NDArray[np.int64]
    visit: NDArray[np.int64]
    mjd: NDArray[np.float64]
    ra: NDArray[np.float64]
    dec: NDArray[np.float64]

    @classmethod
    def of(cls, truth: pa.Table) -> "_Movers":
        rows = truth.filter(pa.array([name == MOVING for name in truth["class"].to_pylist()]))
        ids = rows["transientId"].to_numpy(zero_copy_only=False)
        number = np.unique(ids, return_inverse=True)[1].astype(np.int64)
        names = ("visit", "midpointMjdTai", "ra", "dec")
        return cls(number, *(rows[name].to_numpy() for name in names))

    def rates(self) -> NDArray[np.float64]:
        """Return each object's motion between its first and last row, 0 for one row. [deg/d]"""
        found = np.zeros(int(self.number.max(initial=-1)) + 1)
        for one in range(found.size):
            rows = np.flatnonzero(self.number == one)
            a, b = rows[self.mjd[rows].argmin()], rows[self.mjd[rows].argmax()]
            if days := float(self.mjd[b] - self.mjd[a]):
                way = separation_arcsec(self.ra[a], self.dec[a], self.ra[b], self.dec[b])
                found[one] = float(way) / ARCSEC_PER_DEG / days
        return found

    def owners(self, detections: Detections) -> NDArray[np.int64]:
        """Return which object each detection is of, -1 for none."""
        owner = np.full(detections.mjd.size, -1, np.int64)
        for i in range(owner.size):
            there = np.flatnonzero(self.visit == detections.visit[i])
            if there.size:
                away = separation_arcsec(
                    detections.ra[i], detections.dec[i], self.ra[there], self.dec[there]
                )
                nearest = int(np.argmin(away))
                if away[nearest] <= _MATCH_ARCSEC:
                    owner[i] = self.number[there[nearest]]
        return owner

"""Which alerts may belong to which notices: by place and by time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from broker.alerts.columns import FOUND, NOT_FOUND, NOT_SEARCHED, NOTICE_COLUMNS
from broker.catalog.healpix import Floats
from broker.notices.notice import Notice


@dataclass(frozen=True)
class Window:
    """What counts as near.

    Parameters
    ----------
    credible_level : float
        An alert is in a notice's region up to this level.
    days_before, days_after : float
        It is in its time from so long before the trigger until so long after it. [d]
    """

    credible_level: float = 0.9
    days_before: float = 1.0
    days_after: float = 30.0


@dataclass(frozen=True)
class Known:
    """A notice, and what later notices of its event say.

    Parameters
    ----------
    notice : Notice
        It is no retraction.
    is_in_force : bool
        Whether it is the newest of its event.
    is_retracted : bool
        Whether its event was retracted.
    """

    notice: Notice
    is_in_force: bool = True
    is_retracted: bool = False


@dataclass(frozen=True)
class Members:
    """The alerts that may belong to a notice.

    Parameters
    ----------
    rows : NDArray[np.int64], shape (n,)
        Which alerts.
    levels : NDArray[np.float64], shape (n,)
        Their credible levels.
    separations : NDArray[np.float64], shape (n,)
        Their distances from the likeliest place. [arcsec]
    delays : NDArray[np.float64], shape (n,)
        Their times since the trigger. [d]
    """

    rows: NDArray[np.int64]
    levels: Floats
    separations: Floats
    delays: Floats


def members(
    notice: Notice, ra: ArrayLike, dec: ArrayLike, mjd: ArrayLike, window: Window
) -> Members:
    """Return which alerts are in a notice's region and time.

    Parameters
    ----------
    notice : Notice
        With a place and a trigger.
    ra, dec, mjd : array_like, shape (n,)
        Positions [deg] and times (MJD, TAI) [d] of alerts.
    window : Window
        What counts as near.
    """
    ra, dec, mjd = (np.asarray(x, np.float64) for x in (ra, dec, mjd))
    if notice.place is None or notice.trigger_mjd_tai is None:
        none = np.empty(0)
        return Members(np.empty(0, np.int64), none, none, none)
    rows = np.flatnonzero(_in_time(notice, mjd, window))
    rows = rows[notice.place.may_hold(dec[rows], window.credible_level)]
    levels = notice.place.level(ra[rows], dec[rows])
    near = levels <= window.credible_level
    rows, levels = rows[near], levels[near]
    separations = notice.place.separation(ra[rows], dec[rows])
    return Members(rows, levels, separations, mjd[rows] - notice.trigger_mjd_tai)


def best_matches(
    known: Sequence[Known], ra: ArrayLike, dec: ArrayLike, mjd: ArrayLike, window: Window
) -> pa.Table:
    """Return the columns of the match with notices.

    Of the notices that are in force, of real events, the one with the smallest credible level
    wins; then the one nearest in time; then the smaller id.

    Parameters
    ----------
    known : sequence of Known
        The notices that may matter.
    ra, dec, mjd : array_like, shape (n,)
        Positions [deg] and times (MJD, TAI) [d] of alerts.
    window : Window
        What counts as near.

    Returns
    -------
    pa.Table, n rows
        `NOTICE_COLUMNS`.
    """
    ra, dec, mjd = (np.asarray(x, np.float64) for x in (ra, dec, mjd))
    n = ra.size
    best, searched = np.full(n, -1), np.zeros(n, bool)
    level, separation, delay = (np.full(n, np.nan) for _ in range(3))
    notices = sorted(
        (k.notice for k in known if k.is_in_force and not k.is_retracted and not k.notice.is_test),
        key=lambda notice: notice.notice_id,
    )
    for i, notice in enumerate(notices):
        searched |= _in_time(notice, mjd, window) & np.isfinite(ra) & np.isfinite(dec)
        found = members(notice, ra, dec, mjd, window)
        at = found.rows
        wins = (best[at] < 0) | (found.levels < level[at])
        wins |= (found.levels == level[at]) & (np.abs(found.delays) < np.abs(delay[at]))
        rows = at[wins]
        best[rows], level[rows] = i, found.levels[wins]
        separation[rows], delay[rows] = found.separations[wins], found.delays[wins]
    names = np.array([notice.notice_id for notice in notices] or [""], object)
    none = best < 0
    reading = np.where(none, np.where(searched, NOT_FOUND, NOT_SEARCHED), FOUND)
    values = (
        pa.array(reading.astype(np.int32)),
        pa.array(names[best], pa.string(), mask=none),
        pa.array(separation.astype(np.float32), mask=none),
        pa.array(level.astype(np.float32), mask=none),
        pa.array(delay, mask=none),
    )
    return _table(values)


def not_searched(n: int) -> pa.Table:
    """Return the columns of alerts that were matched with no notice at all."""
    reading = pa.array(np.full(n, NOT_SEARCHED, np.int32))
    return _table((reading, *(pa.nulls(n, c.arrow_type) for c in NOTICE_COLUMNS[1:])))


def _table(values: Sequence[pa.Array]) -> pa.Table:
    fields = [pa.field(c.name, c.arrow_type, c.nullable) for c in NOTICE_COLUMNS]
    return pa.Table.from_arrays(list(values), schema=pa.schema(fields))


def _in_time(notice: Notice, mjd: Floats, window: Window) -> NDArray[np.bool_]:
    trigger = np.nan if notice.trigger_mjd_tai is None else notice.trigger_mjd_tai
    return (mjd >= trigger - window.days_before) & (mjd <= trigger + window.days_after)

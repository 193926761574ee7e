"""Images processed once more, with newer templates or software: what is no longer found goes.

Going is a mark: diaSources and objects that a reprocessing no longer finds are marked as
withdrawn, with the time and the reason, and that is published. Nothing is deleted, no alert is
changed; histories of later alerts are without them. What was missed before becomes an alert now,
marked as late; what is found again after a retraction has it lifted.

The order of side effects for one image: new alerts, messages of retraction, marks for readers,
marks for association, and last what became of the image. A crash between any two leaves the image
as it was to the next attempt, which says the same again.
"""

import logging
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

import broker
from broker.alerts.retraction import encode_retraction, retraction_schemas
from broker.detection.associate import RADIUS_ARCSEC
from broker.store.objects import DONE, IS_RETRACTED, DetectorRow
from broker.store.retractions import Retraction
from broker.streaming.image_alerts import detector_row
from broker.streaming.image_retry import ImageWork
from broker.streaming.image_steps import Footprint, ImageOutcome
from broker.topics.publish import store_schemas
from broker.topics.topic import Message, TopicSettings
from broker.types import Run
from broker.units import ARCSEC_PER_DEG, separation_arcsec

RETRACTIONS = "public.retractions"
"""Topic of retractions, in the live run."""

_MARGIN_DEG = 3.0 * RADIUS_ARCSEC / ARCSEC_PER_DEG

_LOG = logging.getLogger(__name__)


def retractions_topic(run: Run) -> str:
    """Return the name of the topic with a run's retractions; the key is the diaObjectId."""
    return run.internal_topic(RETRACTIONS)


@dataclass(frozen=True)
class Verdict:
    """What a reprocessing of one image says of what was known.

    Parameters
    ----------
    lost : pa.Table
        Known diaSources that are no longer found.
    again : pa.Table
        Withdrawn ones that are found again.
    new : NDArray[np.bool_], shape (n_found,)
        Which of the sources that are found now are of no known one.
    """

    lost: pa.Table
    again: pa.Table
    new: NDArray[np.bool_]


def judge(found: pa.Table | None, own: pa.Table) -> Verdict:
    """Compare what a reprocessing finds with what an image had.

    A known diaSource is found if one of now has its identifier or is within the radius of
    association.

    Parameters
    ----------
    found : pa.Table
        The diaSources of now.
    own : pa.Table
        The stored diaSources of the image, with `isRetracted`.
    """
    n_found = 0 if found is None else found.num_rows
    same = np.zeros((own.num_rows, n_found), np.bool_)
    if found is not None and own.num_rows and n_found:
        ra, dec = (own[name].to_numpy()[:, None] for name in ("ra", "dec"))
        away = separation_arcsec(ra, dec, found["ra"].to_numpy(), found["dec"].to_numpy())
        ids = own["diaSourceId"].to_numpy()[:, None] == found["diaSourceId"].to_numpy()
        same = (away <= RADIUS_ARCSEC) | ids
    is_found = pa.array(same.any(axis=1))
    return Verdict(
        own.filter(pc.and_not(pc.invert(is_found), own[IS_RETRACTED])),
        own.filter(pc.and_(is_found, own[IS_RETRACTED])),
        np.logical_not(same.any(axis=0)),
    )


def reprocess_images(
    work: ImageWork,
    *,
    now_mjd_tai: float,
    images: Collection[tuple[int, int]] | None = None,
    advance: Callable[[], object] = lambda: None,
) -> dict[str, int]:
    """Process images that are done once more, with the newest templates.

    To be called while the images query does not run: there is one writer of objects.

    Parameters
    ----------
    work : ImageWork
    now_mjd_tai : float
        The time that retractions bear, MJD, TAI. [d]
    images : collection of (int, int), optional
        Visits and detectors; all that were done with older templates, if not given.
    advance : callable
        Called after each image.

    Returns
    -------
    dict
        Images by what became of them (`done`; `failed`, `no-template`, `gone`: left as they were),
        and the diaSources that were `retracted`, `lifted` and `new`.
    """
    work.topics.create(retractions_topic(work.run), TopicSettings(partitions=1))
    store_schemas(work.topics, work.run, retraction_schemas())
    latest = work.templates.latest()
    chosen = [
        row
        for row in work.detectors.all()
        if row.status == DONE
        and (row.template_version != latest if images is None else _place(row) in images)
    ]
    counts: Counter[str] = Counter()
    for row in sorted(chosen, key=_place):
        outcome = work.process(row)
        status = "gone" if outcome is None else outcome.status
        counts[status] += 1
        if outcome is None or outcome.footprint is None or status != DONE:
            why = status if outcome is None or not outcome.reason else outcome.reason
            _LOG.warning("visit %d detector %d is left as it was: %s", *_place(row), why)
        else:
            counts.update(_settle(row, outcome, outcome.footprint, work, now_mjd_tai))
        advance()
    return dict(counts)


def _place(row: DetectorRow) -> tuple[int, int]:
    return row.visit, row.detector


def _settle(
    row: DetectorRow, outcome: ImageOutcome, place: Footprint, work: ImageWork, now: float
) -> dict[str, int]:
    """Compare an image with what it had; publish and keep what changes."""
    known = work.store.around(
        place.ra, place.dec, place.radius_deg + _MARGIN_DEG, with_retracted=True
    )
    sources, cutouts = outcome.sources, outcome.cutouts
    verdict = judge(sources, _own(known, row, outcome.template_version))
    new = pa.array(verdict.new)
    if sources is not None and cutouts is not None:
        work.publish(replace(outcome, sources=sources.filter(new), cutouts=cutouts.filter(new)))
    marks = _marks(verdict, known, outcome.template_version, now)
    topic = retractions_topic(work.run)
    work.topics.send(topic, [retraction_message(mark) for mark in marks])
    work.retractions.put(marks)
    for table, is_retracted in ((verdict.lost, True), (verdict.again, False)):
        of = [m for m in marks if m.dia_source_id is not None and m.is_retracted == is_retracted]
        work.store.mark(table, of)
    done = detector_row(outcome, place, None)
    n_alerts = row.n_alerts + int(np.count_nonzero(verdict.new))
    work.detectors.put([replace(done, origins=row.origins, n_alerts=n_alerts)])
    n_lost, n_again = verdict.lost.num_rows, verdict.again.num_rows
    return {"retracted": n_lost, "lifted": n_again, "new": int(np.count_nonzero(verdict.new))}


def _own(known: pa.Table, row: DetectorRow, version: str) -> pa.Table:
    """Return what an image had: without what an attempt with these templates has added."""
    if known.num_rows == 0:
        return pa.table(
            {"diaSourceId": pa.array([], pa.int64()), IS_RETRACTED: pa.array([], pa.bool_())}
        )
    own = pc.and_(pc.equal(known["visit"], row.visit), pc.equal(known["detector"], row.detector))
    if row.template_version != version:
        own = pc.and_(own, pc.not_equal(known["templateVersion"], version))
    return known.filter(own)


def _marks(verdict: Verdict, known: pa.Table, version: str, now: float) -> list[Retraction]:
    """Return the marks on sources, then those on objects that have none left, or some again."""
    lost, again = (table["diaSourceId"].to_pylist() for table in (verdict.lost, verdict.again))
    reason = f"not found with templates {version}", f"found again with templates {version}"
    marks = []
    for table, is_retracted in ((verdict.lost, True), (verdict.again, False)):
        pairs = zip(
            table["diaObjectId"].to_pylist() if table.num_rows else [],
            table["diaSourceId"].to_pylist(),
            strict=True,
        )
        for thing, source in pairs:
            words = reason[0] if is_retracted else reason[1]
            marks.append(
                Retraction(thing, source, now, words, version, broker.__version__, is_retracted)
            )
    for thing in sorted({mark.dia_object_id for mark in marks}):
        its = known.filter(pc.equal(known["diaObjectId"], thing))
        before = dict(
            zip(its["diaSourceId"].to_pylist(), its[IS_RETRACTED].to_pylist(), strict=True)
        )
        after = {n: (was or n in lost) and n not in again for n, was in before.items()}
        was, is_now = all(before.values()), all(after.values())
        if was != is_now:
            words = "none of its sources is found any more" if is_now else reason[1]
            marks.append(Retraction(thing, None, now, words, version, broker.__version__, is_now))
    return marks


def retraction_message(mark: Retraction) -> Message:
    """Return the message that tells of a retraction; the key is the diaObjectId."""
    record = {
        "diaObjectId": mark.dia_object_id,
        "diaSourceId": mark.dia_source_id,
        "isRetracted": mark.is_retracted,
        "timeWithdrawnMjdTai": mark.time_withdrawn_mjd_tai,
        "reason": mark.reason,
        "templateVersion": mark.template_version,
        "softwareVersion": mark.software_version,
    }
    return Message(encode_retraction(record), key=str(mark.dia_object_id).encode())

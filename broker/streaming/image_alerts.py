"""From the diaSources of images to packets, without Spark: objects, histories, alerts.

`associate_images` is done in one place, image by image in the order of time, and is the only
writer of diaObjects. `alert_messages` makes the packets of one image, anywhere.

A batch that is repeated after a failure makes the same packets: a diaSource that is stored keeps
its object, histories hold only what is strictly earlier, and what the first attempt stored of the
batch's images that are still to come is not looked at.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from broker.alerts.packet import encode_sim
from broker.detection.associate import RADIUS_ARCSEC, associate, merged_objects
from broker.detection.flags import SourceFlag
from broker.errors import ServiceError
from broker.imaging.wcs import Wcs
from broker.store.forced import FORCED_SOURCES
from broker.store.objects import DONE, FAILED, NO_TEMPLATE, OBJECT_PIXEL, DetectorRow
from broker.streaming.image_forced import ForcedPhotometry
from broker.streaming.image_steps import DUPLICATE, Detectors, Footprint, ImageOutcome
from broker.topics.publish import dead_letter
from broker.topics.topic import Message
from broker.types import Coordinate
from broker.units import ARCSEC_PER_DEG

HISTORY_DAYS = 365.0
"""How far back an alert's history goes. [d]"""

IS_LATE = "isLate"
"""Column: a later image of this place was there before the one of this diaSource."""

_LARGEST_DEAD_BYTES = 24 << 20

_MARGIN_DEG = 3.0 * RADIUS_ARCSEC / ARCSEC_PER_DEG

IMAGE_HEADER, PUBLISHED_HEADER = "image", "imageTimestampMs"
"""Headers of an alert: the coordinate of its image's message, and when that was published."""


class Associations(Protocol):
    """The diaSources of all images so far, with their objects."""

    def around(self, ra: float, dec: float, radius_deg: float) -> pa.Table:
        """Return the diaSources of all objects in a circle. [deg]"""
        ...

    def put(self, table: pa.Table) -> None:
        """Keep diaSources; a repeated one changes nothing."""
        ...


@dataclass(frozen=True)
class Associated:
    """One image's diaSources with their diaObjects and histories, as of their own time.

    Parameters
    ----------
    coordinate, timestamp_ms, footprint
        As in `ImageOutcome`.
    sources : pa.Table
        Its diaSources with `diaObjectId` and `isLate`.
    history : pa.Table
        Earlier diaSources of these objects, oldest first, however long ago.
    forced : pa.Table
        Their forced fluxes in visits before, within the packets' window, oldest first.
    """

    coordinate: Coordinate
    timestamp_ms: int
    footprint: Footprint
    sources: pa.Table
    history: pa.Table
    forced: pa.Table


def drop_repeats(outcomes: Iterable[ImageOutcome]) -> list[ImageOutcome]:
    """Return the outcomes with a second message of one image, in the same batch, as a duplicate.

    The message with the smallest coordinate counts, so a repeated batch chooses the same one.
    """
    first: dict[tuple[int, int], ImageOutcome] = {}
    result = []
    for outcome in sorted(outcomes, key=lambda o: o.coordinate):
        place = outcome.footprint
        if place is None or outcome.status not in (DONE, NO_TEMPLATE):
            result.append(outcome)
            continue
        kept = first.setdefault(place.place, outcome)
        if kept is not outcome:
            outcome = ImageOutcome(
                outcome.coordinate,
                outcome.timestamp_ms,
                DUPLICATE,
                f"of {kept.coordinate}",
                outcome.footprint,
            )
        result.append(outcome)
    return result


def associate_images(
    outcomes: Iterable[ImageOutcome],
    *,
    store: Associations,
    forced: ForcedPhotometry | None = None,
) -> list[Associated]:
    """Give the diaSources of a batch's images their objects, and keep them and forced fluxes.

    Images are taken in the order of (time, visit, detector); each is stored, acknowledged, before
    the next one is looked at.

    Parameters
    ----------
    outcomes : iterable of ImageOutcome
        All of the batch; those that are not done are left out.
    store : Associations
        The diaSources so far.
    forced : ForcedPhotometry, optional
        Measures at the objects of each image; without it there are no forced fluxes.
    """
    done = sorted(
        ((o.footprint, o.sources, o) for o in outcomes if o.footprint and o.sources is not None),
        key=lambda item: (item[0].midpoint_mjd_tai, *item[0].place),
    )
    result = []
    for i, (footprint, sources, outcome) in enumerate(done):
        known = store.around(footprint.ra, footprint.dec, footprint.radius_deg + _MARGIN_DEG)
        to_come = {later.place for later, _, _ in done[i + 1 :]}
        known = _without(known, to_come)
        found, history = associate_image(sources, known)
        store.put(found.drop_columns([IS_LATE]))
        before = FORCED_SOURCES.empty_table()
        if forced is not None:
            forced.record(outcome.coordinate, footprint, found, known)
            before = forced.history(footprint, found, days=HISTORY_DAYS)
        result.append(
            Associated(outcome.coordinate, outcome.timestamp_ms, footprint, found, history, before)
        )
    return result


def _without(known: pa.Table, images: set[tuple[int, int]]) -> pa.Table:
    """Return diaSources but those of some images: what a first attempt at a batch has not seen."""
    if known.num_rows == 0 or not images:
        return known
    places = zip(known["visit"].to_pylist(), known["detector"].to_pylist(), strict=True)
    return known.filter(pa.array([place not in images for place in places]))


def associate_image(sources: pa.Table, known: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Give the diaSources of one image their objects and histories.

    Parameters
    ----------
    sources : pa.Table
        The diaSources, `detection.columns.DIA_SOURCES`.
    known : pa.Table
        The stored diaSources around it, with `diaObjectId` and `objectPixel`; its own may be
        among them.

    Returns
    -------
    tuple of pa.Table
        The diaSources with `diaObjectId`, `objectPixel` (null for a new object) and `isLate`; and
        the earlier diaSources of these objects, oldest first, however long ago.
    """
    if known.num_rows == 0:
        known = _with_objects(sources.slice(0, 0), [], [], []).drop_columns([IS_LATE])
    found = associate(sources, known, radius_arcsec=RADIUS_ARCSEC)
    objects = found.dia_object_id.tolist()
    pixels = dict(
        zip(known["diaObjectId"].to_pylist(), known[OBJECT_PIXEL].to_pylist(), strict=True)
    )
    result = _with_objects(
        sources, objects, [pixels.get(name) for name in objects], found.is_late.tolist()
    )
    at = known.column_names.index("diaObjectId")
    known = known.set_column(at, "diaObjectId", pa.array(merged_objects(known), pa.int64()))
    return result, _history(known, sources, objects)


def _with_objects(
    sources: pa.Table, objects: list[int], pixels: list[int | None], is_late: list[bool]
) -> pa.Table:
    return (
        sources.append_column("diaObjectId", pa.array(objects, pa.int64()))
        .append_column(OBJECT_PIXEL, pa.array(pixels, pa.int64()))
        .append_column(IS_LATE, pa.array(is_late, pa.bool_()))
    )


def _history(known: pa.Table, sources: pa.Table, objects: list[int]) -> pa.Table:
    """Return the diaSources of objects of visits that are before an image's."""
    if sources.num_rows == 0:
        return known.slice(0, 0)
    time, first_id = sources["midpointMjdTai"][0], pc.min(sources["diaSourceId"])
    same_time = pc.equal(known["midpointMjdTai"], time)
    before = pc.or_(
        pc.less(known["midpointMjdTai"], time),
        pc.and_(same_time, pc.less(known["diaSourceId"], first_id)),
    )
    before = pc.and_(before, pc.not_equal(known["visit"], sources["visit"][0]))
    wanted = pc.is_in(known["diaObjectId"], pa.array(objects, pa.int64()))
    return known.filter(pc.and_(before, wanted)).sort_by(
        [("midpointMjdTai", "ascending"), ("diaSourceId", "ascending")]
    )


def alert_messages(associated: Associated, cutouts: pa.Table) -> Iterator[Message]:
    """Make the packets of one image, one a diaSource, in the order of the sources.

    Parameters
    ----------
    associated : Associated
        Its diaSources with their objects and histories.
    cutouts : pa.Table
        Their cutouts, in the same order.

    Yields
    ------
    Message
        A packet of schema `sim`; clocks are in its headers only, so equal images give equal bytes.
    """
    histories, fluxes = _by_object(associated.history), _by_object(associated.forced)
    headers = (
        (IMAGE_HEADER, str(associated.coordinate).encode()),
        (PUBLISHED_HEADER, str(associated.timestamp_ms).encode()),
        ("visit", str(associated.footprint.visit).encode()),
        ("detector", str(associated.footprint.detector).encode()),
    )
    pairs = zip(associated.sources.to_pylist(), cutouts.to_pylist(), strict=True)
    for source, images in pairs:
        name = source["diaObjectId"]
        record = alert_record(source, histories.get(name, []), fluxes.get(name, [])) | images
        yield Message(
            encode_sim(record),
            key=str(name).encode(),
            headers=(*headers, ("diaSourceId", str(source["diaSourceId"]).encode())),
        )


def _by_object(table: pa.Table) -> dict[int, list[dict[str, Any]]]:
    rows: dict[int, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        rows.setdefault(row["diaObjectId"], []).append(row)
    return rows


def alert_record(
    source: dict[str, Any],
    earlier: Sequence[dict[str, Any]],
    forced: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Return an alert without its cutouts, in the words of schema `sim`.

    Parameters
    ----------
    source : dict
        The diaSource with `diaObjectId` and `isLate`.
    earlier : sequence of dict
        All earlier diaSources of the object, oldest first; those within a year are sent.
    forced : sequence of dict
        Forced fluxes of the object before, oldest first; all are sent.
    """
    time = source["midpointMjdTai"]
    if source[IS_LATE]:
        source = source | {"flags": source["flags"] | int(SourceFlag.LATE_VISIT)}
    start = time - HISTORY_DAYS
    ra, dec = mean_position([*earlier, source])
    return {
        "diaSourceId": source["diaSourceId"],
        "diaSource": source,
        "prvDiaSources": [row for row in earlier if row["midpointMjdTai"] >= start],
        "prvDiaForcedSources": list(forced),
        "diaObject": {
            "diaObjectId": source["diaObjectId"],
            "ra": ra,
            "dec": dec,
            "firstDiaSourceMjdTai": (earlier[0] if earlier else source)["midpointMjdTai"],
            "lastDiaSourceMjdTai": time,
            "nDiaSources": len(earlier) + 1,
            "historyStartMjdTai": start,
        },
        "isLate": source[IS_LATE],
    }


def mean_position(sources: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Return the mean of diaSources' positions, weighted by their errors. [deg]

    Offsets from the last position are averaged on the plane that touches the sky there, so RA 0
    and the poles are no special places.
    """
    ra, dec, ra_err, dec_err = (
        np.array([s[name] for s in sources], dtype=np.float64)
        for name in ("ra", "dec", "raErr", "decErr")
    )
    plane = Wcs.from_scale(ra[-1], dec[-1], scale_arcsec=1.0, crpix=(0.0, 0.0))
    x, y = plane.sky_to_pixel(ra, dec)
    mean = plane.pixel_to_sky(
        np.average(x, weights=ra_err**-2.0), np.average(y, weights=dec_err**-2.0)
    )
    return float(mean[0]), float(mean[1])


def image_dead_letter(outcome: ImageOutcome, value: bytes | None) -> Message:
    """Return the dead letter of an image that failed.

    A body so large that with its headers it would be no message any more is left out; it still
    stands at its coordinate.
    """
    body = value if value is not None and len(value) <= _LARGEST_DEAD_BYTES else None
    return dead_letter(
        outcome.coordinate, "images", outcome.reason, body, timestamp_ms=outcome.timestamp_ms
    )


def detector_rows(outcomes: Iterable[ImageOutcome], known: Detectors) -> list[DetectorRow]:
    """Return what to keep of a batch's images, one row a message that could be read.

    A repeat of an image leaves its row as it is, and is added to the messages that carried it.

    Parameters
    ----------
    outcomes : iterable of ImageOutcome
        After `drop_repeats`.
    known : Detectors
        What is kept so far.
    """
    rows: dict[tuple[int, int], DetectorRow] = {}
    for outcome in sorted(outcomes, key=lambda o: o.status == DUPLICATE):
        place = outcome.footprint
        if place is None:
            continue
        at = place.place
        if outcome.status == DUPLICATE:
            row = rows.get(at) or known.get(*at)
            if row is None:  # cannot be: a repeat is of an image of this batch or of a kept one
                raise ServiceError(f"visit {at[0]} detector {at[1]} is not kept", visit=at[0])
            rows[at] = replace(row, origins=((outcome.coordinate, row.status), *row.origins))
        else:
            rows[at] = detector_row(outcome, place, rows.get(at))
    return list(rows.values())


def detector_row(
    outcome: ImageOutcome, place: Footprint, before: DetectorRow | None
) -> DetectorRow:
    """Return the row of an image; messages of the same batch with it that failed stay in it."""
    earlier = () if before is None else before.origins
    if before is not None and outcome.status == FAILED:
        return replace(before, origins=(*earlier, (outcome.coordinate, FAILED)))
    return DetectorRow(
        place.visit,
        place.detector,
        outcome.status,
        0 if outcome.sources is None else outcome.sources.num_rows,
        outcome.reason,
        (*earlier, (outcome.coordinate, outcome.status)),
        outcome.coordinate,
        outcome.template_version,
        outcome.calibration_set,
        outcome.scorecard,
    )

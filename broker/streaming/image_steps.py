"""The pixel pass of query 1, without Spark: one image by itself, from its message to diaSources."""

import json
import logging
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import pyarrow as pa

from broker.alerts.columns import CUTOUTS
from broker.detection.dia import detect_on_difference
from broker.detection.differencing.difference import Difference, subtract_template
from broker.detection.quality.scorecard import assess, of_difference
from broker.errors import AlertError, BrokerError
from broker.imaging.calibration_store import CalibrationStore
from broker.imaging.image import Image, RawExposure
from broker.imaging.message import decode_raw
from broker.imaging.reduce import NoCalibrationError
from broker.imaging.templates import Template, TemplateStore
from broker.store.objects import DONE, FAILED, NO_TEMPLATE, DetectorRow
from broker.streaming.night_versions import NightVersions
from broker.types import Coordinate, night_of
from broker.units import separation_arcsec

DUPLICATE = "duplicate"
"""What becomes of an image, beside `DONE`, `NO_TEMPLATE` and `FAILED`."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageMessage:
    """One message of `ccd-images`.

    Parameters
    ----------
    coordinate : Coordinate
        Where it stands.
    value : bytes or None
        Its body.
    timestamp_ms : int
        When it was published. [ms since 1970]
    """

    coordinate: Coordinate
    value: bytes | None
    timestamp_ms: int


@dataclass(frozen=True)
class Footprint:
    """An image that could be read: which it is, when, and the circle on the sky around it."""

    visit: int
    detector: int
    band: str
    midpoint_mjd_tai: float
    ra: float
    dec: float
    radius_deg: float

    @property
    def place(self) -> tuple[int, int]:
        """Visit and detector: what names an image."""
        return self.visit, self.detector


@dataclass(frozen=True)
class ImageOutcome:
    """What the pixel pass made of one image.

    Parameters
    ----------
    coordinate : Coordinate
        Where its message stands.
    timestamp_ms : int
        When it was published. [ms since 1970]
    status : str
        `DONE`, `NO_TEMPLATE`, `FAILED` or `DUPLICATE`.
    reason : str
        Why it failed, or what it is a duplicate of.
    footprint : Footprint or None
        None if the message could not be read.
    template_version : str
        The set of templates it was compared with; empty if there was none.
    calibration_set : str
        The master calibrations that took its signature out; empty if it needed none.
    sources : pa.Table or None
        Its diaSources, `detection.columns.DIA_SOURCES`; None unless it is done.
    cutouts : pa.Table or None
        Their cutouts, in the same order.
    scorecard : dict
        How good the image is, with its flags, see `detection.scorecard`.
    """

    coordinate: Coordinate
    timestamp_ms: int
    status: str
    reason: str = ""
    footprint: Footprint | None = None
    template_version: str = ""
    sources: pa.Table | None = None
    cutouts: pa.Table | None = None
    calibration_set: str = ""
    scorecard: dict[str, Any] = field(default_factory=dict)


class Detectors(Protocol):
    """Which images have been through; `store.objects.DetectorStore` is one."""

    def get(self, visit: int, detector: int) -> DetectorRow | None:
        """Return what became of an image; None if it is new."""
        ...


class Differences(Protocol):
    """Where difference images wait for the objects on them; `DifferenceFiles` is one."""

    def put(self, coordinate: Coordinate, difference: Difference) -> None:
        """Keep the difference of the image at a coordinate."""
        ...


def process_image(
    message: ImageMessage,
    *,
    templates: TemplateStore,
    versions: NightVersions,
    detectors: Detectors,
    differences: Differences | None = None,
    use_latest: bool = False,
) -> ImageOutcome:
    """Find the diaSources of one image; whatever is wrong with it is in the outcome.

    Parameters
    ----------
    message : ImageMessage
        The image.
    templates : TemplateStore
        The templates.
    versions : NightVersions
        Which set a night uses.
    detectors : Detectors
        Images already done: their recorded template version is used again, and another message
        with the same image is a duplicate.
    differences : Differences, optional
        Where to keep the difference for forced photometry.
    use_latest : bool
        Take the newest set of templates: for an image for which the night's had none, or that
        is processed once more.

    Raises
    ------
    ServiceError, ConfigError
        If a store does not answer or the set-up is wrong: nothing is known about the image then.
    """
    try:
        if not message.value:
            raise AlertError("the message is empty")
        raw = decode_raw(message.value)
        footprint = footprint_of(raw)
    except AlertError as error:
        return _without_sources(message, FAILED, error.message)
    known = detectors.get(*footprint.place)
    if known is not None and known.status != FAILED and known.first != message.coordinate:
        return _without_sources(message, DUPLICATE, f"of {known.first}", footprint)
    try:
        # Calibrations lie beside the templates; an image waits for either in the same way.
        image = CalibrationStore.beside(templates.path).image(raw)
    except NoCalibrationError as error:
        return _without_sources(message, NO_TEMPLATE, error.message, footprint)
    except AlertError as error:
        return _without_sources(message, FAILED, error.message, footprint)
    version = _version(footprint, known, templates, versions, use_latest=use_latest)
    template = None if version is None else find_template(templates, image, footprint, version)
    if version is None or template is None:
        waits = _without_sources(message, NO_TEMPLATE, "no template covers it", footprint)
        return replace(waits, scorecard=_judged(image))
    return _detect(message, image, footprint, template, differences)


def _version(
    footprint: Footprint,
    known: DetectorRow | None,
    templates: TemplateStore,
    versions: NightVersions,
    *,
    use_latest: bool,
) -> str | None:
    if use_latest:
        return templates.latest()
    if known is not None and known.status == DONE and known.template_version:
        return known.template_version
    return versions.version(night_of(footprint.midpoint_mjd_tai))


def find_template(
    templates: TemplateStore, image: Image, footprint: Footprint, version: str
) -> Template | None:
    """Return the template of a version that covers most of an image; None if there is none."""
    return templates.find(
        footprint.ra, footprint.dec, footprint.band, version, corners=_corners(image)
    )


def _detect(
    message: ImageMessage,
    image: Image,
    footprint: Footprint,
    template: Template,
    differences: Differences | None,
) -> ImageOutcome:
    try:
        difference = subtract_template(image, template)
        result = detect_on_difference(difference, template.version)
        card = of_difference(image, difference, result.scorecard)
    except AlertError as error:
        failed = _without_sources(message, FAILED, error.message, footprint)
        return replace(failed, scorecard=_judged(image, template, error.message))
    except (BrokerError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001  the stage's edge: one odd image must not stop a night
        _LOG.exception("image %s cannot be subtracted", message.coordinate)
        reason = f"{type(error).__name__}: {error}"
        return _without_sources(message, FAILED, reason, footprint)
    if differences is not None:
        differences.put(message.coordinate, difference)
    return ImageOutcome(
        message.coordinate,
        message.timestamp_ms,
        DONE,
        "",
        footprint,
        template.version,
        result.sources.drop_columns(list(CUTOUTS)),
        result.sources.select(list(CUTOUTS)),
        str(image.meta.get("calibrationSet", "")),
        card,
    )


def _judged(image: Image, template: Template | None = None, failure: str = "") -> dict[str, Any]:
    """Return the scorecard of an image that was not subtracted; empty if there can be none."""
    try:
        return assess(image, template, failure=failure)
    except Exception:  # noqa: BLE001  the stage's edge: an image that cannot be judged is not lost
        _LOG.exception("visit %d detector %d cannot be judged", image.visit, image.detector)
        return {}


def _without_sources(
    message: ImageMessage, status: str, reason: str, footprint: Footprint | None = None
) -> ImageOutcome:
    return ImageOutcome(message.coordinate, message.timestamp_ms, status, reason, footprint)


def footprint_of(image: Image | RawExposure) -> Footprint:
    """Return which image it is and the circle on the sky that holds it."""
    ny, nx = image.shape
    ra, dec = image.wcs.pixel_to_sky((nx - 1) / 2.0, (ny - 1) / 2.0)
    corner_ra, corner_dec = _corners(image)
    what = image.calibration
    radius = separation_arcsec(ra, dec, corner_ra, corner_dec).max() / 3600.0
    return Footprint(
        what.visit,
        what.detector,
        what.band,
        what.midpoint_mjd_tai,
        float(ra),
        float(dec),
        float(radius),
    )


def _corners(image: Image | RawExposure) -> tuple[Any, Any]:
    ny, nx = image.shape
    left, right, bottom, top = -0.5, nx - 0.5, -0.5, ny - 0.5
    corners: tuple[Any, Any] = image.wcs.pixel_to_sky(
        [left, right, right, left], [bottom, bottom, top, top]
    )
    return corners


PIXELS = pa.schema(
    [
        pa.field("topic", pa.string()),
        pa.field("partition", pa.int32()),
        pa.field("offset", pa.int64()),
        pa.field("timestampMs", pa.int64()),
        pa.field("outcome", pa.string()),
        pa.field("sources", pa.binary()),
        pa.field("cutouts", pa.binary()),
        pa.field("value", pa.binary()),
    ]
)
"""Arrow schema of the pixel pass: one row an image; `value` only where the image has failed."""


def outcome_to_row(outcome: ImageOutcome, value: bytes | None = None) -> pa.RecordBatch:
    """Return an outcome, and perhaps the message's body, as one row of `PIXELS`."""
    at, footprint = outcome.coordinate, outcome.footprint
    words = {
        "status": outcome.status,
        "reason": outcome.reason,
        "footprint": None if footprint is None else asdict(footprint),
        "templateVersion": outcome.template_version,
        "calibrationSet": outcome.calibration_set,
        "scorecard": outcome.scorecard,
    }
    row = [
        at.topic,
        at.partition,
        at.offset,
        outcome.timestamp_ms,
        json.dumps(words),
        _to_bytes(outcome.sources),
        _to_bytes(outcome.cutouts),
        value,
    ]
    arrays = [pa.array([cell], field.type) for cell, field in zip(row, PIXELS, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=PIXELS)


def outcome_from_row(
    coordinate: Coordinate, timestamp_ms: int, words: str, sources: bytes | None
) -> ImageOutcome:
    """Return an outcome, without its cutouts, from the light columns of its row."""
    said = json.loads(words)
    footprint = said["footprint"]
    return ImageOutcome(
        coordinate,
        timestamp_ms,
        said["status"],
        said["reason"],
        None if footprint is None else Footprint(**footprint),
        said["templateVersion"],
        None if sources is None else table_from_bytes(sources),
        calibration_set=said["calibrationSet"],
        scorecard=said["scorecard"],
    )


def table_from_bytes(stream: bytes) -> pa.Table:
    """Return the table of an Arrow stream."""
    with pa.ipc.open_stream(stream) as reader:
        return reader.read_all()


def _to_bytes(table: pa.Table | None) -> bytes | None:
    if table is None:
        return None
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    stream: bytes = sink.getvalue().to_pybytes()
    return stream

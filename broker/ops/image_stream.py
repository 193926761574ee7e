"""Images that the stream has taken, made again: from the message, with what it was done with."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from broker.alerts.columns import CUTOUTS
from broker.detection.dia import detect_on_difference
from broker.detection.differencing.difference import Difference, subtract_template
from broker.errors import AlertError
from broker.imaging.calibration_store import CalibrationStore
from broker.imaging.fits import write_image
from broker.imaging.image import Image
from broker.imaging.mask import MaskPlane, set_plane
from broker.imaging.message import decode_raw
from broker.imaging.psf import GaussianPsf
from broker.imaging.reduce import NoCalibrationError
from broker.imaging.tables import write_table
from broker.imaging.templates import Template, TemplateStore
from broker.ops.image_files import DIA_UNITS
from broker.ops.image_provenance import ID_CHARACTERS, checksum, keep, software
from broker.store.objects import DetectorRow, DetectorStore
from broker.streaming.image_steps import Footprint, find_template, footprint_of
from broker.topics.topic import Topics

TASK = "stream"


@dataclass(frozen=True)
class StreamImages:
    """Where a run's images are and what they were done with.

    Parameters
    ----------
    topics : Topics
        Where their messages stand.
    detectors : DetectorStore
        What became of each.
    templates : Path
        The run's folder of templates; its calibrations lie beside.
    home : Path
        The broker's home: records are kept under it.
    """

    topics: Topics
    detectors: DetectorStore
    templates: Path
    home: Path


def recreate_image(
    where: StreamImages, visit: int, detector: int, out: Path
) -> list[dict[str, Any]]:
    """Make the calibrated image of a detector again, and what was found on it, if it was done.

    Writes VISIT-DETECTOR-calibrated.fits; and of an image that has been subtracted,
    VISIT-DETECTOR-difference.fits and VISIT-DETECTOR-diasources.parquet. All say what they were
    made from; the same image gives the same bytes.

    Parameters
    ----------
    where : StreamImages
    visit, detector : int
    out : Path
        Folder; made if it is not there.

    Returns
    -------
    list of dict
        `file`, `sha256`, and `identical`: whether it is what it was the time before, None if
        this is the first time.

    Raises
    ------
    AlertError
        If the image is not known, its message is no longer on the topic, or its calibrations or
        templates are gone.
    """
    row = where.detectors.get(visit, detector)
    if row is None or row.first is None:
        raise AlertError(f"visit {visit} detector {detector} is no image that the stream has taken")
    message = where.topics.get(row.first)
    if message is None or not message.value:
        raise AlertError(
            f"the message {row.first} of visit {visit} detector {detector} is gone: the topic "
            "keeps images for a time only"
        )
    raw = decode_raw(message.value)
    try:
        image = CalibrationStore.beside(where.templates).image(raw)
    except NoCalibrationError as error:
        raise AlertError(f"{error.message}: they are gone") from error
    record = _record(row, message.value)
    image = _saying(image, record)
    out.mkdir(parents=True, exist_ok=True)
    stem = f"{visit}-{detector}"
    files = [out / f"{stem}-calibrated.fits"]
    write_image(files[0], image)
    if row.template_version:
        difference = subtract_template(image, _template(where, image, footprint_of(raw), row))
        files += [out / f"{stem}-difference.fits", out / f"{stem}-diasources.parquet"]
        _write_difference(files[1], difference, record)
        found = detect_on_difference(difference, row.template_version).sources
        sources = found.drop_columns(list(CUTOUTS))
        write_table(files[2], sources, units=DIA_UNITS, record=record)
    return _compared(where.home, record, files)


def _record(row: DetectorRow, value: bytes) -> dict[str, Any]:
    record = {
        "task": TASK,
        "inputs": [
            {
                "role": "raw",
                "name": str(row.first),
                "path": str(row.first),
                "sha256": hashlib.sha256(value).hexdigest(),
            }
        ],
        "settings": {
            "visit": row.visit,
            "detector": row.detector,
            "calibrationSet": row.calibration_set,
            "templateVersion": row.template_version,
        },
        "software": software(),
    }
    text = json.dumps(record, sort_keys=True).encode()
    return record | {"id": hashlib.sha256(text).hexdigest()[:ID_CHARACTERS]}


def _saying(image: Image, record: dict[str, Any]) -> Image:
    return replace(image, meta=image.meta | {"provenance": record})


def _template(
    where: StreamImages, image: Image, footprint: Footprint, row: DetectorRow
) -> Template:
    store = TemplateStore(where.templates)
    version = row.template_version
    if version not in store.versions():
        raise AlertError(f"the templates {version} it was subtracted with are gone")
    template = find_template(store, image, footprint, version)
    if template is None:
        raise AlertError(f"the templates {version} no longer cover the image")
    return template


def _write_difference(path: Path, difference: Difference, record: dict[str, Any]) -> None:
    science = difference.science
    mask = science.mask.copy()
    set_plane(mask, MaskPlane.NO_DATA, difference.unusable)
    result = science.with_arrays(pixels=difference.pixels, variance=difference.variance, mask=mask)
    write_image(path, replace(_saying(result, record), psf=GaussianPsf(difference.psf_sigma)))


def _compared(home: Path, record: dict[str, Any], files: list[Path]) -> list[dict[str, Any]]:
    """Return a row for each product, held against the record of the time before, and keep it."""
    now = {path.name: checksum(path) for path in files}
    kept = home / "provenance" / f"{record['id']}.json"
    before = json.loads(kept.read_text(encoding="utf-8"))["products"] if kept.is_file() else {}
    if not before:
        keep(home, record | {"folder": str(files[0].parent.absolute()), "products": now})
    return [
        {
            "file": str(path),
            "identical": before[path.name] == now[path.name] if path.name in before else None,
            "sha256": now[path.name],
        }
        for path in files
    ]

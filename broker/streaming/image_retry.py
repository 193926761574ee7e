"""Images that had no template, processed once there is one."""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from broker.imaging.calibration_store import CalibrationStore
from broker.imaging.templates import TemplateStore
from broker.store.forced import ForcedStore
from broker.store.objects import (
    DONE,
    FAILED,
    NO_TEMPLATE,
    AssociationStore,
    DetectorRow,
    DetectorStore,
)
from broker.store.retractions import RetractionStore
from broker.store.table import Tables
from broker.streaming.image_alerts import alert_messages, associate_images, detector_row
from broker.streaming.image_differences import DifferenceFiles
from broker.streaming.image_forced import ForcedPhotometry
from broker.streaming.image_steps import (
    ImageMessage,
    ImageOutcome,
    process_image,
)
from broker.streaming.night_versions import NightVersions
from broker.topics.topic import Topics
from broker.types import Run

SURVEY = "sim"
"""The survey whose alerts our own images make."""

_RETRIED = ".retried"
"""File beside the templates with the last version that all waiting images were tried with."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageWork:
    """What images are processed again with.

    Parameters
    ----------
    run : Run
        Whose.
    topics : Topics
        Where the images still stand, at their coordinates, and where packets go.
    templates : TemplateStore
        The templates.
    store : AssociationStore
        The diaSources so far.
    forced : ForcedStore
        The forced fluxes so far.
    retractions : RetractionStore
        What was withdrawn.
    detectors : DetectorStore
        What became of each image.
    differences : DifferenceFiles
        Where difference images wait.
    """

    run: Run
    topics: Topics
    templates: TemplateStore
    store: AssociationStore
    forced: ForcedStore
    retractions: RetractionStore
    detectors: DetectorStore
    differences: DifferenceFiles

    @classmethod
    def of(cls, run: Run, *, topics: Topics, tables: Tables, home: Callable[[str], Path]) -> Self:
        """Return the work on a run's stores.

        Parameters
        ----------
        run : Run
        topics, tables : Topics, Tables
            Kafka and HBase, or memory.
        home : callable
            From `templates` and `differences` to their folders: `Config.run_path`.
        """
        return cls(
            run,
            topics,
            TemplateStore(home("templates")),
            AssociationStore(tables, run),
            ForcedStore(tables, run),
            RetractionStore(tables, run),
            DetectorStore(tables, run),
            DifferenceFiles(home("differences")),
        )

    def process(self, row: DetectorRow) -> ImageOutcome | None:
        """Return what the newest templates make of an image; None if its message is gone."""
        message = None if row.first is None else self.topics.get(row.first)
        if message is None or row.first is None:
            _LOG.warning("visit %d detector %d has no message any more", row.visit, row.detector)
            return None
        return process_image(
            ImageMessage(row.first, message.value, message.timestamp_ms or 0),
            templates=self.templates,
            versions=NightVersions(self.templates),
            detectors=self.detectors,
            differences=self.differences,
            use_latest=True,
        )

    def publish(self, outcome: ImageOutcome) -> None:
        """Store the diaSources and forced fluxes of an image, then publish its alerts."""
        forced = ForcedPhotometry(self.forced, self.differences)
        for associated in associate_images([outcome], store=self.store, forced=forced):
            packets = list(alert_messages(associated, outcome.cutouts))
            self.topics.send(self.run.alerts_topic(SURVEY), packets)
        forced.drop(outcome.coordinate)


def retry_no_template(work: ImageWork) -> dict[str, int]:
    """Process the images that had no template, with the newest ones, as far as these cover them.

    Nothing is done if there has been no new set of templates or calibrations since the last time.
    To be called while the images query does not run: there is one writer of objects.

    Parameters
    ----------
    work : ImageWork

    Returns
    -------
    dict
        Images by what became of them: `done`; `no-template` for those that wait on; `failed` for
        those that could not be used, which wait on too; `gone` if the message is no longer there.
    """
    latest = work.templates.latest()
    marker = work.templates.path / _RETRIED
    if latest is None:
        return {}
    # An image may wait for its calibrations, too.
    latest = " ".join([latest, *CalibrationStore.beside(work.templates.path).names()])
    if marker.exists() and marker.read_text(encoding="utf-8") == latest:
        return {}
    waiting = sorted(
        (row for row in work.detectors.all() if row.status == NO_TEMPLATE),
        key=lambda row: (row.visit, row.detector),
    )
    counts: Counter[str] = Counter()
    for row in waiting:
        outcome = work.process(row)
        counts["gone" if outcome is None else outcome.status] += 1
        if outcome is not None and outcome.status == DONE:
            _publish(row, outcome, work)
        elif outcome is not None and outcome.status == FAILED:
            _LOG.warning("image %s waits on: %s", outcome.coordinate, outcome.reason)
    marker.write_text(latest, encoding="utf-8")
    return dict(counts)


def _publish(row: DetectorRow, outcome: ImageOutcome, work: ImageWork) -> None:
    """Store, publish and record one image, in the order of a micro-batch."""
    work.publish(outcome)
    if outcome.footprint is not None:
        done = detector_row(outcome, outcome.footprint, None)
        carried = tuple((at, DONE) for at, status in row.origins if status == NO_TEMPLATE)
        work.detectors.put([replace(done, origins=carried)])

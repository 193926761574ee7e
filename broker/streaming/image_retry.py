"""Images that had no template, processed once there is one."""

import logging
from collections import Counter
from dataclasses import replace

from broker.imaging.templates import TemplateStore
from broker.store.objects import DONE, FAILED, NO_TEMPLATE, DetectorRow, DetectorStore
from broker.streaming.image_alerts import (
    Associations,
    alert_messages,
    associate_images,
    detector_row,
)
from broker.streaming.image_steps import (
    ImageMessage,
    ImageOutcome,
    NightVersions,
    process_image,
)
from broker.topics.topic import Topics

_RETRIED = ".retried"
"""File beside the templates with the last version that all waiting images were tried with."""

_LOG = logging.getLogger(__name__)


def retry_no_template(
    *,
    topics: Topics,
    templates: TemplateStore,
    store: Associations,
    detectors: DetectorStore,
    to_topic: str,
) -> dict[str, int]:
    """Process the images that had no template, with the newest ones, as far as these cover them.

    Nothing is done if there has been no new set of templates since the last time. To be called
    while the images query does not run: there is one writer of objects.

    Parameters
    ----------
    topics : Topics
        Where the images still stand, at their coordinates.
    templates : TemplateStore
        The templates.
    store : Associations
        The diaSources so far.
    detectors : DetectorStore
        Which images wait.
    to_topic : str
        Topic of the alerts.

    Returns
    -------
    dict
        Images by what became of them: `done`; `no-template` for those that wait on; `failed` for
        those that could not be used, which wait on too; `gone` if the message is no longer there.
    """
    latest = templates.latest()
    marker = templates.path / _RETRIED
    if latest is None or (marker.exists() and marker.read_text(encoding="utf-8") == latest):
        return {}
    waiting = sorted(
        (row for row in detectors.all() if row.status == NO_TEMPLATE),
        key=lambda row: (row.visit, row.detector),
    )
    counts: Counter[str] = Counter()
    for row in waiting:
        outcome = _process(row, topics, templates, detectors)
        counts["gone" if outcome is None else outcome.status] += 1
        if outcome is not None and outcome.status == DONE:
            _publish(row, outcome, topics, store, detectors, to_topic)
        elif outcome is not None and outcome.status == FAILED:
            _LOG.warning("image %s waits on: %s", outcome.coordinate, outcome.reason)
    marker.write_text(latest, encoding="utf-8")
    return dict(counts)


def _process(
    row: DetectorRow, topics: Topics, templates: TemplateStore, detectors: DetectorStore
) -> ImageOutcome | None:
    """Return what the newest templates make of a waiting image; None if it is gone."""
    message = None if row.first is None else topics.get(row.first)
    if message is None or row.first is None:
        _LOG.warning("visit %d detector %d has no message any more", row.visit, row.detector)
        return None
    return process_image(
        ImageMessage(row.first, message.value, message.timestamp_ms or 0),
        templates=templates,
        versions=NightVersions(templates),
        detectors=detectors,
        use_latest=True,
    )


def _publish(
    row: DetectorRow,
    outcome: ImageOutcome,
    topics: Topics,
    store: Associations,
    detectors: DetectorStore,
    to_topic: str,
) -> None:
    """Store, publish and record one image, in the order of a micro-batch."""
    for associated in associate_images([outcome], store=store):
        topics.send(to_topic, list(alert_messages(associated, outcome.cutouts)))
    if outcome.footprint is not None:
        done = detector_row(outcome, outcome.footprint, None)
        carried = tuple((at, DONE) for at, status in row.origins if status == NO_TEMPLATE)
        detectors.put([replace(done, origins=carried)])

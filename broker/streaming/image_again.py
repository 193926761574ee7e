"""A run's images once more, on its own Kafka and HBase: which ones, by whom, and when."""

import time
from collections.abc import Callable, Collection, Iterable

from broker.config import Config
from broker.errors import AlertError, ConfigError
from broker.store.alerts import create_tables
from broker.store.objects import DONE, DetectorRow
from broker.streaming.image_reprocess import reprocess_images
from broker.streaming.image_retry import SURVEY, ImageWork, retry_no_template
from broker.streaming.query import create_topics, open_tables
from broker.streaming.writer import only_writer
from broker.topics.kafka import KafkaTopics
from broker.types import night_of
from broker.units import unix_s_to_mjd_tai


def chosen_images(
    rows: Iterable[DetectorRow],
    *,
    visits: Collection[int] = (),
    detectors: Collection[int] = (),
    night: str = "",
) -> set[tuple[int, int]]:
    """Return visits and detectors of images that are done and are asked for.

    Parameters
    ----------
    rows : iterable of DetectorRow
    visits, detectors : collection of int
        Empty: all.
    night : str
        `YYYYMMDD`; empty: all. An image without a scorecard is of no night.

    Raises
    ------
    AlertError
        If there is none.
    """
    found = {
        (row.visit, row.detector)
        for row in rows
        if row.status == DONE
        and (not visits or row.visit in visits)
        and (not detectors or row.detector in detectors)
        and (not night or _night(row) == night)
    }
    if not found:
        raise AlertError("no image that is done is among those asked for")
    return found


def _night(row: DetectorRow) -> str:
    middle = row.scorecard.get("midpointMjdTai")
    return "" if middle is None else night_of(float(middle))


def reprocess_run(
    config: Config,
    *,
    visits: Collection[int] = (),
    detectors: Collection[int] = (),
    night: str = "",
    again: bool = False,
    advance: Callable[[], object] = lambda: None,
) -> dict[str, int]:
    """Process a run's images with the newest templates and this software.

    Images that waited for templates come first, as when the query starts.

    Parameters
    ----------
    config : Config
    visits, detectors, night
        As for `chosen_images`.
    again : bool
        Also images that were done with the newest templates; so is what is chosen by visit,
        detector or night.
    advance : callable
        Called after each image.

    Returns
    -------
    dict
        As `reprocess_images`, and `waited`: images that had no template and are done now.

    Raises
    ------
    ConfigError
        If the images query runs, or there has never been one.
    AlertError
        If there is no image that is asked for.
    ServiceError
        If Kafka or HBase does not answer.
    """
    run = config.the_run
    with only_writer(config):
        topics, tables = KafkaTopics(config.kafka.bootstrap), open_tables(config)
        try:
            if run.table("detector") not in tables.names():
                raise ConfigError(f"run {run.name} has no images: none has been taken in yet")
            create_topics(topics, config, [run.alerts_topic(SURVEY)])
            create_tables(tables, run, config.hbase.regions)
            work = ImageWork.of(run, topics=topics, tables=tables, home=config.run_path)
            waited = retry_no_template(work).get(DONE, 0)
            named = bool(visits or detectors or night or again)
            images = (
                chosen_images(work.detectors.all(), visits=visits, detectors=detectors, night=night)
                if named
                else None
            )
            now = float(unix_s_to_mjd_tai(time.time()))
            counts = reprocess_images(work, now_mjd_tai=now, images=images, advance=advance)
        finally:
            topics.close()
            tables.close()
    return {"waited": waited, **counts}

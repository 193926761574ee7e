"""`broker simulate`: make a night of CCD images, or packets of a survey."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from broker.cli.main import load
from broker.cli.output import emit_rows, json_option, progress
from broker.config import Config
from broker.errors import ConfigError
from broker.topics.topic import Message, Topics, TopicSettings
from broker.types import IMAGES

COLUMNS = ("night", "seed", "images", "megabytes", "injected", "templates", "catalog", "topic")
FILE_COLUMNS = ("night", "seed", "images", "injected", "templates", "folder")
FRAME_COLUMNS = ("seed", "exposures", "bias", "dark", "flat", "transients", "folder")
PACKET_COLUMNS = ("survey", "packets", "megabytes", "to")
_BATCH = 200


def _night_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        json_option,
        click.option(
            "--out",
            type=click.Path(path_type=Path, file_okay=False),
            help="Write FITS files into this folder; nothing is published.",
        ),
        click.option(
            "--preset",
            type=click.Choice(["demo", "small", "test"]),
            default="demo",
            show_default=True,
            help="Size of the night: 48 or 16 images of 1024 × 1024, or 2 of 256 × 256.",
        ),
        click.option(
            "--hold",
            is_flag=True,
            help="Wait for a line on standard input before the first image is published.",
        ),
        click.option(
            "--every-s",
            type=click.FloatRange(0.0),
            default=0.0,
            show_default=True,
            help="Seconds from one visit to the next; 0 publishes as fast as it draws.",
        ),
        click.option(
            "--night-index",
            type=click.IntRange(0, 10_000),
            default=0,
            show_default=True,
            help="Which night: the same sky, as many days later.",
        ),
        click.option(
            "--seed",
            type=click.IntRange(0),
            default=1,
            show_default=True,
            help="The same seed gives the same sky and the same bytes.",
        ),
    ):
        function = option(function)
    return function


@click.group(invoke_without_command=True)
@_night_options
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Simulate a night of CCD images (the default), or a survey's packets.

    Example: broker simulate --seed 1
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(night, **options)


@command.command()
@_night_options
@click.pass_context
def night(
    ctx: click.Context,
    seed: int,
    night_index: int,
    preset: str,
    every_s: float,
    hold: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Publish one night's images on the topic ccd-images, or write them as FITS files.

    Templates and the reference catalogue of the same sky are installed before; the truth is written
    for the final comparison. With --out they are all files in that folder: raw images, templates,
    reference.parquet, truth.parquet; with a raw camera bias, dark and flat sequences, too. No
    server is needed then.

    Example: broker simulate night --seed 1 --night-index 0
    """
    from broker.cli.assemble import make_topics

    if out is not None:
        row = write_night(out, seed=seed, night_index=night_index, preset=preset)
        emit_rows([row], FILE_COLUMNS, as_json=as_json)
        return
    config = load(ctx)
    topics = make_topics(config)
    try:
        row = publish_night(
            config,
            topics,
            seed=seed,
            night_index=night_index,
            preset=preset,
            every_s=every_s,
            ready=sys.stdin.readline if hold else lambda: None,
        )
    finally:
        topics.close()
    emit_rows([row], COLUMNS, as_json=as_json)


def publish_night(
    config: Config,
    topics: Topics,
    *,
    seed: int,
    night_index: int = 0,
    preset: str = "demo",
    every_s: float = 0.0,
    ready: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Install what comes before a night, publish its images, write its truth; say what was done.

    Parameters
    ----------
    config, topics : Config, Topics
        Where.
    seed, night_index, preset
        Which night.
    every_s : float
        Time from one visit to the next. [s]
    ready : callable
        Called before the first image is published; returns when it may be.
    """
    from broker.simulation.observatory import simulate_night, write_truth
    from broker.simulation.settings import PRESETS

    simulated = simulate_night(seed=seed, night_index=night_index, settings=PRESETS[preset])
    version, rows = install_survey(config, seed=seed, preset=preset)
    topic = config.the_run.internal_topic(IMAGES)
    topics.create(topic, TopicSettings(partitions=config.kafka.partitions))
    partitions = len(topics.ranges(topic))
    ready()
    truth, size, began = [], 0, time.monotonic()
    with progress("images", len(simulated)) as advance:
        for number, exposure in enumerate(simulated.exposures()):
            due = began + number // simulated.settings.detectors * every_s
            time.sleep(max(0.0, due - time.monotonic()))
            # Detectors spread over the partitions evenly: each batch then takes whole visits.
            topics.send(topic, [exposure.message], exposure.detector % partitions)
            truth.append(exposure.truth)
            size += len(exposure.message.value or b"")
            advance(1)
    write_truth(config.run_path("truth"), simulated.night, truth)
    return {
        "night": simulated.night,
        "seed": seed,
        "images": len(simulated),
        "megabytes": round(size / 1e6, 1),
        "injected": sum(len(table) for table in truth),
        "templates": version,
        "catalog": rows,
        "topic": topic,
    }


def write_night(
    out: Path, *, seed: int, night_index: int = 0, preset: str = "demo"
) -> dict[str, Any]:
    """Write a night's raw images, templates, catalogue and truth as files; say what was done."""
    import pyarrow as pa

    from broker.imaging.fits import write_image, write_raw
    from broker.imaging.raw_fits import write_snaps
    from broker.imaging.tables import write_table
    from broker.simulation.frames import write_calibrations
    from broker.simulation.observatory import (
        count_templates,
        make_templates,
        reference_catalog,
        simulate_night,
    )
    from broker.simulation.settings import PRESETS
    from broker.simulation.truth import truth_of

    settings = PRESETS[preset]
    simulated = simulate_night(seed=seed, night_index=night_index, settings=settings)
    truth = []
    with progress("images", len(simulated)) as advance:
        for visit in simulated.visits:
            for detector in range(settings.detectors):
                drawn = simulated.draw(visit, detector)
                field = settings.fields[visit.field].name
                name = f"{field}-{detector}-{visit.band}-{visit.visit}"
                if drawn.raw.layout is None:
                    write_raw(out / "raw" / f"{name}.fits", drawn.raw)
                else:
                    write_snaps(out / "raw", name, drawn.raw)
                truth.append(truth_of(seed, settings, drawn))
                advance(1)
    with progress("templates", count_templates(settings)) as advance:
        places = [
            (f.name, d, b)
            for f in settings.fields
            for d in range(settings.detectors)
            for b in settings.bands
        ]
        made = make_templates(seed, settings, advance=advance)
        for (field, detector, band), image in zip(places, made, strict=True):
            write_image(out / "templates" / f"{field}-{detector}-{band}.fits", image)
    if settings.camera.is_raw:
        write_calibrations(out, seed, settings)
    write_table(out / "reference.parquet", reference_catalog(seed, settings))
    table = pa.concat_tables(truth)
    write_table(out / "truth.parquet", table)
    return {
        "night": simulated.night,
        "seed": seed,
        "images": len(simulated),
        "injected": len(table),
        "templates": len(places),
        "folder": str(out),
    }


def own_catalogs(config: Config) -> Path:
    """Return the folder of catalogues that is the run's own: a simulated sky is no other run's."""
    return Path(config.catalog.path) if config.catalog.path else config.run_path("catalogs")


def install_survey(config: Config, *, seed: int, preset: str = "demo") -> tuple[str, int]:
    """Install the templates and the reference catalogue; return their version and the rows."""
    from broker.catalog.registry import install_catalog
    from broker.imaging.calibration_store import CalibrationStore
    from broker.imaging.templates import TemplateStore
    from broker.simulation.calibrations import build_calibrations
    from broker.simulation.observatory import (
        CATALOG,
        build_templates,
        count_templates,
        reference_catalog,
    )
    from broker.simulation.settings import PRESETS

    settings = PRESETS[preset]
    store = TemplateStore(config.run_path("templates"))
    build_calibrations(seed, settings, CalibrationStore(config.run_path("calibrations")))
    with progress("templates", count_templates(settings)) as advance:
        version = build_templates(seed, settings, store, advance=advance)
    own_catalogs(config).mkdir(parents=True, exist_ok=True)
    rows = install_catalog(
        config.catalog_path, CATALOG, reference_catalog(seed, settings), f"{preset}-{seed}"
    )
    return version, rows


@command.command()
@click.option(
    "--seed", type=click.IntRange(0), default=1, show_default=True, help="Same seed, same bytes."
)
@click.option(
    "--preset",
    type=click.Choice(["demo", "small", "test"]),
    default="test",
    show_default=True,
    help="Sky and camera: detectors of 1024 × 1024, or one of 256 × 256.",
)
@click.option(
    "--exposures",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="How many science exposures.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the files; made if it is not there.",
)
@json_option
def frames(seed: int, preset: str, exposures: int, out: Path, as_json: bool) -> None:
    """Write raw frames as a camera does: science exposures, biases, darks and flats.

    Amplifiers are extensions with overscan (DATASEC, BIASSEC, DETSEC); a visit has two snaps.
    light/ has what the exposures should be, truth.parquet the transients. `broker image master`
    and `broker image reduce --snaps` work on them.

    Example: broker simulate frames --out frames
    """
    from broker.imaging.tables import write_table
    from broker.simulation.frames import count_frames, raw_settings, write_frames
    from broker.simulation.settings import PRESETS

    settings = raw_settings(PRESETS[preset])
    with progress("frames", count_frames(settings, exposures)) as advance:
        counts, truth = write_frames(
            out, seed=seed, settings=settings, exposures=exposures, advance=advance
        )
    write_table(out / "truth.parquet", truth)
    row = {"seed": seed, "exposures": exposures, "transients": len(truth), **counts}
    emit_rows([row | {"folder": str(out)}], FRAME_COLUMNS, as_json=as_json)


@command.command()
@click.option("--survey", type=click.Choice(["ztf", "lsst"]), required=True, help="Whose packets.")
@click.option("-n", "number", type=click.IntRange(1), required=True, help="How many.")
@click.option(
    "--seed", type=click.IntRange(0), default=1, show_default=True, help="Same seed, same bytes."
)
@click.option("--to", "topic", help="Topic; default the survey's alerts topic of this run.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write files into this folder instead.",
)
@json_option
@click.pass_context
def packets(
    ctx: click.Context,
    survey: str,
    number: int,
    seed: int,
    topic: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Make packets with a survey's framing, schema and sizes, each with its own id and position.

    Example: broker simulate packets --survey ztf -n 100 --out packets
    """
    from broker.simulation.packets import simulate_packets

    if topic and out:
        raise click.UsageError("--to and --out exclude each other")
    config = load(ctx)
    name = topic or config.the_run.alerts_topic(survey)
    size = 0
    with progress("packets", number) as advance:
        made = simulate_packets(survey, number, seed)
        if out:
            out.mkdir(parents=True, exist_ok=True)
            for i, packet in enumerate(made):
                (out / f"{survey}-{seed}-{i:07d}.avro").write_bytes(packet)
                size += len(packet)
                advance(1)
        else:
            size = _send(config, name, made, advance)
    row = {"survey": survey, "packets": number, "megabytes": round(size / 1e6, 1)}
    emit_rows([row | {"to": str(out or name)}], PACKET_COLUMNS, as_json=as_json)


def _send(config: Config, name: str, made: Any, advance: Callable[[int], None]) -> int:
    """Send packets in batches; return their bytes."""
    from broker.cli.assemble import make_topics

    if not name:
        raise ConfigError("the topic's name is empty")
    topics = make_topics(config)
    size = 0
    try:
        topics.create(name, TopicSettings(partitions=config.kafka.partitions))
        batch: list[Message] = []
        for packet in made:
            batch.append(Message(packet))
            size += len(packet)
            if len(batch) == _BATCH:
                topics.send(name, batch)
                advance(len(batch))
                batch = []
        topics.send(name, batch)
        advance(len(batch))
    finally:
        topics.close()
    return size

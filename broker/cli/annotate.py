"""`broker annotate`: what a remote service says of the alerts of a topic."""

import click

from broker.cli.assemble import tables_of, topics_of
from broker.cli.main import load
from broker.cli.output import emit_rows, json_option

_COLUMNS = ("alerts", "match", "no-match", "failed", "not-asked", "remembered", "chosen")


@click.command()
@click.option("--topic", required=True, help="Topic whose alerts are annotated.")
@click.option("--service", "url", required=True, help="Address of a cone search over HTTP.")
@click.option("--name", required=True, help="Name of the service in annotations.")
@click.option("--radius", type=click.FloatRange(0.0, 3600.0, min_open=True), default=2.0,
              show_default=True, help="An entry matches within this radius. [arcsec]")  # fmt: skip
@click.option("--ra", default="ra", show_default=True, help="Its column of right ascension. [deg]")
@click.option("--dec", default="dec", show_default=True, help="Its column of declination. [deg]")
@click.option("--id", "id_", default="id", show_default=True, help="Its column of identifiers.")
@click.option("--number", "numbers", multiple=True, help="OURS=THEIRS: a number to take.")
@click.option("--text", "texts", multiple=True, help="OURS=THEIRS: a text to take.")
@click.option("--where", help="Expression that chooses annotated alerts for the topic of --into.")
@click.option("--into", help="Topic that chosen alerts go to.")
@click.option("--timeout", type=click.FloatRange(0.1), default=10.0, show_default=True,
              help="For one question. [s]")  # fmt: skip
@click.option("--tries", type=click.IntRange(1, 10), default=3, show_default=True,
              help="How often a question is asked in all.")  # fmt: skip
@click.option("--per-second", type=click.FloatRange(0.001), default=5.0, show_default=True,
              help="Questions a second at most.")  # fmt: skip
@click.option("--since", default="earliest", show_default=True,
              help="Where its first start begins.")  # fmt: skip
@click.option("--idle", type=click.FloatRange(0.0), help="End when nothing came for so long. [s]")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    topic: str,
    url: str,
    name: str,
    radius: float,
    ra: str,
    dec: str,
    id_: str,
    numbers: tuple[str, ...],
    texts: tuple[str, ...],
    where: str | None,
    into: str | None,
    timeout: float,
    tries: int,
    per_second: float,
    since: str,
    idle: float | None,
    as_json: bool,
) -> None:
    """Ask a remote cone search about the alerts of a topic and publish what it says.

    The answer is kept with the alert and goes to public.annotations: match, no-match, failed or
    not-asked. With --where and --into, alerts that an expression chooses over their own columns
    and annotation_status, annotation_separation, annotation_<ours>… go on to another topic.

    Example: broker annotate --topic young-supernova --service http://127.0.0.1/scs --name gaia
    """
    import time

    from broker.client.consumer import Schemas, starting_ms
    from broker.errors import ConfigError
    from broker.ops.annotate import Annotator, annotation_filter
    from broker.ops.annotate_answer import Names
    from broker.ops.annotate_read import packet_columns, packet_reader
    from broker.ops.annotate_service import ConeService, Patience
    from broker.store.annotations import AnnotationStore
    from broker.topics.kafka_group import KafkaGroup
    from broker.topics.publish import schemas_topic
    from broker.units import unix_s_to_mjd_tai

    if (where is None) != (into is None):
        raise click.UsageError("--where and --into come together")
    if not name.replace("-", "").isalnum():
        raise click.UsageError("--name is letters, digits and dashes")
    config = load(ctx)
    run = config.the_run
    source = topic if topic.endswith((".slim", ".full")) else run.public_topic(topic, "slim")
    names = Names(ra, dec, id_, _pairs(numbers), _pairs(texts))
    patience = Patience(timeout_s=timeout, tries=tries, per_s=per_second)
    service = ConeService(url, radius_arcsec=radius, names=names, patience=patience)
    chosen = None
    if where is not None and into is not None:
        target = run.public_topic(into, source.rsplit(".", 1)[1])
        if target == source:
            raise ConfigError(f"{into} is the topic that is read; chosen alerts go to another")
        columns = packet_columns(config)
        chosen = annotation_filter(where, target, columns=columns, names=names)
    with tables_of(ctx) as tables, topics_of(ctx) as topics:
        if run.table("annotation") not in tables.names():
            raise ConfigError(f"run {run.name} cannot be annotated: start `broker stream alerts`")
        annotator = Annotator(
            service,
            name=name,
            store=AnnotationStore(tables, run),
            topics=topics,
            run=run,
            read=packet_reader(Schemas(topics, schemas_topic(run)).get),
            clock=lambda: float(unix_s_to_mjd_tai(time.time())),
            chosen=chosen,
        )
        group = f"annotate-{run.name}-{name}"
        reader = KafkaGroup(config.kafka.bootstrap, source, group, start_ms=starting_ms(since))
        try:
            counts = annotator.run(reader, idle_s=idle, monotonic=time.monotonic)
        finally:
            reader.close()
    emit_rows([{key: counts[key] for key in _COLUMNS}], _COLUMNS, as_json=as_json)


def _pairs(given: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for text in given:
        ours, joint, theirs = text.partition("=")
        if not (joint and theirs and ours.isascii() and ours.isalnum() and ours[0].islower()):
            raise click.UsageError(f"{text!r} is not OURS=THEIRS, OURS a camelCase name")
        pairs[ours] = theirs
    return pairs

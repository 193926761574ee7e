"""`broker push`: tell people and programs of alerts by mail, web-hook or chat."""

import sys
import time
from typing import Any

import click

from broker.cli.assemble import tables_of, topics_of
from broker.cli.main import load
from broker.cli.output import emit_rows, json_option

_IDLE_PAUSE_S = 0.5


@click.group()
def command() -> None:
    """Tell people of the alerts of a topic, or of an object that they follow.

    Example: broker push list
    """


@command.command()
@click.argument("name")
@click.option("--topic", default="", help="A filter's topic.")
@click.option("--object", "object_", type=(str, str), help="SURVEY ID of an object to follow.")
@click.option("--email", help="Address of mail: a digest.")
@click.option("--webhook", help="Address that JSON is posted to.")
@click.option("--chat", help="Address that a chat's message is posted to, as Slack takes it.")
@click.option("--every", "every_min", type=click.FloatRange(min=1.0), default=15.0,
              show_default=True, help="At most one message in so long [minutes].")  # fmt: skip
@click.option("--most", type=click.IntRange(1, 1000), default=50, show_default=True,
              help="Alerts that a message shows; it says how many more there are.")  # fmt: skip
@click.pass_context
def add(
    ctx: click.Context, name: str, topic: str, object_: tuple[str, str] | None, email: str | None,
    webhook: str | None, chat: str | None, every_min: float, most: int,
) -> None:  # fmt: skip
    """Add a subscription NAME. It begins with what comes from then on.

    Example: broker push add my-mail --topic young-supernova --email me@example.org --every 60
    """
    from broker.ops.push import PushSubscription

    given = {"email": email, "webhook": webhook, "chat": chat}
    chosen = [(kind, address) for kind, address in given.items() if address]
    if len(chosen) != 1:
        raise click.UsageError("name one of --email, --webhook, --chat")
    ((kind, address),) = chosen
    survey, object_id = object_ or ("", "")
    one = PushSubscription(name, kind, address, topic=topic, survey=survey, object_id=object_id,
                           every_s=60.0 * every_min, most=most)  # fmt: skip
    if topic:
        _check_topic(ctx, topic)
    click.echo(f"Kept in {_book(ctx).add(one)}; `broker push run` tells.", err=True)


def _check_topic(ctx: click.Context, topic: str) -> None:
    from broker.errors import ConfigError
    from broker.science.installed import installed

    known = installed(load(ctx)).topics
    if topic not in known:
        raise ConfigError(f"there is no topic {topic}; there are {', '.join(sorted(known))}")


def _book(ctx: click.Context) -> Any:
    from broker.ops.push import PushBook

    return PushBook(load(ctx).run_path("push"))


@command.command("list")
@json_option
@click.pass_context
def list_subscriptions(ctx: click.Context, as_json: bool) -> None:
    """List the subscriptions; addresses of hooks are secrets and are not shown.

    Example: broker push list --json
    """
    rows = [
        {"name": one.name, "about": one.title, "kind": one.kind,
         "to": one.address if one.kind == "email" else "–", "everyMinutes": one.every_s / 60.0}
        for one in _book(ctx).all()
    ]  # fmt: skip
    emit_rows(rows, ("name", "about", "kind", "to", "everyMinutes"), as_json=as_json)


@command.command()
@click.argument("name")
@click.pass_context
def remove(ctx: click.Context, name: str) -> None:
    """End a subscription.

    Example: broker push remove my-mail
    """
    from broker.errors import ConfigError

    if not _book(ctx).remove(name):
        raise ConfigError(f"there is no subscription {name}")


@command.command()
@click.option("--idle", type=click.FloatRange(min=0.0),
              help="End when nothing came or waits for this long [s]; default never.")  # fmt: skip
@json_option
@click.pass_context
def run(ctx: click.Context, idle: float | None, as_json: bool) -> None:
    """Tell subscribers of alerts as they come, until it is interrupted.

    Each subscription of a topic is a group of its own; progress is kept after a message was taken.

    Example: broker push run --idle 60
    """
    from collections import Counter

    from broker.ops.push_run import Pusher
    from broker.ops.push_send import sender

    config = load(ctx)
    total: Counter[str] = Counter()
    with tables_of(ctx) as tables, topics_of(ctx) as topics:
        pusher = Pusher(_book(ctx), open_source=_opener(config, tables, topics),
                        send=sender(config.push), url=config.push.url,
                        clock=time.monotonic)  # fmt: skip
        last = time.monotonic()
        try:
            while idle is None or time.monotonic() - last < idle:
                counts = pusher.turn()
                total += counts
                if counts or any(pusher.waiting.values()):
                    last = time.monotonic()
                time.sleep(_IDLE_PAUSE_S)
        except KeyboardInterrupt:
            click.echo("Interrupted; what was not told comes again.", err=True)
        finally:
            pusher.close()
    names = ("alerts", "sent", "failed")
    emit_rows([{name: total[name] for name in names}], names, as_json=as_json)
    if total["failed"] and not total["sent"]:
        sys.exit(1)


def _opener(config: Any, tables: Any, topics: Any) -> Any:
    from broker.client.consumer import Schemas
    from broker.ops.annotate_read import packet_reader
    from broker.ops.push import PushBook, PushSubscription
    from broker.ops.push_run import ObjectSource, TopicSource
    from broker.store.alerts import AlertStore
    from broker.topics.kafka_group import KafkaGroup
    from broker.topics.publish import schemas_topic

    run_, book = config.the_run, PushBook(config.run_path("push"))
    read = packet_reader(Schemas(topics, schemas_topic(run_)).get)

    def open_source(one: PushSubscription) -> Any:
        if one.topic:
            group = f"push-{run_.name}-{one.name}"
            name = run_.public_topic(one.topic, "slim")
            return TopicSource(KafkaGroup(config.kafka.bootstrap, name, group, start_ms=-1), read)
        return ObjectSource(AlertStore(tables, run_), one.survey, one.object_id,
                            path=book.sent_path(one.name), clock=time.monotonic,
                            look_every_s=min(60.0, one.every_s))  # fmt: skip

    return open_source

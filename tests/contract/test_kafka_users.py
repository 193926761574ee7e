"""A real Kafka with users: who may do what, with what, and that no password is seen anywhere."""

import contextlib
import dataclasses
import os
import socket
import ssl
import time

import psutil
import pytest

from broker.client.subscription import subscribe
from broker.errors import ConfigError, ServiceError
from broker.local.stack import down, up
from broker.ops.users import add_user, remove_user, rotate_user, users_of
from broker.topics.kafka import KafkaTopics
from broker.topics.kafka_access import java_options, read_user
from broker.topics.kafka_group import KafkaGroup
from broker.topics.kafka_users import KafkaRights
from broker.topics.topic import Message, TopicSettings

pytestmark = [pytest.mark.servers, pytest.mark.slow]

SLIM, INPUT = "public.bright.slim", "alerts.ztf"


@pytest.fixture(scope="module")
def secure(make_config):
    """Settings of a Kafka with users, with a public topic and one of packets as they came."""
    config = make_config()
    kafka = dataclasses.replace(config.kafka, secure=True, heap_mb=256, user_file="")
    config = dataclasses.replace(config, kafka=kafka)
    try:
        up(config, names=("kafka",))
        with contextlib.closing(KafkaTopics(config.kafka.bootstrap)) as topics:
            for name in (SLIM, INPUT):
                topics.create(name, TopicSettings(partitions=1))
                topics.send(
                    name, [Message(f"{name} {i}".encode(), str(i).encode()) for i in range(5)]
                )
        yield config
    finally:
        down(config)


@pytest.fixture
def added(secure, tmp_path):
    """Let a user in; return the settings that they would have."""

    def add(name, reads=("public.",), writes=(), mb_per_s=50.0):
        out = tmp_path / f"{name}.properties"
        add_user(secure, KafkaRights(name, reads, writes, mb_per_s), out)
        return as_user(secure, out)

    return add


def as_user(config, path):
    kafka = dataclasses.replace(config.kafka, secure=False, user_file=str(path))
    return dataclasses.replace(config, kafka=kafka)


@contextlib.contextmanager
def topics_of(config, timeout_s=4.0):
    with contextlib.closing(KafkaTopics(config.kafka.bootstrap, timeout_s=timeout_s)) as topics:
        yield topics


def read(config, name):
    with topics_of(config) as topics:
        return [m.value for m in topics.read(name, partition=0, first=0, end=5)]


def eventually(attempt, seconds=60.0):
    """Try until it does not raise: what a server was told it applies a moment later."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except (AssertionError, ServiceError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def refused(attempt):
    """Wait until something is refused."""

    def once():
        try:
            attempt()
        except ServiceError as error:
            return error
        raise AssertionError("it was allowed")

    return eventually(once)


def test_a_user_reads_public_topics_and_nothing_else(secure, added):
    reader = added("reader")
    assert eventually(lambda: read(reader, SLIM)) == [f"{SLIM} {i}".encode() for i in range(5)]
    with topics_of(reader) as topics:
        assert topics.names() == [SLIM]  # of the others not even the names
    assert "no topic" in refused(lambda: read(reader, INPUT)).message
    with topics_of(reader) as topics:
        for name in (SLIM, INPUT):
            refused(lambda name=name, topics=topics: topics.send(name, [Message(b"mine")]))
        refused(lambda: topics.create("public.mine"))
        with topics_of(secure) as own:
            assert "public.mine" not in own.names()
    assert read(secure, INPUT) == [f"{INPUT} {i}".encode() for i in range(5)]


def test_a_user_writes_where_it_was_let_and_reads_there_only_if_it_was_let(secure, added):
    with topics_of(secure) as topics:
        topics.create("outside.classes", TopicSettings(partitions=1))
    writer = added("writer", reads=(), writes=("outside.",))
    with topics_of(writer) as topics:
        eventually(lambda: topics.send("outside.classes", [Message(b"said")]))
        refused(lambda: list(topics.read("outside.classes", partition=0, first=0, end=1)))


def test_a_group_is_its_users_own(added):
    one = added("grouped")

    def poll(group):
        with contextlib.closing(
            KafkaGroup(one.kafka.bootstrap, SLIM, group, start_ms=0, timeout_s=10.0)
        ) as member:
            deadline = time.monotonic() + 60.0
            while time.monotonic() < deadline:
                if found := member.poll(0.5):
                    for message in found:
                        member.handled(message)
                    member.commit()
                    return len(found)
        raise AssertionError("nothing came")

    assert eventually(lambda: poll("grouped-night")) == 5
    refused(lambda: poll("reader-night"))


def test_the_client_subscribes_with_the_file_alone(added):
    config = added("subscriber")

    def listen():
        with subscribe(SLIM, since="earliest", idle_s=1.0, config=config) as alerts:
            return alerts.lag()

    assert eventually(listen) == 5


def test_a_new_password_shuts_out_the_old_one_and_a_removal_the_user(secure, added, tmp_path):
    old = added("turning")
    eventually(lambda: read(old, SLIM))
    again = tmp_path / "again.properties"
    rotate_user(secure, "turning", again)
    new = as_user(secure, again)
    assert read_user(again).password != read_user(tmp_path / "turning.properties").password
    assert len(eventually(lambda: read(new, SLIM))) == 5
    refused(lambda: read(old, SLIM))
    remove_user(secure, "turning")
    refused(lambda: read(new, SLIM))
    assert "turning" not in {one.name for one in users_of(secure).all()}


def test_rights_do_not_outlive_their_user(secure, added, tmp_path):
    added("phoenix", reads=("public.", "alerts."))
    remove_user(secure, "phoenix")
    add_user(secure, KafkaRights("phoenix", ("public.",), (), 5.0), tmp_path / "second.properties")
    (mine,) = [one for one in users_of(secure).all() if one.name == "phoenix"]
    assert mine == KafkaRights("phoenix", ("public.",), (), 5.0)


def test_a_user_cannot_let_others_in(added, tmp_path):
    plain = added("curious")
    with pytest.raises((ServiceError, ConfigError)):
        add_user(plain, KafkaRights("friend", ("alerts.",), (), 1.0), tmp_path / "friend")
    assert not (tmp_path / "friend").exists()


def test_a_quota_holds_a_reader_back(secure, added):
    name, size = "public.heavy.slim", 400_000
    with topics_of(secure) as topics:
        topics.create(name, TopicSettings(partitions=1))
        topics.send(name, [Message(os.urandom(size)) for _ in range(20)])  # 8 MB

    def seconds(config):
        began = time.monotonic()
        with topics_of(config, timeout_s=60.0) as topics:
            assert len(list(topics.read(name, partition=0, first=0, end=20))) == 20
        return time.monotonic() - began

    slow, fast = added("slow", mb_per_s=0.5), added("fast", mb_per_s=1000.0)
    eventually(lambda: seconds(fast))
    # Kafka allows a burst, what fits into its window of 10 s; 3 MB more take 6 s at this rate.
    assert seconds(slow) > 3.0 + seconds(fast)


def test_nobody_gets_in_without_a_password_or_with_a_wrong_one(secure, tmp_path):
    with pytest.raises(ServiceError):
        read(as_user(secure, ""), SLIM)
    operator = read_user(secure.kafka_users / "broker.properties")
    wrong = tmp_path / "wrong.properties"
    wrong.write_text(dataclasses.replace(operator, password="wrong").as_properties())
    wrong.chmod(0o600)
    with pytest.raises(ServiceError) as caught:
        read(as_user(secure, wrong), SLIM)
    assert operator.password not in str(caught.value)


def test_the_controller_is_closed_to_all_who_lack_the_servers_certificate(secure):
    context = ssl.create_default_context(cafile=secure.kafka_users / "ca.pem")

    def said():
        address = ("127.0.0.1", secure.kafka.controller_port)
        with (
            socket.create_connection(address, timeout=30.0) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as wrapped,
        ):
            return wrapped.recv(1)

    with pytest.raises(ssl.SSLError, match=r"(?i)certificate"):
        said()


def test_no_password_is_in_a_log_or_on_a_command_line(secure):
    password = read_user(secure.kafka_users / "broker.properties").password
    kept = {secure.kafka_users / "broker.properties", secure.home / "kafka" / "server.properties"}
    for path in secure.home.rglob("*"):
        if path.is_file() and password.encode() in path.read_bytes():
            assert path in kept, path
            assert not path.stat().st_mode & 0o077
    for one in psutil.process_iter(["cmdline"]):
        assert password not in " ".join(one.info["cmdline"] or ())


def test_spark_reads_and_writes_with_the_file_and_shows_no_password(secure, spark):
    from pyspark.sql import functions as f

    from broker.spark.messages import OUTGOING_SQL
    from broker.spark.write import write_messages
    from broker.streaming.query import read_topics

    password = read_user(secure.kafka_users / "broker.properties").password
    with topics_of(secure) as topics:
        topics.create("public.sparked.slim", TopicSettings(partitions=1))
    rows = [("public.sparked.slim", b"k", b"by spark", [("a", b"b")])]
    write_messages(spark.createDataFrame(rows, OUTGOING_SQL), secure.kafka.bootstrap)
    frame = (
        spark.read.format("kafka").options(**java_options(secure.kafka.bootstrap))
        .option("subscribe", "public.sparked.slim").load()
    )  # fmt: skip
    assert [bytes(row.value) for row in frame.select("value").collect()] == [b"by spark"]
    stream = read_topics(spark, secure, ["public.sparked.slim"], max_per_trigger=10)
    query = (
        stream.select(f.col("value")).writeStream.format("memory").queryName("secured")
        .trigger(availableNow=True).start()
    )  # fmt: skip
    assert query.awaitTermination(120)
    assert spark.sql("select * from secured").count() == 1
    shown = [one._jdf.queryExecution().toString() for one in (frame, stream)]
    shown.append(str(query._jsq.explainInternal(True)))
    executions = spark._jsparkSession.sharedState().statusStore().executionsList()
    shown += [executions.apply(i).toString() for i in range(executions.size())]
    shown += [str(pair) for pair in spark.sparkContext.getConf().getAll()]
    assert len(shown) > 5
    assert all(password not in text and "BEGIN CERT" not in text for text in shown)

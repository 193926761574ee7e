"""A single Kafka server (KRaft: broker and controller in one process) from bare jars."""

import base64
import subprocess
import uuid
from pathlib import Path

from broker.config import Config
from broker.errors import ServiceError
from broker.local import secure
from broker.local.jars import kafka_jars
from broker.local.java import find_java
from broker.local.service import Port, Service, java_command
from broker.topics.kafka import KafkaTopics
from broker.topics.kafka_access import write_private
from broker.topics.topic import Message, TopicSettings

MAX_MESSAGE_BYTES = 33_554_432
"""A whole detector, compressed, is one message."""

_READY_TOPIC = "__broker_ready"

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{controller}
listeners=CLIENT://{client},CONTROLLER://{controller}
advertised.listeners=CLIENT://{advertised}
controller.listener.names=CONTROLLER
inter.broker.listener.name=CLIENT
log.dirs={data}
{access}

# One server: every internal topic has one copy.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0

# A mistyped topic name is an error; what is archived is deleted, nothing else is.
auto.create.topics.enable=false
log.retention.ms=-1

message.max.bytes={max_bytes}
replica.fetch.max.bytes={max_bytes}
socket.request.max.bytes=104857600
num.network.threads=2
num.io.threads=4
num.recovery.threads.per.data.dir=2
log.cleaner.dedupe.buffer.size=16777216
"""

_OPEN = "listener.security.protocol.map=CONTROLLER:PLAINTEXT,CLIENT:PLAINTEXT"
"""Without users: whoever reaches the port, which is the loopback's, may all."""

_LOG4J = """\
<Configuration status="WARN" shutdownHook="disable">
  <Appenders>
    <RollingFile name="log" fileName="{log}" filePattern="{log}.%i">
      <PatternLayout pattern="%d %p %m (%c)%n"/>
      <SizeBasedTriggeringPolicy size="10 MB"/>
      <DefaultRolloverStrategy max="2"/>
    </RollingFile>
  </Appenders>
  <Loggers>
    <Root level="WARN"><AppenderRef ref="log"/></Root>
    <Logger name="kafka.server.KafkaRaftServer" level="INFO"/>
  </Loggers>
</Configuration>
"""


def kafka_service(config: Config) -> Service:
    """Describe the Kafka server of a configuration; its data are under `home/kafka`."""
    folder = config.home / "kafka"
    java, jars = find_java().path, kafka_jars(config.cache)
    options = [
        "-XX:+UseParallelGC",  # messages are large: G1 would spend regions on single buffers
        f"-Dlog4j2.configurationFile={folder / 'log4j2.xml'}",
    ]

    def command(main: str, *arguments: str) -> list[str]:
        return java_command(
            java, [main, *arguments], jars=jars, heap_mb=config.kafka.heap_mb, options=options
        )

    properties = str(folder / "server.properties")
    return Service(
        name="kafka",
        ports=(
            Port("kafka.port", config.kafka.host, config.kafka.port),
            Port("kafka.controller_port", "127.0.0.1", config.kafka.controller_port),
        ),
        heap_mb=config.kafka.heap_mb,
        folder=folder,
        prepare=lambda: _prepare(
            config,
            folder,
            command(
                "kafka.tools.StorageTool",
                *("format", "--ignore-formatted", "--cluster-id", _new_cluster_id()),
                *("--config", properties),
                *(secure.format_arguments(folder) if config.kafka.secure else ()),
            ),
        ),
        command=command("kafka.Kafka", properties),
        probe=lambda: _probe(config.kafka.bootstrap),
    )


def _prepare(config: Config, folder: Path, format_command: list[str]) -> None:
    data = folder / "data"
    if config.kafka.secure:
        access = secure.prepare(config, folder, data)
    else:
        secure.check_open(config)
        access = _OPEN
    write_private(
        folder / "server.properties",
        _PROPERTIES.format(
            client=config.kafka.bootstrap,
            advertised=f"{config.kafka.host}:{config.kafka.advertised_port or config.kafka.port}",
            controller=f"127.0.0.1:{config.kafka.controller_port}",
            data=data,
            access=access,
            max_bytes=MAX_MESSAGE_BYTES,
        ),
    )
    log = config.home / "logs" / "kafka.log"
    (folder / "log4j2.xml").write_text(_LOG4J.format(log=log), encoding="utf-8")
    if (data / "meta.properties").exists():
        return
    said = subprocess.run(format_command, capture_output=True, text=True, check=False)
    secure.forget_arguments(folder)
    if said.returncode != 0:
        last = (said.stdout + said.stderr).strip().splitlines()[-1:]
        raise ServiceError(f"Kafka could not format {data}: {' '.join(last)}", path=str(data))


def _new_cluster_id() -> str:
    found = base64.urlsafe_b64encode(uuid.uuid4().bytes)[:22].decode()
    # One that begins with a dash is taken for an option.
    return _new_cluster_id() if found.startswith("-") else found


def _probe(bootstrap: str) -> None:
    """Send a message and read it back."""
    topics = KafkaTopics(bootstrap)
    try:
        topics.create(_READY_TOPIC, TopicSettings(partitions=1, retention_ms=60_000))
        token = uuid.uuid4().bytes
        (coordinate,) = topics.send(_READY_TOPIC, [Message(token)])
        back = topics.get(coordinate)
    finally:
        topics.close()
    if back is None or back.value != token:
        raise ServiceError(f"Kafka at {bootstrap} did not give back what was sent to it")

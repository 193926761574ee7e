"""HBase on this machine: a standalone master with everything in it, and the Thrift gateway."""

import uuid
from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import escape

from broker.config import Config
from broker.errors import ServiceError
from broker.local.jars import hbase_jars
from broker.local.java import find_java
from broker.local.service import Port, Service, java_command
from broker.store.hbase import HBaseTables
from broker.store.table import Family

_READY_TABLE = "broker-ready"
_PROBE_S = 10.0

# What HBase's own start script sets for Java 17. Without the opened java.nio, HBase takes a path
# on which its fuzzy row filter drops rows.
JAVA_17 = (
    "-Dorg.apache.hbase.thirdparty.io.netty.tryReflectionSetAccessible=true",
    *("--add-modules", "jdk.unsupported"),
    *("--add-opens", "java.base/java.io=ALL-UNNAMED"),
    *("--add-opens", "java.base/java.nio=ALL-UNNAMED"),
    *("--add-opens", "java.base/sun.nio.ch=ALL-UNNAMED"),
    *("--add-opens", "java.base/java.lang=ALL-UNNAMED"),
    *("--add-opens", "java.base/jdk.internal.ref=ALL-UNNAMED"),
    *("--add-opens", "java.base/java.lang.reflect=ALL-UNNAMED"),
    *("--add-exports", "java.base/jdk.internal.misc=ALL-UNNAMED"),
    *("--add-exports", "java.security.jgss/sun.security.krb5=ALL-UNNAMED"),
)

_LOG4J = """\
log4j.rootLogger=WARN, log
log4j.appender.log=org.apache.log4j.RollingFileAppender
log4j.appender.log.File={log}
log4j.appender.log.MaxFileSize=10MB
log4j.appender.log.MaxBackupIndex=2
log4j.appender.log.layout=org.apache.log4j.PatternLayout
log4j.appender.log.layout.ConversionPattern=%d %p %m (%c)%n
# These warn at every start or stop, with long traces, of what is as it should be here.
log4j.logger.org.apache.hadoop.hbase.client.ConnectionImplementation=ERROR
log4j.logger.org.apache.hadoop.hbase.client.ZKConnectionRegistry=ERROR
log4j.logger.org.apache.hadoop.hbase.ZNodeClearer=ERROR
log4j.logger.org.apache.hadoop.metrics2.impl.MetricsConfig=ERROR
log4j.logger.org.apache.hadoop.util.NativeCodeLoader=ERROR
log4j.logger.org.apache.zookeeper.ClientCnxn=ERROR
"""


def hbase_services(config: Config) -> tuple[Service, Service]:
    """Describe the master and the Thrift gateway; their data are under `home/hbase`."""
    return _master(config), _thrift(config)


def _master(config: Config) -> Service:
    settings, folder = config.hbase, config.home / "hbase"
    return Service(
        name="hbase",
        ports=(
            Port("hbase.zookeeper_port", "127.0.0.1", settings.zookeeper_port),
            Port("hbase.master_port", "127.0.0.1", settings.master_port),
            Port("hbase.region_server_port", "127.0.0.1", settings.region_server_port),
        ),
        heap_mb=settings.heap_mb,
        folder=folder,
        prepare=lambda: _write_settings(config, folder),
        command=_command(
            config, folder, "hbase", ["org.apache.hadoop.hbase.master.HMaster", "start"]
        ),
        probe=lambda: None,  # it is ready when the gateway gives a row back
        stop_timeout_s=40.0,
    )


def _thrift(config: Config) -> Service:
    settings, folder = config.hbase, config.home / "hbase"
    main = [
        "org.apache.hadoop.hbase.thrift.ThriftServer",
        *("--port", str(settings.thrift_port), "--bind", settings.host, "start"),
    ]
    return Service(
        name="thrift",
        ports=(Port("hbase.thrift_port", settings.host, settings.thrift_port),),
        heap_mb=settings.thrift_heap_mb,
        folder=folder,
        prepare=lambda: None,
        command=_command(config, folder, "thrift", main),
        probe=lambda: _probe(settings.host, settings.thrift_port),
        behind="hbase",
    )


def _command(config: Config, folder: Path, name: str, main: list[str]) -> list[str]:
    settings = config.hbase
    heap_mb, collector = {
        "hbase": (settings.heap_mb, "-XX:+UseParallelGC"),
        "thrift": (settings.thrift_heap_mb, "-XX:+UseSerialGC"),
    }[name]
    return java_command(
        find_java().path,
        main,
        jars=[folder / "conf", *hbase_jars(config.cache)],
        heap_mb=heap_mb,
        options=[
            *JAVA_17,
            collector,
            f"-Dlog4j.configuration=file:{folder / 'conf' / f'{name}-log4j.properties'}",
        ],
    )


def _write_settings(config: Config, folder: Path) -> None:
    conf = folder / "conf"
    conf.mkdir(parents=True, exist_ok=True)
    (conf / "hbase-site.xml").write_text(_xml(_settings(config, folder)), encoding="utf-8")
    for name in ("hbase", "thrift"):
        log = config.home / "logs" / f"{name}.log"
        text = _LOG4J.format(log=log)
        (conf / f"{name}-log4j.properties").write_text(text, encoding="utf-8")


def _settings(config: Config, folder: Path) -> dict[str, object]:
    settings = config.hbase
    return {
        "hbase.cluster.distributed": "false",
        "hbase.rootdir": f"file://{folder / 'data'}",  # the scheme is needed
        "hbase.tmp.dir": folder / "tmp",
        "hbase.unsafe.stream.capability.enforce": "false",  # local files cannot hflush
        "hbase.zookeeper.quorum": "127.0.0.1",
        "hbase.zookeeper.property.clientPort": settings.zookeeper_port,
        "hbase.zookeeper.property.dataDir": folder / "zookeeper",
        "zookeeper.session.timeout": 20_000,
        # When it stops, ZooKeeper, in the same process, goes first: waiting for it is in vain.
        "zookeeper.recovery.retry": 1,
        "zookeeper.recovery.retry.intervalmill": 200,
        "hbase.localcluster.assign.random.ports": "false",
        "hbase.master.hostname": "localhost",
        "hbase.master.ipc.address": "127.0.0.1",
        "hbase.master.port": settings.master_port,
        "hbase.master.info.port": -1,
        "hbase.regionserver.hostname": "localhost",
        "hbase.regionserver.ipc.address": "127.0.0.1",
        "hbase.regionserver.port": settings.region_server_port,
        "hbase.regionserver.info.port": -1,
        "hbase.regionserver.handler.count": 10,
        "hbase.regionserver.msginterval": 1000,
        # Else every region that has been written to holds 2 MB of heap, however little is in it:
        # the tables of some twenty small runs would fill it.
        "hbase.hregion.memstore.mslab.enabled": "false",
        "hbase.balancer.period": 86_400_000,  # one server has nothing to balance
        "hbase.master.wait.on.regionservers.mintostart": 1,
        "hbase.master.wait.on.regionservers.maxtostart": 1,
        "hbase.thrift.info.port": -1,
        "hbase.thrift.minWorkerThreads": 4,
        "hbase.thrift.server.socket.read.timeout": 3_600_000,  # clients may idle between visits
    }


def _xml(settings: Mapping[str, object]) -> str:
    rows = "\n".join(
        f"  <property><name>{name}</name><value>{escape(str(value))}</value></property>"
        for name, value in settings.items()
    )
    return f"<configuration>\n{rows}\n</configuration>\n"


def _probe(host: str, port: int) -> None:
    """Put a row and get it back."""
    tables = HBaseTables(host, port, timeout_s=_PROBE_S)
    try:
        tables.create(_READY_TABLE, [Family("r")])
        table, token = tables.table(_READY_TABLE), uuid.uuid4().bytes
        table.put([(b"ready", {b"r:token": token})])
        back = table.get(b"ready")
    finally:
        tables.close()
    if back is None or back.get(b"r:token") != token:
        raise ServiceError(f"HBase at {host}:{port} did not give back what was put into it")

"""Tables that have several regions from the start.

The Thrift gateway cannot create them, so HBase's own administration client is called, in a
small Java process beside ours.
"""

import functools
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker.config import Config
from broker.errors import ServiceError
from broker.local.hbase import JAVA_17
from broker.local.jars import hbase_jars, package_jar
from broker.local.java import find_java
from broker.store.table import Family

_END_S = 10.0


@dataclass(frozen=True)
class Presplit:
    """Creates tables with split keys: what `HBaseTables` takes as `presplit`.

    The Java process (90 MB) is started by the first call, which takes 3 s, and serves later ones
    until `close`, or until our process ends.

    Parameters
    ----------
    cache : Path
        Where the jars are: `config.cache`.
    host, zookeeper_port : str, int
        HBase's ZooKeeper.
    """

    cache: Path
    host: str
    zookeeper_port: int

    def __call__(self, name: str, families: Sequence[Family], split_keys: Sequence[bytes]) -> None:
        """Create a table whose regions begin at `split_keys`; one that exists is left as it is.

        Raises
        ------
        ServiceError
            If HBase refuses or does not answer.
        """
        from py4j.protocol import Py4JError

        gateway, admin, _ = _admin(self)
        try:
            table = gateway.jvm.org.apache.hadoop.hbase.TableName.valueOf(name)
            if not admin.tableExists(table):
                _create(gateway, admin, name, families, split_keys)
        except Py4JError as error:
            reason = _reason(error)
            if "TableExistsException" not in reason:  # another process was quicker
                raise ServiceError(f"HBase did not create {name}: {reason}", table=name) from error

    def close(self) -> None:
        """End the Java process, if there is one."""
        if _admin.cache_info().currsize:
            gateway, _, java = _admin(self)
            _admin.cache_clear()
            gateway.shutdown()
            java.stdin.close()
            try:
                java.wait(_END_S)
            except subprocess.TimeoutExpired:
                java.kill()
                java.wait()


def presplit(config: Config) -> Presplit | None:
    """Return what creates tables with regions; None if HBase is not on this machine.

    Elsewhere its ZooKeeper cannot be reached (it listens on the loopback), and tables begin with
    one region, which HBase splits as it grows.
    """
    if config.hbase.host not in ("127.0.0.1", "localhost"):
        return None
    return Presplit(config.cache, config.hbase.host, config.hbase.zookeeper_port)


@functools.lru_cache(maxsize=1)
def _admin(where: Presplit) -> tuple[Any, Any, Any]:
    """Start the Java process and connect it to HBase."""
    from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway

    port, token, java = launch_gateway(
        jarpath=str(package_jar("py4j-*.jar")),
        classpath=":".join(map(str, [*hbase_jars(where.cache), package_jar("jackson-core-*.jar")])),
        javaopts=["-Xmx96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", *JAVA_17],
        java_path=str(find_java().path),
        die_on_exit=True,
        enable_auth=True,
        return_proc=True,
    )
    parameters = GatewayParameters(port=port, auth_token=token, auto_convert=True)
    gateway = JavaGateway(gateway_parameters=parameters)
    hbase = gateway.jvm.org.apache.hadoop.hbase
    settings = hbase.HBaseConfiguration.create()
    settings.set("hbase.zookeeper.quorum", where.host)
    settings.set("hbase.zookeeper.property.clientPort", str(where.zookeeper_port))
    settings.set("hbase.client.retries.number", "5")
    return gateway, hbase.client.ConnectionFactory.createConnection(settings).getAdmin(), java


def _reason(error: BaseException) -> str:
    """Return what Java said, in one line.

    Spark, once it has run in this process, looks at the errors of every Java process as if they
    were its own and fails in doing so; what Java said is then in the error before.
    """
    from py4j.protocol import Py4JJavaError

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, Py4JJavaError):
        cause = cause.__context__
    said = error if cause is None else cause.java_exception
    return str(said).splitlines()[0]


def _create(
    gateway: Any, admin: Any, name: str, families: Sequence[Family], split_keys: Sequence[bytes]
) -> None:
    hbase = gateway.jvm.org.apache.hadoop.hbase
    codec = hbase.io.compress.Compression.Algorithm
    table = hbase.client.TableDescriptorBuilder.newBuilder(hbase.TableName.valueOf(name))
    for family in families:
        described = hbase.client.ColumnFamilyDescriptorBuilder.newBuilder(family.name.encode())
        described.setMaxVersions(family.max_versions)
        described.setCompressionType(codec.valueOf(family.compression))
        table.setColumnFamily(described.build())
    keys = gateway.new_array(gateway.jvm.byte, len(split_keys), 0)
    for i, key in enumerate(split_keys):
        keys[i] = bytearray(key)
    admin.createTable(table.build(), keys)

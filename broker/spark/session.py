"""The Spark session of the broker: its jars, its settings, its log."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from py4j.protocol import Py4JError
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkRuntimeError
from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession

from broker.config import Config
from broker.errors import ServiceError
from broker.imaging.memory import ALLOCATOR
from broker.local.jars import spark_jars

LARGEST_BYTES_FIELD = 33_554_432
"""Bytes that one field of a packet may claim; random bytes claim gigabytes, and a failed
allocation would end the task where a decoding error is only a null."""

LARGEST_STRING, LARGEST_LIST = 1_048_576, 1_000_000

_JAVA_OPTIONS = (
    "-Xss16m",  # stop() in mid-batch matches a long stack trace with a recursive expression
    "-XX:+UseParallelGC",
    "-XX:-UsePerfData",
    "-Djava.net.preferIPv4Stack=true",
    # Avro's fast reader keeps each task's schemas for ever: 0.6 MB a batch and more.
    "-Dorg.apache.avro.fastread=false",
    f"-Dorg.apache.avro.limits.bytes.maxLength={LARGEST_BYTES_FIELD}",
    f"-Dorg.apache.avro.limits.string.maxLength={LARGEST_STRING}",
    f"-Dorg.apache.avro.limits.collectionItems.maxLength={LARGEST_LIST}",
)

_FEW_KEPT = {
    "spark.sql.ui.retainedExecutions": "20",
    "spark.ui.retainedJobs": "100",
    "spark.ui.retainedStages": "100",
    "spark.ui.retainedTasks": "1000",
}
"""Spark remembers 1000 plans else, pages or not: one for Rubin takes 0.1 MB."""

_LOG4J = """\
status = error
rootLogger.level = warn
rootLogger.appenderRef.file.ref = file
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = {path}
appender.file.filePattern = {path}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{yyyy-MM-dd HH:mm:ss.SSS}} %p %c{{1}}: %m%n%ex
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 50MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 3
"""


def make_session(
    config: Config,
    name: str,
    *,
    ui: bool = False,
    settings: Mapping[str, str] | None = None,
    jars: Sequence[Path] | None = None,
) -> SparkSession:
    """Start Spark, or return the session of this process if there is one.

    What Spark's Java process and its Python workers say goes to files in `logs` under the
    broker's home, nothing of it to the terminal.

    Parameters
    ----------
    config : Config
    name : str
        Name of the application, and of its log files.
    ui : bool
        Serve Spark's web pages on a free port of the loopback.
    settings : mapping, optional
        Spark settings that win over ours.
    jars : sequence of Path, optional
        Jars beside Spark's own; default those of `broker.local.jars`.

    Raises
    ------
    ServiceError
        If Spark's Java process does not start.
    """
    running = SparkSession.getActiveSession()
    if running is not None:
        return running
    logs = config.home / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    class_path = jars if jars is not None else spark_jars(config.cache)
    log4j = _write_log4j(logs, name)
    conf = SparkConf().setAll(list(_settings(config, name, class_path, log4j, ui)))
    conf.setAll(list((settings or {}).items()))
    os.environ["PYSPARK_PYTHON"] = sys.executable  # how the workers are started
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    output = logs / f"{name}.out"
    with output.open("ab") as stream:
        try:
            gateway = launch_gateway(conf, {"stdout": stream, "stderr": subprocess.STDOUT})
            return SparkSession(SparkContext(conf=conf, gateway=gateway))
        except PySparkRuntimeError as error:
            raise ServiceError(f"Spark did not start: see {output}", log=str(output)) from error


def stop_session(spark: SparkSession, *, timeout_s: float = 30.0) -> None:
    """Stop Spark and its Java process, so that a later session starts anew.

    Parameters
    ----------
    spark : SparkSession
    timeout_s : float
        How long the Java process has to end before it is killed. [s]
    """
    gateway = spark.sparkContext._gateway
    if gateway is None:
        return
    process = gateway.proc
    try:
        spark.stop()
    except (Py4JError, OSError):  # the Java process is dead already: forget its session
        SparkSession._instantiatedSession = SparkContext._active_spark_context = None
    with suppress(Py4JError, OSError):
        gateway.shutdown()
    SparkContext._gateway = SparkContext._jvm = None
    if process is None:
        return
    with suppress(OSError):
        process.stdin.close()  # the Java process ends when this pipe does
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _write_log4j(logs: Path, name: str) -> Path:
    path = logs / f"{name}.log4j2.properties"
    path.write_text(_LOG4J.format(path=logs / f"{name}.log"), encoding="utf-8")
    return path


def _settings(
    config: Config, name: str, jars: Sequence[Path], log4j: Path, ui: bool
) -> Iterator[tuple[str, str]]:
    """Yield Spark's settings; the reasons are in this package's README."""
    stream = config.stream
    java = " ".join((*_JAVA_OPTIONS, f"-Dlog4j2.configurationFile=file:{log4j}"))
    class_path = os.pathsep.join(str(jar) for jar in jars)
    yield from {
        "spark.app.name": name,
        "spark.master": stream.master,
        "spark.driver.memory": f"{stream.driver_memory_mb}m",
        "spark.driver.extraJavaOptions": java,
        "spark.executor.extraJavaOptions": " ".join(_JAVA_OPTIONS),
        "spark.jars": ",".join(str(jar) for jar in jars),
        "spark.driver.extraClassPath": class_path,
        "spark.local.dir": str(config.home / "spark"),
        "spark.ui.enabled": str(ui).lower(),
        "spark.ui.port": "0",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.execution.arrow.maxRecordsPerBatch": str(stream.max_records_per_batch),
        "spark.sql.streaming.minBatchesToRetain": "20",
        "spark.sql.execution.pyspark.udf.faulthandler.enabled": "true",
        "spark.python.worker.faulthandler.enabled": "true",
        "spark.python.worker.reuse": "true",
        "spark.python.daemon.module": "broker.spark.daemon",
        "spark.sql.optimizer.collapseProjectAlwaysInline": "false",  # or packets are decoded twice
        "spark.sql.codegen.maxFields": "2000",  # Rubin's slim struct has more than the default
        "spark.log.structuredLogging.enabled": "false",
        **_FEW_KEPT,
    }.items()
    if stream.master.startswith("local"):
        yield "spark.driver.host", "127.0.0.1"
        yield "spark.driver.bindAddress", "127.0.0.1"
    for variable, value in _worker_environment(config).items():
        yield f"spark.executorEnv.{variable}", value


def _worker_environment(config: Config) -> dict[str, str]:
    """Return what Python workers find in their environment.

    One thread a worker, since there is a worker a core; memory is kept as images need it.
    """
    return {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "NUMBA_NUM_THREADS": "1",
        "NUMBA_CACHE_DIR": str(config.cache / "numba"),
        **ALLOCATOR,
    }

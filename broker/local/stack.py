"""Kafka and HBase on this machine, together: start, look, stop."""

import contextlib
import fcntl
import logging
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from broker.config import Config
from broker.errors import ConfigError, ServiceError
from broker.local import process
from broker.local.hbase import hbase_services
from broker.local.jars import ensure_jars
from broker.local.kafka import kafka_service
from broker.local.service import Port, Service

START_TIMEOUT_S = 120.0
NAMES = ("kafka", "hbase", "thrift")
SERVE = "serve"
"""What `broker demo` leaves running beside them: the API and the portal."""


_MIN_FREE_DISK_MB = 2_000
_BESIDE_HEAP_MB = 150
"""What a Java server needs beside its heap before it has done any work."""

_LOG_TAIL_LINES = 3
_SERVE_S = 60.0
_POLL_S = 0.1
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServiceStatus:
    """How one local server is.

    Parameters
    ----------
    state : str
        `running`; `starting` (its port does not answer yet); `dead` (it was started and ended by
        itself); `stopped`.
    memory_mb : float or None
        Proportional set size, where the system tells it, else resident. [MB]
    """

    name: str
    state: str
    pid: int | None
    port: int
    memory_mb: float | None
    log: Path


def up(config: Config, *, names: Sequence[str] = NAMES) -> list[ServiceStatus]:
    """Start what does not run yet and wait until all of it is ready.

    Ready means that Kafka gave back a message and HBase a row. Servers that run already are left
    as they are.

    Parameters
    ----------
    config : Config
    names : sequence of str
        Which servers: some of `kafka`, `hbase`, `thrift`; the last two need each other.

    Raises
    ------
    ConfigError
        If Java is missing, a port is taken, a host is not this machine, or there is too little
        memory or disk.
    ServiceError
        If a server ends or does not get ready; what this call started is stopped again.
    """
    ensure_jars(config.cache)
    with _locked(config):
        services = [service for service in _services(config) if service.name in names]
        missing = [s for s in services if process.find(_pid_file(config, s.name))[1] is None]
        if missing:
            check_ports([port for service in missing for port in service.ports])
            check_room(
                config.home,
                need_memory_mb=sum(service.heap_mb + _BESIDE_HEAP_MB for service in missing),
            )
        try:
            for service in missing:
                _start(config, service)
            for service in services:
                _wait(config, service, missing)
        except BaseException:
            for service in reversed(missing):
                _stop(config, service)
            raise
    return [row for row in status(config) if row.name in names]


def watch(config: Config, *, names: Sequence[str] = NAMES, every_s: float = 1.0) -> None:
    """Look at running servers until one of them ends, which is a ServiceError."""
    while True:
        for name in names:
            if process.find(_pid_file(config, name))[1] is None:
                raise _failure(config, name, "ended")
        time.sleep(every_s)


def down(config: Config) -> list[str]:
    """Stop what was started here: pages, the gateway, HBase, then Kafka; return what was stopped.

    A process that has only taken over the number of an old one is left alone.
    """
    if not (config.home / "pid").exists():
        return []
    timeouts = {SERVE: 10.0, "thrift": 10.0, "hbase": 40.0, "kafka": 20.0}
    with _locked(config):
        return [
            name
            for name, timeout_s in timeouts.items()
            if process.stop(_pid_file(config, name), timeout_s=timeout_s)
        ]


def serve(config: Config, command: Sequence[str]) -> str | None:
    """Start the API and the portal, which outlive this process; `down` stops them.

    Parameters
    ----------
    config : Config
    command : sequence of str
        The program and its arguments. One that was started here before is stopped first.

    Returns
    -------
    str or None
        Their address, as soon as they answer; None if they do not within a minute, or the port is
        taken: the log says why.
    """
    pid_file, port = _pid_file(config, SERVE), config.serve.port
    with _locked(config):
        process.stop(pid_file, timeout_s=10.0)
        if _answers(config.serve.host, port):
            return None
        (config.home / "logs").mkdir(exist_ok=True)
        process.start(
            command, pid_file=pid_file, port=port, out=_log(config, SERVE), folder=config.home
        )
        deadline = time.monotonic() + _SERVE_S
        while time.monotonic() < deadline and process.find(pid_file)[1] is not None:
            if _answers(config.serve.host, port):
                return f"http://{config.serve.host}:{port}/"
            time.sleep(_POLL_S)
        process.stop(pid_file, timeout_s=10.0)
        return None


def status(config: Config) -> list[ServiceStatus]:
    """Return how each server is, in the order they are started."""
    ports = {
        "kafka": (config.kafka.host, config.kafka.port),
        "hbase": ("127.0.0.1", config.hbase.zookeeper_port),
        "thrift": (config.hbase.host, config.hbase.thrift_port),
    }
    rows = []
    for name in NAMES:
        record, running = process.find(_pid_file(config, name))
        host, port = ports[name]
        if running is None:
            state = "stopped" if record is None else "dead"
        else:
            port = record.port if record else port
            state = "running" if _answers(host, port) else "starting"
        memory = None if running is None else process.memory_mb(running)
        pid = None if running is None else running.pid
        rows.append(ServiceStatus(name, state, pid, port, memory, _log(config, name)))
    return rows


def check_ports(ports: Sequence[Port]) -> None:
    """Raise ConfigError if a port is taken, or its host is not this machine."""
    for port in ports:
        with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            variable = "BROKER_" + port.setting.upper().replace(".", "__")
            try:
                probe.bind((port.host, port.number))
            except OSError as error:
                if _answers(port.host, port.number) or _is_here(port.host):
                    raise ConfigError(
                        f"port {port.number} ({port.setting}) is taken by another program; end it, "
                        f"or set another port in broker.toml or {variable}",
                        setting=port.setting,
                        port=port.number,
                    ) from error
                host = port.setting.split(".")[0] + ".host"
                raise ConfigError(
                    f"{host} is {port.host}, which is not this machine; servers are only started "
                    f"here: use 127.0.0.1, or start that server where it belongs",
                    setting=host,
                ) from error


def check_room(home: Path, *, need_memory_mb: int) -> None:
    """Raise ConfigError if there is too little memory, or disk under `home`. [MB]"""
    home.mkdir(parents=True, exist_ok=True)
    free_mb = psutil.disk_usage(str(home)).free // 1_000_000
    if free_mb < _MIN_FREE_DISK_MB:
        raise ConfigError(
            f"{free_mb} MB of disk are free at {home}; {_MIN_FREE_DISK_MB} MB are needed: make "
            "room, or set BROKER_HOME to a larger disk",
            path=str(home),
        )
    available_mb = psutil.virtual_memory().available // 1_000_000
    if available_mb < need_memory_mb:
        raise ConfigError(
            f"{available_mb} MB of memory are available; the servers need {need_memory_mb} MB: end "
            "other programs, or lower kafka.heap_mb and hbase.heap_mb",
        )


def _services(config: Config) -> list[Service]:
    # HBase takes longest, so it starts first.
    return [*hbase_services(config), kafka_service(config)]


def _start(config: Config, service: Service) -> None:
    service.folder.mkdir(parents=True, exist_ok=True)
    (config.home / "logs").mkdir(exist_ok=True)
    service.prepare()
    _LOG.info("starting %s", service.name)
    process.start(
        service.command,
        pid_file=_pid_file(config, service.name),
        port=service.ports[0].number,
        out=_out(config, service.name),
        folder=service.folder,
    )


def _stop(config: Config, service: Service) -> None:
    process.stop(_pid_file(config, service.name), timeout_s=service.stop_timeout_s)


def _wait(config: Config, service: Service, started: Sequence[Service]) -> None:
    """Wait until a service answers; fail as soon as any that was started has ended."""
    deadline = time.monotonic() + START_TIMEOUT_S
    first = service.ports[0]
    problem = f"port {first.number} does not answer"
    while time.monotonic() < deadline:
        for other in started:
            if process.find(_pid_file(config, other.name))[1] is None:
                raise _failure(config, other.name, "ended while it started")
        if _answers(first.host, first.number):
            try:
                service.probe()
                return
            except ServiceError as error:
                problem = error.message
        time.sleep(_POLL_S)
    what = f"was not ready after {START_TIMEOUT_S:.0f} s: {problem}"
    raise _failure(config, service.name, what, behind=service.behind)


def _failure(config: Config, name: str, what: str, *, behind: str = "") -> ServiceError:
    said = f"; {behind} stands behind it: {_said(config, behind)}" if behind else ""
    return ServiceError(
        f"{name} {what}; {_said(config, name)}{said}", service=name, log=str(_log(config, name))
    )


def _said(config: Config, name: str) -> str:
    log = _log(config, name)
    said = _tail(_out(config, name)) or _tail(log)
    return f"its log is {log}" + (f" and says: {said}" if said else "")


def _tail(path: Path) -> str:
    try:
        lines = path.read_text("utf-8", "replace").strip().splitlines()
    except FileNotFoundError:
        return ""
    telling = [line for line in lines if not line.lstrip().startswith("at ")]
    return " | ".join(line.strip() for line in telling[-_LOG_TAIL_LINES:])


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:
        return False


def _is_here(host: str) -> bool:
    try:
        with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
            probe.bind((host, 0))
            return True
    except OSError:
        return False


def _pid_file(config: Config, name: str) -> Path:
    return config.home / "pid" / f"{name}.json"


def _log(config: Config, name: str) -> Path:
    return config.home / "logs" / f"{name}.log"


def _out(config: Config, name: str) -> Path:
    return config.home / "logs" / f"{name}.out"


@contextmanager
def _locked(config: Config) -> Iterator[None]:
    """Let one `up` or `down` of a home run at a time."""
    folder = config.home / "pid"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

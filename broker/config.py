"""One typed tree of settings, from `broker.toml` and the environment.

A setting `kafka.port` is read from the section `[kafka]` of the file, or from the variable
`BROKER_KAFKA__PORT`, which wins. `BROKER_HOME` and `BROKER_CACHE` are the settings `home` and
`cache`. Nothing else in the broker reads the environment.
"""

import dataclasses
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_type_hints

from broker.errors import ConfigError
from broker.types import LIVE, Bootstrap, Run

_PREFIX = "BROKER_"
_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@dataclass(frozen=True)
class KafkaConfig:
    """Where Kafka is, and how a local one is started."""

    host: str = "127.0.0.1"
    port: int = 19092
    controller_port: int = 19093
    heap_mb: int = 512
    partitions: int = 2
    """Partitions of every input topic."""
    advertised_port: int = 0
    """Where a local Kafka tells its clients to go, if something stands between; 0 means `port`."""

    secure: bool = False
    """A local Kafka with users, TLS and rights; without, whoever reaches its port may all."""
    user_file: str = ""
    """The user to connect as: a file that only its owner can read, as `broker user add` writes.
    Where a local Kafka is secure, its operator's, if nothing is said."""

    @property
    def bootstrap(self) -> Bootstrap:
        """The address that clients start from, with the file of the user to connect as."""
        return Bootstrap(f"{self.host}:{self.port}", self.user_file)


@dataclass(frozen=True)
class HBaseConfig:
    """Where HBase's Thrift gateway is, and how a local HBase is started."""

    host: str = "127.0.0.1"
    thrift_port: int = 19090
    zookeeper_port: int = 12181
    master_port: int = 16100
    region_server_port: int = 16120
    heap_mb: int = 1024
    thrift_heap_mb: int = 256
    timeout_s: float = 60.0
    regions: int = 4
    """Regions that a night's rows are spread over."""


@dataclass(frozen=True)
class StreamConfig:
    """How the Spark queries run."""

    master: str = "local[2,4]"
    driver_memory_mb: int = 2048
    trigger_s: float = 0.5
    max_alerts_per_trigger: int = 2000
    max_images_per_trigger: int = 8
    max_records_per_batch: int = 500
    idle_s: float = 6.0
    """With `--until-idle`: how long nothing new must have come."""
    transactions: bool = False
    """Send packets in Kafka transactions: readers of committed messages get each once."""


@dataclass(frozen=True)
class ScienceConfig:
    """Where contributed modules are and what they may use."""

    modules: str = ""
    """Folder of module folders; empty means the installed package `science_modules`."""
    isolate: bool = True
    """Run contributed modules in a child process."""
    ms_per_alert: float = 20.0
    """Time a module may use, a batch's share; at least `min_batch_s` a batch. [ms]"""
    min_batch_s: float = 10.0
    memory_mb: int = 2048
    """Address space the child may add to what it starts with. [MB]"""
    failures_to_quarantine: int = 5
    flood_alerts: int = 10_000
    """Newest alerts that are looked at to tell whether a topic passes more than it declares."""


@dataclass(frozen=True)
class CatalogConfig:
    """Reference catalogues."""

    path: str = ""
    """Folder of catalogues; empty means `catalogs/<run>` under `home`, or `catalogs/live`."""


@dataclass(frozen=True)
class NoticesConfig:
    """Notices of events elsewhere, and which alerts may belong to them."""

    credible_level: float = 0.9
    """An alert is in a notice's region up to this level; at most 0.99."""
    days_before: float = 1.0
    """It is in its time from so long before the trigger. [d]"""
    days_after: float = 30.0
    """Until so long after the trigger. [d]"""
    maps: str = ""
    """Folder of maps that notices name by path; empty means `notices` under `home`."""


@dataclass(frozen=True)
class ArchiveConfig:
    """The raw packets on disk."""

    path: str = ""
    """Folder of the archive; empty means `archive` under `home`."""


@dataclass(frozen=True)
class ServeConfig:
    """The web server with API and portal."""

    host: str = "127.0.0.1"
    port: int = 8800
    requests_per_s: float = 20.0
    """Requests that one client may go on sending; more get 429 and when to try again. [1/s]"""
    burst: int = 200
    """Requests that one client may send at once."""
    guest_transfers: bool = True
    """Everyone may start bulk transfers; else only who has a token with the scope `transfer`."""
    openid_file: str = ""
    """Whom people may sign in with: a file that only its owner can read, see `broker serve`."""
    nice: int = 10
    """How far the server steps back for a stream on the same processors: 0 to 19, see nice(1)."""


@dataclass(frozen=True)
class PushConfig:
    """How people are told of alerts by mail, and where their links lead."""

    smtp_host: str = "127.0.0.1"
    smtp_port: int = 25
    smtp_tls: bool = False
    """Begin encryption (STARTTLS), and check the server's certificate."""
    smtp_user: str = ""
    smtp_password_file: str = ""
    """A file that only its owner can read, with the password alone in it."""
    sender: str = "broker@localhost"
    url: str = "http://127.0.0.1:8800"
    """Address by which subscribers reach `broker serve`."""


@dataclass(frozen=True)
class LogConfig:
    """What is logged."""

    level: str = "WARNING"


@dataclass(frozen=True)
class Config:
    """All settings; frozen, checked when it is made."""

    home: Path = Path("~/.local/share/nightjar-broker")
    """Data of the local services, checkpoints, catalogues, archive: `BROKER_HOME`."""
    cache: Path = Path("~/.cache/nightjar-broker")
    """Downloaded jars: `BROKER_CACHE`."""
    run: str = "live"
    kafka: KafkaConfig = field(default_factory=KafkaConfig)
    hbase: HBaseConfig = field(default_factory=HBaseConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    science: ScienceConfig = field(default_factory=ScienceConfig)
    catalog: CatalogConfig = field(default_factory=CatalogConfig)
    notices: NoticesConfig = field(default_factory=NoticesConfig)
    archive: ArchiveConfig = field(default_factory=ArchiveConfig)
    serve: ServeConfig = field(default_factory=ServeConfig)
    push: PushConfig = field(default_factory=PushConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        object.__setattr__(self, "home", Path(self.home).expanduser().absolute())
        object.__setattr__(self, "cache", Path(self.cache).expanduser().absolute())
        Run(self.run)
        if self.kafka.secure and not self.kafka.user_file:
            own = replace(self.kafka, user_file=str(self.kafka_users / "broker.properties"))
            object.__setattr__(self, "kafka", own)
        ports = {
            "kafka.port": self.kafka.port,
            "kafka.controller_port": self.kafka.controller_port,
            "hbase.thrift_port": self.hbase.thrift_port,
            "hbase.zookeeper_port": self.hbase.zookeeper_port,
            "hbase.master_port": self.hbase.master_port,
            "hbase.region_server_port": self.hbase.region_server_port,
            "serve.port": self.serve.port,
        }
        for name, port in ports.items():
            if not 1 <= port <= 65535:
                raise ConfigError(f"{name} is {port}; a port is between 1 and 65535", setting=name)
        taken = sorted(name for name, port in ports.items() if list(ports.values()).count(port) > 1)
        if taken:
            raise ConfigError(f"{' and '.join(taken)} are the same port; each needs its own")
        _check_values(self)

    @property
    def the_run(self) -> Run:
        """The run that commands work on."""
        return Run(self.run)

    @property
    def kafka_users(self) -> Path:
        """Folder of the certificates and users' files of a secure local Kafka."""
        return self.home / "kafka-users"

    @property
    def catalog_path(self) -> Path:
        """Folder of the reference catalogues: the run's own if it has one, else those of `live`."""
        if self.catalog.path:
            return Path(self.catalog.path)
        own = self.run_path("catalogs")
        return own if own.is_dir() else self.home / "catalogs" / LIVE

    @property
    def notice_maps_path(self) -> Path:
        """Folder of the maps that notices name by path; nothing else is read for them."""
        return Path(self.notices.maps) if self.notices.maps else self.home / "notices"

    @property
    def archive_path(self) -> Path:
        """Folder of the archive; each run has a folder of its own in it."""
        return Path(self.archive.path) if self.archive.path else self.home / "archive"

    @property
    def filters_path(self) -> Path:
        """Folder of the filters that users gave as one expression."""
        return self.home / "filters"

    def run_path(self, kind: str) -> Path:
        """Folder for one kind of data of this run: `checkpoints`, `templates`, `truth`."""
        return self.home / kind / self.run


def _check_values(config: Config) -> None:
    """Raise ConfigError at the first setting that cannot work."""
    positive = {
        "kafka.heap_mb": config.kafka.heap_mb,
        "kafka.partitions": config.kafka.partitions,
        "hbase.heap_mb": config.hbase.heap_mb,
        "hbase.thrift_heap_mb": config.hbase.thrift_heap_mb,
        "hbase.timeout_s": config.hbase.timeout_s,
        "hbase.regions": config.hbase.regions,
        "stream.driver_memory_mb": config.stream.driver_memory_mb,
        "stream.trigger_s": config.stream.trigger_s,
        "stream.max_alerts_per_trigger": config.stream.max_alerts_per_trigger,
        "stream.max_images_per_trigger": config.stream.max_images_per_trigger,
        "stream.max_records_per_batch": config.stream.max_records_per_batch,
        "serve.requests_per_s": config.serve.requests_per_s,
        "serve.burst": config.serve.burst,
        "science.ms_per_alert": config.science.ms_per_alert,
        "science.memory_mb": config.science.memory_mb,
        "science.failures_to_quarantine": config.science.failures_to_quarantine,
        "science.flood_alerts": config.science.flood_alerts,
    }
    for name, value in positive.items():
        if not value > 0:
            raise ConfigError(f"{name} is {value}; it must be positive", setting=name)
    notices = config.notices
    if not 0.0 < notices.credible_level <= 0.99:
        raise ConfigError(
            f"notices.credible_level is {notices.credible_level}; it is above 0, at most 0.99",
            setting="notices.credible_level",
        )
    if not (notices.days_before >= 0.0 and notices.days_after >= 0.0):
        raise ConfigError(
            "notices.days_before and notices.days_after cannot be negative",
            setting="notices.days_after",
        )
    if not config.stream.idle_s >= 0:
        words = f"stream.idle_s is {config.stream.idle_s}; it cannot be negative"
        raise ConfigError(words, setting="stream.idle_s")
    if not 0 <= config.serve.nice <= 19:
        words = f"serve.nice is {config.serve.nice}; it is from 0 to 19"
        raise ConfigError(words, setting="serve.nice")
    hosts = {"kafka": config.kafka.host, "hbase": config.hbase.host, "serve": config.serve.host}
    for name, host in hosts.items():
        if not host:
            raise ConfigError(f"{name}.host is empty; name a host", setting=f"{name}.host")
    if config.log.level not in _LOG_LEVELS:
        raise ConfigError(
            f"log.level is {config.log.level!r}; use one of {', '.join(_LOG_LEVELS)}",
            setting="log.level",
        )


def load_config(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """Read the settings.

    Parameters
    ----------
    path : Path, optional
        The file; default `$BROKER_CONFIG`, else `broker.toml` in this folder, if there is one.
    environ : Mapping, optional
        The environment; default that of the process.

    Raises
    ------
    ConfigError
        If the file is absent or cannot be read, or a key is unknown, or a value is not allowed.
    """
    environ = os.environ if environ is None else environ
    tree = _read_file(path, environ)
    for name, value in environ.items():
        if name.startswith(_PREFIX) and name not in (
            f"{_PREFIX}CONFIG",
            f"{_PREFIX}SAMPLE_PACKETS",
        ):
            _set(tree, name.removeprefix(_PREFIX).lower().split("__"), value, name)
    return _build(Config, tree, "")


def _read_file(path: Path | None, environ: Mapping[str, str]) -> dict[str, Any]:
    named = path or environ.get(f"{_PREFIX}CONFIG")
    chosen = Path(named) if named else Path("broker.toml")
    if not chosen.exists():
        if named:
            raise ConfigError(f"there is no settings file {chosen}", path=str(chosen))
        return {}
    try:
        return tomllib.loads(chosen.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{chosen} is not TOML: {error}", path=str(chosen)) from error
    except OSError as error:
        raise ConfigError(
            f"the settings file {chosen} cannot be read: {error.strerror}", path=str(chosen)
        ) from error


def _set(tree: dict[str, Any], keys: list[str], value: str, name: str) -> None:
    if len(keys) > 2:
        raise ConfigError(f"{name} is not a setting: use BROKER_SECTION__KEY", setting=name)
    node = tree
    for key in keys[:-1]:
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            raise ConfigError(f"[{key}] must be a section: {name} sets a key in it", setting=key)
    node[keys[-1]] = value


def _build(kind: type[Any], values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise ConfigError(f"[{where}] must be a section", setting=where)
    hints = get_type_hints(kind)
    unknown = sorted(set(values) - {f.name for f in dataclasses.fields(kind)})
    if unknown:
        allowed = ", ".join(f.name for f in dataclasses.fields(kind))
        name = f"{where}.{unknown[0]}" if where else unknown[0]
        raise ConfigError(f"{name} is not a setting; allowed here: {allowed}", setting=name)
    made = {}
    for key, value in values.items():
        name = f"{where}.{key}" if where else key
        hint = hints[key]
        made[key] = (
            _build(hint, value, name)
            if isinstance(hint, type) and dataclasses.is_dataclass(hint)
            else _cast(hint, value, name)
        )
    return kind(**made)


def _cast(hint: Any, value: Any, name: str) -> Any:
    if hint is bool:
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if str(value).lower() in words:
            return words[str(value).lower()]
    elif hint is int and not isinstance(value, bool | float):
        try:
            return int(value)
        except ValueError:
            pass
    elif hint is float and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    elif hint in (str, Path) and isinstance(value, str):
        return hint(value)
    raise ConfigError(
        f"{name} is {value!r}; it must be of type {hint.__name__} "
        f"(set it in broker.toml or as {_PREFIX}{name.upper().replace('.', '__')})",
        setting=name,
    )

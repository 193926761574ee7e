"""How a client gets into Kafka: the file of a user, and what clients are told from it.

The file has the form that Kafka's own tools take as `--command-config`: TLS, SCRAM-SHA-512, the
user with its password, and the certificate by which the server is known. It is all that a
subscriber needs. The password is read when a connection is made and is kept nowhere else; Spark is
told the file's name and never what is in it.
"""

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broker.errors import ConfigError
from broker.types import Bootstrap

MECHANISM, PROTOCOL = "SCRAM-SHA-512", "SASL_SSL"
_JAAS = "sasl.jaas.config"
_CERTIFICATE = "ssl.truststore.certificates"
_LOGIN = re.compile(r'ScramLoginModule required username="([^"\\]+)" password="([^"\\]+)";$')
_PROVIDER = "org.apache.kafka.common.config.provider.FileConfigProvider"


@dataclass(frozen=True)
class KafkaUser:
    """Who connects, with what, and whom they trust.

    Parameters
    ----------
    name, password : str
        The user; the password is not shown by `repr`.
    certificate : str
        The authority that signed the server's certificate, PEM.
    """

    name: str
    password: str = field(repr=False)
    certificate: str

    def as_properties(self) -> str:
        """Return the text of the user's file."""
        certificate = self.certificate.strip().replace("\n", "\\n")
        return (
            f"security.protocol={PROTOCOL}\nsasl.mechanism={MECHANISM}\n"
            f"{_JAAS}={login(self.name, self.password)}\n"
            f"ssl.truststore.type=PEM\n{_CERTIFICATE}={certificate}\n"
        )


def login(name: str, password: str) -> str:
    """Return a user and its password as Java has it."""
    module = "org.apache.kafka.common.security.scram.ScramLoginModule"
    return f'{module} required username="{name}" password="{password}";'


def read_user(path: Path) -> KafkaUser:
    """Read the file of a user.

    Raises
    ------
    ConfigError
        If it is not there, others than its owner can read it, or it is no such file. No message
        has anything of what is in it.
    """
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise ConfigError(
                    f"{path} holds a password and others can read it: chmod 600 {path}",
                    path=str(path),
                )
            text = file.read().decode("utf-8")
    except OSError as error:
        raise ConfigError(
            f"the user's file {path} (kafka.user_file) cannot be read: {error.strerror}",
            path=str(path),
        ) from error
    except UnicodeDecodeError:
        text = ""
    said = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    found = _LOGIN.search(said.get(_JAAS, ""))
    certificate = said.get(_CERTIFICATE, "").replace("\\n", "\n")
    if found is None or "BEGIN CERTIFICATE" not in certificate:
        raise ConfigError(
            f"{path} is no file of a user: `broker user add NAME` writes one", path=str(path)
        )
    return KafkaUser(found[1], found[2], certificate + "\n")


def connection(bootstrap: str, *, bootstrap_s: float = 10.0) -> Mapping[str, Any]:
    """Return what every client of the Kafka library is made with.

    Parameters
    ----------
    bootstrap : str
        `host:port`; a `Bootstrap` also says with which user's file.
    bootstrap_s : float
        How long to look for a server that never answered. [s]

    Raises
    ------
    ConfigError
        As of `read_user`.
    """
    common = {
        "bootstrap_servers": str(bootstrap),
        "client_id": "nightjar-broker",
        "bootstrap_timeout_ms": int(bootstrap_s * 1000),
    }
    path = user_file(bootstrap)
    if path is None:
        return common
    user = read_user(path)
    context = ssl.create_default_context(cadata=user.certificate)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return common | {
        "security_protocol": PROTOCOL,
        "ssl_context": context,
        "sasl_mechanism": MECHANISM,
        "sasl_plain_username": user.name,
        "sasl_plain_password": user.password,
    }


def java_options(bootstrap: str) -> dict[str, str]:
    """Return what Spark's Kafka source and sink are told: the address and the file's name.

    Kafka's Java client reads the file itself, where it runs: neither the password nor the
    certificate is in a query's plan, in the UI or in an event log.

    Raises
    ------
    ConfigError
        As of `read_user`: found out here, not in a task.
    """
    options = {"bootstrap.servers": str(bootstrap)}
    path = user_file(bootstrap)
    if path is not None:
        read_user(path)
        options |= {
            "security.protocol": PROTOCOL,
            "sasl.mechanism": MECHANISM,
            "ssl.truststore.type": "PEM",
            "config.providers": "user",
            "config.providers.user.class": _PROVIDER,
        }
        options |= {key: f"${{user:{path}:{key}}}" for key in (_JAAS, _CERTIFICATE)}
    return {f"kafka.{key}": value for key, value in options.items()}


def user_file(bootstrap: str) -> Path | None:
    """Return the file of the user to connect as; None where Kafka asks nobody who they are."""
    path = bootstrap.user_file if isinstance(bootstrap, Bootstrap) else None
    return Path(path).expanduser().absolute() if path else None


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read; it appears when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{os.getpid()}.{path.name}")
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    new.replace(path)

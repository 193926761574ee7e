"""A local Kafka with users: certificates, the operator, and settings that let nobody else in.

Clients come in over TLS with SCRAM-SHA-512. The controller, which is in the same process, is asked
over TLS by whoever has the server's own certificate, and by nobody else. What is not allowed to a
user is denied.
"""

import re
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path

from broker.config import Config
from broker.errors import ConfigError, ServiceError
from broker.topics.kafka_access import KafkaUser, login, read_user, write_private

OPERATOR = "broker"
"""The user that the broker itself is: it may all."""

_DAYS = 3650
_ARGUMENTS = "format.arguments"

_ACCESS = """\
listener.security.protocol.map=CONTROLLER:SSL,CLIENT:SASL_SSL
sasl.enabled.mechanisms=SCRAM-SHA-512
sasl.mechanism.inter.broker.protocol=SCRAM-SHA-512
listener.name.client.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.client.scram-sha-512.sasl.jaas.config={login}
listener.name.controller.ssl.client.auth=required
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
ssl.truststore.type=PEM
ssl.truststore.location={truststore}
ssl.enabled.protocols=TLSv1.3,TLSv1.2
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=false
super.users=User:{operator};User:CN=kafka"""


def prepare(config: Config, folder: Path, data: Path) -> str:
    """Make what a secure Kafka needs, once; return its part of the settings.

    Parameters
    ----------
    config : Config
    folder : Path
        Where the server's settings and keys are.
    data : Path
        Where its data are.

    Raises
    ------
    ConfigError
        If its data were made without users, or openssl is missing.
    """
    folder.chmod(0o700)
    users = config.kafka_users
    file = users / f"{OPERATOR}.properties"
    if not file.exists():
        if (data / "meta.properties").exists():
            raise ConfigError(
                f"the Kafka in {folder} was made without users (kafka.secure): take another "
                "BROKER_HOME, and bring over what is needed with `broker archive` and a replay",
                path=str(folder),
            )
        users.mkdir(parents=True, exist_ok=True, mode=0o700)
        _make_certificates(users, config.kafka.host)
        authority = (users / "ca.pem").read_text(encoding="ascii")
        made = KafkaUser(OPERATOR, new_password(), authority)
        # The last step: a file that is there says that all else is, too.
        write_private(file, made.as_properties())
    operator = read_user(file)
    if not (data / "meta.properties").exists():
        write_private(
            folder / _ARGUMENTS,
            f"--add-scram\nSCRAM-SHA-512=[name={OPERATOR},password={operator.password}]\n",
        )
    return _ACCESS.format(
        login=login(OPERATOR, operator.password),
        keystore=users / "server.pem",
        truststore=users / "ca.pem",
        operator=OPERATOR,
    )


def check_open(config: Config) -> None:
    """Raise ConfigError if a Kafka that was made with users would be opened to all."""
    if (config.kafka_users / f"{OPERATOR}.properties").exists():
        raise ConfigError(
            f"the Kafka of {config.home} has users: set kafka.secure (BROKER_KAFKA__SECURE=true); "
            "without, whoever reaches its port could read and write all",
            setting="kafka.secure",
        )


def format_arguments(folder: Path) -> list[str]:
    """Return the arguments that add the operator: a file, as a list of processes shows words."""
    return [f"@{folder / _ARGUMENTS}"]


def forget_arguments(folder: Path) -> None:
    """Remove what `format_arguments` names, when it was used."""
    (folder / _ARGUMENTS).unlink(missing_ok=True)


def new_password() -> str:
    """Return a password of 240 random bits, of letters and digits, dashes and underscores."""
    return secrets.token_urlsafe(30)


def _make_certificates(users: Path, host: str) -> None:
    """Make an authority and the server's certificate, and forget the authority's key.

    Whoever has that key could pretend to be the server; without it there is nothing to steal, and
    another server gets another authority.
    """
    kind = "IP" if re.fullmatch(r"[0-9.]+|.*:.*", host) else "DNS"
    names = sorted({"IP:127.0.0.1", "DNS:localhost", f"{kind}:{host}"})
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-sha256")
        _openssl(
            work, "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days",
            str(_DAYS), "-subj", "/CN=nightjar-broker authority",
        )  # fmt: skip
        _openssl(
            work, "req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=kafka"
        )
        (work / "names").write_text(
            f"subjectAltName={','.join(names)}\nextendedKeyUsage=serverAuth,clientAuth\n",
            encoding="ascii",
        )
        _openssl(
            work, "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-days", str(_DAYS), "-sha256", "-extfile", "names", "-out",
            "server.crt",
        )  # fmt: skip
        parts = [(work / name).read_text(encoding="ascii") for name in ("server.key", "server.crt")]
        write_private(users / "server.pem", "".join(parts))
        write_private(users / "ca.pem", (work / "ca.pem").read_text(encoding="ascii"))


def _openssl(folder: Path, *arguments: str) -> None:
    program = shutil.which("openssl")
    if program is None:
        raise ConfigError("openssl is not installed; it makes the certificates of a secure Kafka")
    said = subprocess.run(
        [program, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    if said.returncode != 0:
        raise ServiceError(f"openssl {arguments[0]} failed: {said.stderr.strip()[-300:]}")

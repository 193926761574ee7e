"""Users of Kafka as an operator manages them: each gets a file, which is all that it needs."""

from collections.abc import Callable
from pathlib import Path

from broker.config import Config
from broker.errors import ConfigError
from broker.local.secure import OPERATOR, new_password
from broker.topics.kafka_access import KafkaUser, read_user, user_file, write_private
from broker.topics.kafka_users import KafkaRights, KafkaUsers

PUBLIC = "public."
"""Beginning of the names of the live run's public topics."""

MB_PER_S = 50.0


def add_user(config: Config, rights: KafkaRights, out: Path) -> None:
    """Let a user in, and write the file that is handed to them.

    The file is written first: a password that Kafka knows and nobody has would be of no use.

    Raises
    ------
    ConfigError
        If the name is taken or not allowed, the file is there, or Kafka has no users.
    ServiceError
        If Kafka does not answer.
    """
    if rights.name == OPERATOR:
        raise ConfigError(f"{OPERATOR} is the operator; take another name")
    _check_free(out)
    _hand_out(config, rights.name, out, lambda users, password: users.add(rights, password))


def rotate_user(config: Config, name: str, out: Path) -> None:
    """Give a user another password and write another file; what is connected stays so.

    Raises
    ------
    ConfigError
        If there is no such user, it is the operator, or the file is there.
    """
    if name == OPERATOR:
        raise ConfigError(
            f"{OPERATOR} is the operator, whose password the server has in its settings; a new "
            "BROKER_HOME gets a new one"
        )
    _check_free(out)
    _hand_out(config, name, out, lambda users, password: users.rotate(name, password))


def remove_user(config: Config, name: str) -> None:
    """Let a user in no more.

    Raises
    ------
    ConfigError
        If there is no such user, or it is the operator.
    """
    if name == OPERATOR:
        raise ConfigError(f"{OPERATOR} is the operator and stays")
    users_of(config).remove(name)


def users_of(config: Config) -> KafkaUsers:
    """Return the users of the Kafka that the settings name.

    Raises
    ------
    ConfigError
        If the settings name no user: then that Kafka asks nobody who they are.
    """
    if user_file(config.kafka.bootstrap) is None:
        raise ConfigError(
            "this Kafka has no users: set kafka.secure (BROKER_KAFKA__SECURE=true) before the "
            "first broker up of a BROKER_HOME, or kafka.user_file of one elsewhere",
            setting="kafka.secure",
        )
    return KafkaUsers(config.kafka.bootstrap)


def _check_free(out: Path) -> None:
    if out.exists():
        raise ConfigError(f"{out} is there already; choose another with --out", path=str(out))


def _hand_out(
    config: Config, name: str, out: Path, change: Callable[[KafkaUsers, str], None]
) -> None:
    users = users_of(config)
    operator = user_file(config.kafka.bootstrap)
    if operator is None:
        raise ConfigError("this Kafka has no users", setting="kafka.secure")
    password = new_password()
    user = KafkaUser(name, password, read_user(operator).certificate)
    write_private(out, user.as_properties())
    try:
        change(users, password)
    except BaseException:
        out.unlink(missing_ok=True)
        raise

"""Users of a Kafka server: who they are, which topics they may read and write, how fast."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)
from kafka.errors import KafkaError
from kafka.protocol.admin import AlterClientQuotasRequest, DescribeClientQuotasRequest

from broker.errors import ConfigError, ServiceError
from broker.topics.kafka_access import connection

NAME = re.compile(r"[a-z][a-z0-9-]{0,40}")
_SCRAM = ScramMechanism.SCRAM_SHA_512
_ITERATIONS = 8192
_TIMEOUT_MS = 10_000
_QUOTAS = ("consumer_byte_rate", "producer_byte_rate")
_READS = (ACLOperation.READ, ACLOperation.DESCRIBE)
_WRITES = (ACLOperation.WRITE, ACLOperation.DESCRIBE)


@dataclass(frozen=True)
class KafkaRights:
    """What a user may do.

    Parameters
    ----------
    name : str
        The user. Consumer groups whose names begin with it are the user's.
    reads, writes : tuple of str
        Beginnings of names of topics; an empty string would be all topics and is refused.
    mb_per_s : float
        How fast it may read, and write. [MB/s]
    """

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    mb_per_s: float


class KafkaUsers:
    """Adds, lists and removes users, as a user who may.

    Parameters
    ----------
    bootstrap : str
        `host:port`, with the file of the operator.
    """

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap

    def add(self, rights: KafkaRights, password: str) -> None:
        """Let a user in: rights and quota first, so that nobody is in without.

        Raises
        ------
        ConfigError
            If the name or a prefix is not allowed, or the user exists.
        ServiceError
            If the server does not answer.
        """
        _check(rights)
        with self._admin() as admin:
            if rights.name in self._credentials(admin):
                raise ConfigError(f"there is a user {rights.name} already", name=rights.name)
            self._forget(admin, rights.name)  # what a removal that was cut short left
            _set_quota(admin, rights.name, rights.mb_per_s * 1e6)
            done = admin.create_acls(_acls(rights))
            if done["failed"]:
                raise ServiceError(f"Kafka refused the rights of {rights.name}: {done['failed']}")
            _alter(admin, UserScramCredentialUpsertion(rights.name, _SCRAM, password, _ITERATIONS))

    def rotate(self, name: str, password: str) -> None:
        """Give a user another password; the old one lets nobody in any more.

        Raises
        ------
        ConfigError
            If there is no such user.
        """
        with self._admin() as admin:
            self._check_known(admin, name)
            _alter(admin, UserScramCredentialUpsertion(name, _SCRAM, password, _ITERATIONS))

    def remove(self, name: str) -> None:
        """Let a user in no more, and forget what it might.

        Raises
        ------
        ConfigError
            If there is no such user.
        """
        with self._admin() as admin:
            self._check_known(admin, name)
            _alter(admin, UserScramCredentialDeletion(name, _SCRAM))
            self._forget(admin, name)

    def all(self) -> list[KafkaRights]:
        """Return the users with their rights, sorted; one without rules may all or nothing."""
        with self._admin() as admin:
            rates = _quotas(admin)
            acls, _ = admin.describe_acls(_any_acl())
            users = []
            for name in self._credentials(admin):
                mine = [a for a in acls if a.principal == f"User:{name}"]
                reads = _prefixes(mine, ACLOperation.READ)
                writes = _prefixes(mine, ACLOperation.WRITE)
                users.append(KafkaRights(name, reads, writes, rates.get(name, float("inf")) / 1e6))
            return users

    @contextlib.contextmanager
    def _admin(self) -> Iterator[Any]:
        try:
            admin = KafkaAdminClient(**connection(self._bootstrap), request_timeout_ms=_TIMEOUT_MS)
            try:
                yield admin
            finally:
                admin.close()
        except (KafkaError, OSError) as error:
            raise ServiceError(
                f"Kafka at {self._bootstrap}: {type(error).__name__} {error}"
            ) from error

    def _credentials(self, admin: Any) -> list[str]:
        return sorted(admin.describe_user_scram_credentials())

    def _check_known(self, admin: Any, name: str) -> None:
        known = self._credentials(admin)
        if name not in known:
            raise ConfigError(f"there is no user {name!r}; there are {', '.join(known)}")

    def _forget(self, admin: Any, name: str) -> None:
        admin.delete_acls([_any_acl(f"User:{name}")])
        _set_quota(admin, name, None)


def _check(rights: KafkaRights) -> None:
    if not NAME.fullmatch(rights.name):
        raise ConfigError(f"{rights.name!r} is no name: lower-case letters, digits, dashes")
    for prefix in (*rights.reads, *rights.writes):
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,200}", prefix):
            raise ConfigError(f"{prefix!r} is no beginning of a topic's name")
    if not rights.mb_per_s > 0.0:
        raise ConfigError(f"{rights.mb_per_s} MB/s; it must be positive")


def _acls(rights: KafkaRights) -> list[ACL]:
    wanted = [
        (ResourceType.TOPIC, prefix, operation)
        for prefixes, operations in ((rights.reads, _READS), (rights.writes, _WRITES))
        for prefix in prefixes
        for operation in operations
    ]
    wanted.append((ResourceType.GROUP, rights.name, ACLOperation.READ))
    return [
        ACL(
            f"User:{rights.name}",
            "*",
            operation,
            ACLPermissionType.ALLOW,
            ResourcePattern(kind, prefix, ACLResourcePatternType.PREFIXED),
        )
        for kind, prefix, operation in dict.fromkeys(wanted)
    ]


def _any_acl(principal: str | None = None) -> ACLFilter:
    pattern = ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY)
    return ACLFilter(principal, None, ACLOperation.ANY, ACLPermissionType.ANY, pattern)


def _prefixes(acls: Sequence[Any], operation: Any) -> tuple[str, ...]:
    return tuple(
        sorted(
            acl.resource_pattern.resource_name
            for acl in acls
            if acl.operation == operation
            and acl.resource_pattern.resource_type == ResourceType.TOPIC
        )
    )


def _alter(admin: Any, change: Any) -> None:
    for name, problem in admin.alter_user_scram_credentials([change]).items():
        if problem is not None:
            raise ServiceError(f"Kafka did not change user {name}: {problem}")


def _set_quota(admin: Any, name: str, bytes_per_s: float | None) -> None:
    """Set how many bytes a second a user may move, or forget it; the library has no call for it."""
    entry = AlterClientQuotasRequest.EntryData
    request = AlterClientQuotasRequest(
        entries=[
            entry(
                entity=[entry.EntityData(entity_type="user", entity_name=name)],
                ops=[
                    entry.OpData(key=key, value=bytes_per_s or 0.0, remove=bytes_per_s is None)
                    for key in _QUOTAS
                ],
            )
        ],
        validate_only=False,
    )
    answer = admin._manager.run(admin._manager.send, request)
    for one in answer.entries:
        if one.error_code:
            raise ServiceError(f"Kafka refused the quota of {name}: {one.error_message}")


def _quotas(admin: Any) -> dict[str, float]:
    component = DescribeClientQuotasRequest.ComponentData
    request = DescribeClientQuotasRequest(
        components=[component(entity_type="user", match_type=2, match=None)], strict=False
    )
    answer = admin._manager.run(admin._manager.send, request)
    return {
        entry.entity[0].entity_name: value.value
        for entry in answer.entries or ()
        for value in entry.values
        if value.key == _QUOTAS[0]
    }

"""Classify errors of Kafka: for one message, and for the whole pillow. Nothing here waits."""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum, auto

from msgspec import Struct

from pillows.errors import AccessError, AwayError, ConfigError, FencedError, PillowError, RetryableError


class Verdict(Enum):
    """The meaning of an error."""

    RETRY = auto()
    AWAY = auto()
    TOO_LARGE = auto()  # the messages that were sent together: fewer may be taken
    DEAD = auto()
    ACCESS = auto()
    CONFIG = auto()
    FENCED = auto()


#: Names of librdkafka's error codes; any other one is retried. It raises those with an underscore itself.
_NAMES = {
    Verdict.AWAY: {"_TRANSPORT", "_ALL_BROKERS_DOWN", "_RESOLVE", "_SSL"},
    Verdict.TOO_LARGE: {"MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE"},
    Verdict.DEAD: {"INVALID_MSG", "INVALID_MSG_SIZE", "INVALID_RECORD"},
    Verdict.ACCESS: {
        "_AUTHENTICATION",
        "CLUSTER_AUTHORIZATION_FAILED",
        "SASL_AUTHENTICATION_FAILED",
        "SECURITY_DISABLED",
        "TOPIC_AUTHORIZATION_FAILED",
        "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
        "UNSUPPORTED_SASL_MECHANISM",
    },
    Verdict.CONFIG: {
        "_INVALID_ARG",
        "_UNKNOWN_TOPIC",
        "INVALID_CONFIG",
        "INVALID_PARTITIONS",
        "INVALID_REPLICATION_FACTOR",
        "POLICY_VIOLATION",
        "TOPIC_EXCEPTION",
        "UNKNOWN_TOPIC_OR_PART",
        "UNSUPPORTED_VERSION",
    },
    # Not INVALID_PRODUCER_EPOCH: a broker says that of a transaction that took longer than its timeout, too
    # (KIP-588). The end of the transaction decides: librdkafka renews the epoch, which fails as `_FENCED` if
    # another producer has taken over.
    Verdict.FENCED: {"_FENCED", "FENCED_INSTANCE_ID", "PRODUCER_FENCED"},
}
_VERDICTS = {name: verdict for verdict, names in _NAMES.items() for name in names}
#: OpenSSL's words in an error of a handshake that no retry can mend.
_UNTRUSTED = "certificate verify failed"


class Failure(Struct, frozen=True, kw_only=True):
    """An error that Kafka or its client library reported.

    Attributes:
        name: of the error code, such as `MSG_SIZE_TOO_LARGE`.
        text: a description.
    """

    name: str
    text: str

    @property
    def verdict(self) -> Verdict:
        """The meaning of the error."""
        if self.name == "_SSL" and _UNTRUSTED in self.text:
            return Verdict.ACCESS
        return _VERDICTS.get(self.name, Verdict.RETRY)

    def __str__(self) -> str:
        """Return the name and the description."""
        return f"{self.name}: {self.text}"


def to_error(failure: Failure, servers: Collection[str]) -> PillowError:
    """Return the error to raise for a failure.

    Args:
        failure: the failure.
        servers: the configured brokers.
    """
    where = f"Kafka at {', '.join(servers)}"
    match failure.verdict:
        case Verdict.ACCESS:
            return _to_access_error(failure, where)
        case Verdict.CONFIG:
            remedy = "check the topic, its settings and those of the connection"
            return ConfigError(f"{where} cannot be used: {failure}.", remedy=remedy)
        case Verdict.FENCED if failure.name == "FENCED_INSTANCE_ID":
            return FencedError(
                f"Another pillowd runs with the same instance id at {where}: {failure}.",
                remedy="stop one of the two; give each machine a state directory of its own, not a copy",
            )
        case Verdict.FENCED:
            return FencedError(
                f"Another pillowd has taken over this pillow's transactions at {where}: {failure}.",
                remedy="stop one of the two",
            )
        case Verdict.AWAY:
            return AwayError(f"{where} cannot be reached: {failure}.")
        case _:
            return RetryableError(f"{where}: {failure}.")


def _to_access_error(failure: Failure, where: str) -> AccessError:
    if failure.name == "_SSL":
        return AccessError(
            f"The certificate of {where} is not trusted: {failure}.",
            remedy="set `ca_bundle` in the connection's `tls`",
        )
    return AccessError(
        f"{where} does not let us in: {failure}.",
        remedy="check the connection's `sasl` and `tls`, and the permissions of its user",
    )

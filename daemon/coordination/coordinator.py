"""The right to run the pillows: of a single daemon, or of one of several at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gevent.event import Event
from msgspec import Struct

from checkpoints.replica import Replica
from daemon.config.models import Config
from pillows.errors import ConfigError


class SharedState(Protocol):
    """The state of a service, stored where every daemon of the service can read it.

    Attributes:
        service: the service's name.
        is_filled: whether a daemon has copied its state there.
    """

    service: str
    is_filled: bool

    def open_replica(self, store: str) -> Replica:
        """Return the copy of one store."""

    def set_filled(self) -> None:
        """Note durably that every store was copied there.

        Raises:
            StoreWriteError: the write failed.
        """


class Grant(Struct, frozen=True, kw_only=True):
    """The right to run the pillows.

    Attributes:
        term: a number that grows with each owner of the right. 0 without a service.
        shared: the state of the service; None if the state directory holds the only copy.
    """

    term: int = 0
    shared: SharedState | None = None


class Coordinator(Protocol):
    """Grants the right to run the pillows to one daemon at a time."""

    def acquire(self, stop: Event, each_wait: Callable[[str], None]) -> Grant | None:
        """Wait until this daemon may run the pillows.

        Args:
            stop: ends the wait.
            each_wait: called every second with the reason to wait.

        Returns:
            The grant; None if a stop was requested.

        Raises:
            FatalError: the settings are wrong, so it can never be granted.
        """

    def watch(self, on_lost: Callable[[str], None]) -> None:
        """Call `on_lost` once, with the reason, as soon as another daemon may be granted the right.

        If the right is already lost, call it at once. `on_lost` must not wait.
        """

    def close(self) -> None:
        """Release the right. May be called twice."""


class NoCoordinator:
    """Grants at once: no other daemon runs these pillows."""

    def acquire(self, _stop: Event, _each_wait: Callable[[str], None]) -> Grant | None:
        """Return at once; see `Coordinator.acquire`."""
        return Grant()

    def watch(self, on_lost: Callable[[str], None]) -> None:
        """Do nothing: the right is never lost."""

    def close(self) -> None:
        """Do nothing."""


def make_coordinator(config: Config) -> Coordinator:
    """Return the coordinator that a configuration names."""
    if config.coordination.type == "none":
        return NoCoordinator()
    if config.coordination.type == "kafka":
        from daemon.kafka.cluster_wait import ClusterWait  # noqa: PLC0415  needs Kafka's client

        return ClusterWait(config)
    # Imported here, so that a daemon without coordination need not load the PostgreSQL client.
    from daemon.coordination.lease import LeaseCoordinator  # noqa: PLC0415  see above

    return LeaseCoordinator(*get_lease_database(config))


def describe_service(config: Config) -> str:
    """Return a description of a service, asked from its servers.

    Raises:
        PillowError: the servers can't be asked.
    """
    if config.coordination.type == "kafka":
        from daemon.kafka.service import describe_cluster  # noqa: PLC0415  see `make_coordinator`

        return describe_cluster(config)
    from daemon.coordination.lease import find_holder  # noqa: PLC0415  see `make_coordinator`

    return find_holder(*get_lease_database(config))


def get_lease_database(config: Config) -> tuple[object, str]:
    """Return the settings of the lease database, and the service's name."""
    coordination = config.coordination
    if coordination.connection is None or coordination.service is None:
        raise ConfigError("`coordination` needs a `connection` and a `service`.")
    return config.connections[coordination.connection].options, coordination.service

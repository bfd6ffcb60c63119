"""The settings with which a topic is created."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field


class Topic(Struct, frozen=True, kw_only=True):
    """The settings with which a topic is created.

    Attributes:
        name: its name.
        partitions: their number; the brokers' default if None.
        replication_factor: copies of each partition; the brokers' default if None.
        config: settings such as `cleanup.policy`; the brokers' defaults for all others.
    """

    name: str
    partitions: int | None = None
    replication_factor: int | None = None
    config: Mapping[str, str] = field(default_factory=dict)

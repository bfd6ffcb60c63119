"""Settings of one topic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from pillows.kafka.topic import Topic
from pillows.options import OutputOptions
from pillows.transports.common.addresses import to_host_address


class KafkaOutput(OutputOptions):
    """One topic.

    Attributes:
        topic: name of the topic. A missing topic is created when the pillow starts.
        value: `row` writes the document's row, and makes a document with several a dead letter; `rows`
            always writes a list of all rows.
        envelope: `none`, or `debezium`: the value has the fields of a Debezium change event.
        partitions: number of partitions of a topic that is created; the brokers' default unless given.
        replication_factor: copies of a topic that is created; the brokers' default unless given.
        topic_config: settings of a topic that is created, such as `{ cleanup.policy: compact }`.
    """

    ADDRESS_KEYS: ClassVar[tuple[str, ...]] = ("topic",)
    NOT_SHAPING: ClassVar[frozenset[str]] = frozenset({"partitions", "replication_factor", "topic_config"})

    topic: str = Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")
    value: Literal["row", "rows"] = "row"
    envelope: Literal["none", "debezium"] = "none"
    partitions: int | None = Field(default=None, ge=1)
    replication_factor: int | None = Field(default=None, ge=1)
    topic_config: Mapping[str, str] = {}

    @field_validator("topic")
    @classmethod
    def _check_topic(cls, topic: str) -> str:
        if topic in {".", ".."}:
            raise ValueError("is a name that Kafka does not take; choose another, such as cases")
        return topic

    @property
    def as_topic(self) -> Topic:
        """The topic as it is to be created."""
        return Topic(
            name=self.topic,
            partitions=self.partitions,
            replication_factor=self.replication_factor,
            config=self.topic_config,
        )

    def addresses(self, connection: Any) -> frozenset[tuple[str, ...]]:
        """Return the topic's address for each broker; see `OutputOptions.addresses`."""
        return frozenset(("kafka", _to_broker_address(server), self.topic) for server in connection.servers)


def _to_broker_address(server: str) -> str:
    host, _, port = server.rpartition(":")
    return f"{to_host_address(host)}:{port}"

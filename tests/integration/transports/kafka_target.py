"""Kafka topics as the conformance suite sees them, read back by a consumer of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import msgspec
from confluent_kafka import Message

from checkpoints import TailKey
from pillows.kafka.options import KafkaConnection
from pillows.transports.kafka.options import KafkaOutput
from pillows.transports.kafka.transport import KafkaTransport
from tests.conformance.append_only import Appended, AppendOnlyTarget, without_ids
from tests.conformance.target import KEY
from tests.support.kafka_reader import headers, read_topic


class KafkaTarget(AppendOnlyTarget):
    """Topics that no other test has.

    Args:
        server: host and port that transports connect to.
        prefix: of the topics.
        connection: settings of the connection.
        output: settings of the outputs.
        away: keeps writers away.
    """

    def __init__(
        self,
        server: str,
        prefix: str,
        *,
        connection: dict[str, Any] | None = None,
        output: dict[str, Any] | None = None,
        away: Callable[[], AbstractContextManager[object]] | None = None,
    ) -> None:
        self.server = server
        self.prefix = prefix
        self.connection = connection or {}
        self.output = output or {}
        self.has_many = self.output.get("value") == "rows"
        self._away = away

    def transport(self, *outputs: str, key: TailKey = KEY, **options: Any) -> KafkaTransport:
        connection = KafkaConnection(servers=(self.server,), **self.connection | options)
        made = {name: KafkaOutput(topic=self.topic(name), **self.output) for name in outputs}
        return KafkaTransport("bus", key, connection, made)

    def topic(self, output: str = "docs") -> str:
        return f"{self.prefix}{output}"

    def messages(self, output: str = "docs") -> list[Message]:
        return read_topic(self.server, self.topic(output))

    def read(self, output: str) -> list[Appended]:
        return [self._to_appended(message) for message in self.messages(output)]

    @contextmanager
    def away(self) -> Iterator[None]:
        if self._away is None:
            super().away()
        else:
            with self._away():
                yield

    def _to_appended(self, message: Message) -> Appended:
        told, id, value = headers(message), message.key(), message.value()
        assert id is not None
        row = None if value is None else msgspec.json.decode(value)
        rows = row if isinstance(row, list) else [] if row is None else [row]
        return Appended(
            id=id.decode(),
            rev=told["rev"],
            version=int(told["version"]),
            rows=[without_ids(each) for each in rows],
        )

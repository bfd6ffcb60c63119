"""The append-only suite on a real Kafka broker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest

from tests.conformance.append_only import AppendOnlyConformance
from tests.integration.transports.kafka_target import KafkaTarget
from tests.servers.kafka import Kafka


@contextmanager
def frozen(server: Kafka) -> Iterator[None]:
    """A broker that hangs: the messages wait for their timeout."""
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


class TestKafkaConformance(AppendOnlyConformance):
    connection: ClassVar[dict[str, Any]] = {}
    output: ClassVar[dict[str, Any]] = {}

    @pytest.fixture
    def target(self, request: pytest.FixtureRequest, kafka_prefix: str) -> KafkaTarget:
        if "away" not in request.node.name:
            server = request.getfixturevalue("kafka")
            return KafkaTarget(server, kafka_prefix, connection=self.connection, output=self.output)
        own: Kafka = request.getfixturevalue("own_kafka")
        return KafkaTarget(
            own.where,
            kafka_prefix,
            connection=self.connection | {"timeout": "2s"},
            output=self.output,
            away=lambda: frozen(own),
        )


@pytest.mark.proof
class TestKafkaRowsConformance(TestKafkaConformance):
    output: ClassVar[dict[str, Any]] = {"value": "rows", "partitions": 3}


@pytest.mark.proof
class TestKafkaTransactionsConformance(TestKafkaConformance):
    connection: ClassVar[dict[str, Any]] = {"transactions": True}

"""Writes to topics of Kafka, for other people's consumers; see `encoder` for the messages.

At least once, in order for each id. Each message affects only its own document: if the brokers refuse it for
good, it becomes a dead letter; if they do not acknowledge it, it is sent again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from checkpoints import Checkpoint, TailKey
from pillows.errors import ConfigError, PermanentError
from pillows.kafka.message import Message
from pillows.kafka.options import KafkaConnection
from pillows.models import Batch, DocumentRows, WriteResult, newest
from pillows.options import Options, OutputOptions
from pillows.transports.base import AppendOnlyTransport, TargetState
from pillows.transports.common.mirroring import MirrorSupport
from pillows.transports.kafka.encoder import encode_document, format_message
from pillows.transports.kafka.mirror import KafkaMirror
from pillows.transports.kafka.options import KafkaOutput
from pillows.transports.kafka.writer import BatchWriter

if TYPE_CHECKING:
    from pillows.kafka.producer import Producer
    from pillows.kafka.topics import ClusterDescription


class KafkaTransport(AppendOnlyTransport):
    """Writes to topics; see the module."""

    TYPE: ClassVar[str] = "kafka"
    Connection: ClassVar[type[Options]] = KafkaConnection
    Output: ClassVar[type[OutputOptions]] = KafkaOutput
    takes_json: ClassVar[bool] = True
    mirror: ClassVar[MirrorSupport | None] = KafkaMirror()

    def __init__(
        self, name: str, key: TailKey, connection: KafkaConnection, outputs: Mapping[str, KafkaOutput]
    ) -> None:
        super().__init__(name, key, connection, outputs)
        self._producer: Producer | None = None

    def check(self) -> str:
        """Ask the brokers for the topics; see `Transport.check`."""
        try:
            found = self._describe()
        finally:
            self.close()
        topics = (
            f"the topic {topic} has {found.partitions[topic]} partitions"
            if topic in found.partitions
            else f"the topic {topic} will be created"
            for topic in self._list_topics()
        )
        return f"Kafka answers with {found.brokers} brokers; {', '.join(topics)}"

    def preview(self, batch: Batch) -> str:
        """Return the messages; see `Transport.preview`."""
        return "".join(
            format_message(message)
            for document in newest(batch.documents)
            for message in self._encode(batch, document)
        )

    def open(self) -> TargetState:
        """Create the topics that are missing."""
        found = self._describe()
        outputs: Iterable[KafkaOutput] = self.outputs.values()
        missing = {each.topic: each for each in outputs if each.topic not in found.partitions}
        if missing:
            from pillows.kafka import topics  # noqa: PLC0415  see `_get_producer`

            topics.create(self.connection, [output.as_topic for output in missing.values()])
        return super().open()

    def acquire(self, checkpoint: Checkpoint) -> None:  # noqa: ARG002  # topics keep no checkpoint
        """Fence an earlier writer, if there are transactions."""
        self._get_producer().fence()

    def write(self, batch: Batch) -> WriteResult:
        """Write the batch; see `Transport.write`.

        Raises:
            AwayError: no broker can be reached.
            RetryableError: the batch may or may not have been written.
            AccessError, ConfigError: the brokers deny access, or a topic is missing.
            FencedError: another pillowd has taken over the transactions.
        """
        writer = BatchWriter(self._get_producer().send, lambda document: self._encode(batch, document))
        return writer.write(newest(batch.documents), self.connection.servers)

    def close(self) -> None:
        """Close every connection."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close()

    def output_kinds(self) -> Iterable[tuple[Any, ...]]:
        """Return the topics."""
        return ((output, options.topic) for output, options in self.outputs.items())

    def _check_files(self) -> None:
        tls = self.connection.tls
        for path in (tls.ca_bundle, tls.client_cert) if tls else ():
            if path is not None and not path.is_file():
                raise ConfigError(f"There is no file {path}.", remedy="check the connection's `tls`")

    def _list_topics(self) -> Iterable[str]:
        return dict.fromkeys(options.topic for options in self.outputs.values())

    def _describe(self) -> ClusterDescription:
        self._check_files()
        producer = self._get_producer()
        from pillows.kafka import topics  # noqa: PLC0415  see `_get_producer`

        return topics.describe(producer)

    def _encode(self, batch: Batch, document: DocumentRows) -> list[Message]:
        messages = encode_document(self.key, self.outputs, batch, document, time.time())
        limit_bytes = self.connection.max_message
        for message in messages:
            if message.size_bytes > limit_bytes:
                raise PermanentError(
                    f"Its message has {message.size_bytes} bytes; `max_message` is {limit_bytes} bytes."
                )
        return messages

    def _get_producer(self) -> Producer:
        if self._producer is None:
            try:
                # Imported here: it is an extra, and configurations name types whose libraries are missing.
                from pillows.kafka.producer import Producer  # noqa: PLC0415  see above
            except ModuleNotFoundError as error:
                if error.name != "confluent_kafka":
                    raise
                raise ConfigError(
                    "Kafka's client library is not installed.",
                    remedy="pip install 'pillowd[kafka]' (from a checkout: pip install confluent-kafka)",
                ) from error
            own = f"pillowd.{self.key}.{self.name}" if self.connection.transactions else ""
            self._producer = Producer(self.connection, own)
        return self._producer

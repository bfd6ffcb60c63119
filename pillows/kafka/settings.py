"""The settings of librdkafka, Kafka's client library, for a connection.

All are described in https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md.
"""

from __future__ import annotations

import logging
from typing import Any

from pillows.kafka.group import Group
from pillows.kafka.options import KafkaConnection

_LOGGER = logging.getLogger("librdkafka")


class QuietLogger:
    """Takes the log of librdkafka, which writes twenty lines per second while a broker is away.

    The pillow reports its retries itself, so these lines are for debugging only.
    """

    def log(self, _level: int, text: str, *args: object) -> None:
        """Log a line at level debug."""
        _LOGGER.debug(text, *args)


def make_settings(options: KafkaConnection) -> dict[str, Any]:
    """Return the settings that every client of a cluster needs."""
    protocol = ("sasl_" if options.sasl else "") + ("ssl" if options.tls else "plaintext")
    settings: dict[str, Any] = {
        "bootstrap.servers": ",".join(options.servers),
        "client.id": "pillowd",
        "security.protocol": protocol,
        "reconnect.backoff.max.ms": 1000,
        # Added partitions of a topic are noticed after this time; the default is 5 minutes.
        "topic.metadata.refresh.interval.ms": 10_000,
        "socket.keepalive.enable": True,
        "logger": QuietLogger(),
    }
    if options.tls and options.tls.ca_bundle:
        settings["ssl.ca.location"] = str(options.tls.ca_bundle)
    if options.tls and options.tls.client_cert:
        settings["ssl.certificate.location"] = settings["ssl.key.location"] = str(options.tls.client_cert)
    if options.sasl:
        settings["sasl.mechanism"] = options.sasl.mechanism
        settings["sasl.username"] = options.sasl.username
        settings["sasl.password"] = options.sasl.password.get_secret_value()
    return settings


def make_consumer_settings(options: KafkaConnection, group_id: str = "pillowd") -> dict[str, Any]:
    """Return the settings of a consumer, which neither commits nor resets an offset by itself.

    Args:
        options: the connection.
        group_id: the group. librdkafka requires one even if no group is joined.
    """
    return make_settings(options) | {
        "group.id": group_id,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        # Of each consumer; the default is 64 MiB.
        "queued.max.messages.kbytes": 1024,
        "allow.auto.create.topics": False,
        # Longest time of a synchronous commit, which also holds up the thread.
        "socket.timeout.ms": 10_000,
    }


def make_member_settings(options: KafkaConnection, group: Group) -> dict[str, Any]:
    """Return the settings of a member of a consumer group.

    The group has the classic protocol: with KIP-848 the broker sets the session, to 45 s at least
    (`group.consumer.min.session.timeout.ms`).
    """
    session_ms = int(group.session_seconds * 1000)
    return make_consumer_settings(options, group.id) | {
        "group.instance.id": group.instance_id,
        "group.protocol": "classic",
        "partition.assignment.strategy": "cooperative-sticky",
        "enable.partition.eof": True,
        "session.timeout.ms": session_ms,
        "heartbeat.interval.ms": min(2000, session_ms // 3),
        # Also the longest time that the other members wait for this one in a rebalance.
        "max.poll.interval.ms": max(120_000, session_ms),
    }


def make_producer_settings(options: KafkaConnection, transactional_id: str) -> dict[str, Any]:
    """Return the settings of a producer.

    Args:
        options: the connection.
        transactional_id: "" without transactions.
    """
    timeout_ms = int(options.timeout * 1000)
    settings = make_settings(options) | {
        "enable.idempotence": True,
        "acks": "all",
        "message.timeout.ms": timeout_ms,
        "message.max.bytes": options.max_message,
        "queue.buffering.max.kbytes": options.max_buffered // 1024,
        "compression.type": options.compression,
        # A batch is complete when it comes: waiting for more would only delay it (8.5 ms a message against
        # 3.4, measured with the default of 5 ms).
        "linger.ms": 0,
        # The default of Java's clients, so that every client sends an id to the same partition.
        "partitioner": "murmur2_random",
    }
    if transactional_id:
        settings["transactional.id"] = transactional_id
        settings["transaction.timeout.ms"] = max(60_000, timeout_ms)
    return settings

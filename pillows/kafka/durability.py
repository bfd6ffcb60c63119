"""Find out whether the records that a cluster has acknowledged survive the loss of a broker.

pillowd sends with `acks=all`, which means all copies that are up. With `min.insync.replicas=1` one is enough,
and then `acks=all` promises no more than `acks=1` does.
"""

from __future__ import annotations

from pillows.errors import AccessError, ConfigError
from pillows.kafka.options import KafkaConnection
from pillows.kafka.topics import ClusterDescription, find_setting


def find_weakness(options: KafkaConnection, cluster: ClusterDescription, topic: str) -> str:
    """Return why a topic may lose records with one broker, and the remedy; "" if not, or if we may not ask.

    Args:
        options: the cluster.
        cluster: what it says of itself.
        topic: one that exists.

    A broker may not know a topic yet that was just created. "DescribeConfigs" is a permission of its own,
    which nothing else needs, and clusters of other makes may lack it.

    Raises:
        RetryableError: the brokers can't be asked.
    """
    copies = cluster.copies.get(topic)
    try:
        needed = find_setting(options, topic, "min.insync.replicas")
    except (AccessError, ConfigError):
        return ""
    return "" if needed is None or copies is None else describe_weakness(copies, int(needed))


def describe_weakness(copies: int, needed: int) -> str:
    """Return why acknowledged records may be lost with one broker, and the remedy; "" if they are not.

    Args:
        copies: brokers that keep each record.
        needed: `min.insync.replicas`: copies that must be there for a record to be acknowledged.
    """
    if copies < 2:
        return (
            "each record has one copy, so the loss of a broker's disk loses positions and dead letters; with "
            "three brokers set `default.replication.factor=3` and `min.insync.replicas=2` there before the "
            "topics are created"
        )
    if needed < 2:
        return (
            f"one of {copies} copies is enough to acknowledge a record (`min.insync.replicas={needed}`), so "
            "the loss of a broker may lose acknowledged ones; set `min.insync.replicas=2` for the topics"
        )
    return ""

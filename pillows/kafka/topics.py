"""Describe topics, and create missing ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import gevent
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._metadata import ClusterMetadata
from confluent_kafka.cimpl import NewPartitions, NewTopic
from msgspec import Struct

from pillows.errors import RetryableError
from pillows.kafka.delivery import to_failure
from pillows.kafka.errors import to_error
from pillows.kafka.options import KafkaConnection
from pillows.kafka.producer import CALL_SECONDS, Producer
from pillows.kafka.settings import make_settings
from pillows.kafka.topic import Topic
from pillows.serial_worker import SerialWorker

_IN_TIME = {"request_timeout": CALL_SECONDS}
#: Errors that mean that another daemon has just made the same change.
_DONE_MEANWHILE = ("TOPIC_ALREADY_EXISTS", "INVALID_PARTITIONS")


class ClusterDescription(Struct, frozen=True, kw_only=True):
    """The brokers and topics of a cluster.

    Attributes:
        brokers: their number.
        partitions: topic -> its number of partitions; without topics that do not exist.
        copies: topic -> how many brokers keep each of its records; the least of its partitions.
    """

    brokers: int
    partitions: Mapping[str, int]
    copies: Mapping[str, int]


def describe(producer: Producer) -> ClusterDescription:
    """Describe the cluster with all its topics: a request that names a missing topic may create it.

    Raises:
        PillowError: see `Producer.send`.
    """
    found: ClusterMetadata = producer.call(lambda library, seconds: library.list_topics(timeout=seconds))
    known = {name: topic.partitions for name, topic in found.topics.items() if topic.error is None}
    return ClusterDescription(
        brokers=len(found.brokers),
        partitions={name: len(partitions) for name, partitions in known.items()},
        copies={
            name: min((len(each.replicas) for each in partitions.values()), default=0)
            for name, partitions in known.items()
        },
    )


def create(options: KafkaConnection, missing: Sequence[Topic]) -> None:
    """Create topics. It is not an error if another client creates one at the same time.

    Raises:
        ConfigError: its settings are refused.
        AccessError: we may not create topics.
        RetryableError: the brokers cannot create topics now.
    """
    _administer(options, lambda admin: admin.create_topics(list(map(_to_new_topic, missing)), **_IN_TIME))


def ensure(producer: Producer, options: KafkaConnection, wanted: Sequence[Topic]) -> Mapping[str, int]:
    """Create missing topics, and add missing partitions to existing ones.

    Returns:
        Topic -> its number of partitions; 0 if the brokers have just chosen it.

    Raises:
        PillowError: see `create`, and `Producer.send`.
    """
    known = describe(producer).partitions
    if missing := [topic for topic in wanted if topic.name not in known]:
        create(options, missing)
    if short := [
        NewPartitions(topic.name, topic.partitions)
        for topic in wanted
        if topic.partitions is not None and topic.partitions > known.get(topic.name, topic.partitions)
    ]:
        _administer(options, lambda admin: admin.create_partitions(short, **_IN_TIME))
    return {topic.name: max(known.get(topic.name, 0), topic.partitions or 0) for topic in wanted}


def find_setting(options: KafkaConnection, topic: str, name: str) -> str | None:
    """Return a setting of a topic, the brokers' default included; None if there is none of this name.

    Raises:
        AccessError: we may not read settings.
        PillowError: the brokers can't be asked.
    """
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    (found,) = _administer(options, lambda admin: admin.describe_configs([resource], **_IN_TIME))
    return found[name].value if name in found else None


def _administer(
    options: KafkaConnection, ask: Callable[[AdminClient], Mapping[Any, Future[Any]]]
) -> list[Any]:
    """Return the answers to an administrator's requests; None for what somebody else has done meanwhile."""
    try:
        admin = SerialWorker().run(AdminClient, make_settings(options))
    except KafkaException as error:
        raise to_error(to_failure(error.args[0]), options.servers) from error
    futures = ask(admin)
    until = time.monotonic() + CALL_SECONDS + 5
    # Do not call `result` of a future: it would wait on a patched lock for a native thread.
    while not all(future.done() for future in futures.values()):
        if time.monotonic() > until:
            raise RetryableError("Kafka did not answer an administrator in time.")
        gevent.sleep(0.01)
    return [_get_answer(future, options) for future in futures.values()]


def _get_answer(future: Future[Any], options: KafkaConnection) -> Any:
    try:
        return future.result(0)
    except KafkaException as error:
        failure = to_failure(error.args[0])
        if failure.name in _DONE_MEANWHILE:
            return None
        raise to_error(failure, options.servers) from error


def _to_new_topic(topic: Topic) -> NewTopic:
    return NewTopic(
        topic.name,
        num_partitions=topic.partitions or -1,  # the brokers' default
        replication_factor=topic.replication_factor or -1,
        config=dict(topic.config),
    )

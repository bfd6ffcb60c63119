"""The service that several daemons form over a Kafka cluster."""

from __future__ import annotations

from contextlib import closing

from daemon.config.models import Config
from pillows.change_topics.names import ServiceTopics
from pillows.errors import ConfigError
from pillows.kafka.durability import find_weakness
from pillows.kafka.options import KafkaConnection
from pillows.kafka.producer import Producer
from pillows.kafka.topics import describe


def find_service(config: Config) -> tuple[KafkaConnection, ServiceTopics]:
    """Return the cluster of a service, and the names of its topics.

    Raises:
        ConfigError: the configuration names none.
    """
    coordination = config.coordination
    if coordination.connection is None or coordination.service is None:
        raise ConfigError("`coordination` needs a `connection` and a `service`.")
    options = config.connections[coordination.connection].options
    if not isinstance(options, KafkaConnection):
        raise ConfigError("`coordination` needs a `connection` of type `kafka`.")
    return options, ServiceTopics(coordination.service)


def describe_cluster(config: Config) -> str:
    """Return a description of the service's cluster and topics, for people.

    Raises:
        PillowError: the brokers can't be asked.
    """
    options, topics = find_service(config)
    with closing(Producer(options)) as producer:
        found = describe(producer)
    ours = [name for name in found.partitions if name.startswith(f"pillowd.{topics.service}.")]
    text = f"Kafka answers with {found.brokers} brokers; it has {len(ours)} topics of the service"
    if topics.positions in found.partitions and (weakness := find_weakness(options, found, topics.positions)):
        return f"warning: {text}; {weakness}"
    return text

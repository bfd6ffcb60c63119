"""The parts that the pillows of a service share when Kafka distributes them."""

from __future__ import annotations

import secrets
from contextlib import ExitStack, closing
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from daemon.config.models import Config
from daemon.kafka.letters import Letters
from daemon.kafka.service import find_service
from daemon.kafka.service_control import PauseReplica, ServiceControl
from daemon.kafka.service_status import ServiceStatus
from daemon.state_dir import StateDir
from daemon.state_file import StateFile, read_state_file
from daemon.supervision.paused_pillows import Pauses
from daemon.supervision.supervisor import Supervisor
from pillows.change_topics.names import ServiceTopics
from pillows.clock import Clock
from pillows.kafka.consumer import Consumer
from pillows.kafka.durability import find_weakness
from pillows.kafka.group import Group, Listener
from pillows.kafka.options import KafkaConnection
from pillows.kafka.producer import Producer
from pillows.kafka.topics import create, describe

_log = structlog.get_logger("pillowd.kafka")


class _Member(msgspec.Struct, frozen=True):
    format: int
    id: str


class Engine(Struct, frozen=True, kw_only=True):
    """The cluster, and the topics through which the daemons of a service exchange their state.

    Attributes:
        options: the cluster.
        topics: the service's topics.
        instance_id: this daemon's member id in every consumer group.
        producer: sends messages outside of transactions.
        control: the pauses and resets that operators have requested.
        letters: the dead letters.
        statuses: the statuses of tails.
    """

    options: KafkaConnection
    topics: ServiceTopics
    instance_id: str
    producer: Producer
    control: ServiceControl
    letters: Letters
    statuses: ServiceStatus

    def make_group(self, pillow: str) -> Group:
        """Return this daemon's membership in the group of a pillow."""
        return Group(id=self.topics.group(pillow), instance_id=self.instance_id)

    def make_reader(self, listener: Listener) -> Consumer:
        """Return a consumer in the group that divides the databases among the daemons."""
        group = Group(id=self.topics.group_of_readers, instance_id=self.instance_id)
        return Consumer(self.options, group, self.topics.units, listener)

    def follow_pauses(self, supervisor: Supervisor, pauses: Pauses) -> None:
        """Pause and resume the pillows of this daemon when any daemon of the service is asked to."""

        def follow() -> None:
            try:
                pauses.follow(self.control.paused)
            finally:
                supervisor.follow_pauses()

        self.control.watch(follow)


def open_engine(stack: ExitStack, config: Config, state: StateDir, clock: Clock) -> Engine:
    """Create or read the service's topics, and keep the dead letters and pauses there.

    Args:
        stack: closes what is opened.
        config: names the cluster and the service.
        state: the open state directory.
        clock: for ages.

    Raises:
        PillowError: the brokers can't be reached, or deny access.
        StoreError, OSError: the state directory can't be read or written.
    """
    options, topics = find_service(config)
    create(options, topics.describe())
    producer = stack.enter_context(closing(Producer(options)))
    if weakness := find_weakness(options, describe(producer), topics.positions):
        _log.warning("kafka.copies", reason=weakness)
    control = stack.enter_context(closing(ServiceControl(options, topics.control, producer)))
    instance_id = f"{topics.service}.{read_member_id(config.daemon.state_dir)}"
    statuses = stack.enter_context(
        closing(ServiceStatus(options, topics.status, producer, clock, instance_id=instance_id))
    )
    letters = stack.enter_context(closing(Letters(options, topics)))
    control.open()
    statuses.open()
    state.pauses.attach(PauseReplica(control))
    state.dead_letters.replicate_to(letters)
    return Engine(
        options=options,
        topics=topics,
        instance_id=instance_id,
        producer=producer,
        control=control,
        letters=letters,
        statuses=statuses,
    )


def read_member_id(folder: Path) -> str:
    """Return this daemon's member id in every consumer group; create it at the first start.

    The id is kept in the state directory, so a daemon that restarts soon gets its partitions back without a
    rebalance. Two daemons with copies of one directory fence each other.

    Raises:
        IntegrityError: the file is damaged.
        OSError: it can't be written.
    """
    path = folder / "member.json"
    try:
        return read_state_file(
            path, _Member, format=1, what="the name of a member", remedy="delete it to get another one"
        ).id
    except FileNotFoundError:
        member = _Member(1, secrets.token_hex(8))
    with StateFile(path) as file:
        file.write(member)
    return member.id

"""Members of a consumer group on a real broker: partitions that come and go, offsets, back-pressure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

import gevent
import pytest
from confluent_kafka import OFFSET_BEGINNING
from gevent.event import Event

from pillows.errors import ConfigError, FencedError, PillowError, RetryableError
from pillows.kafka import topics
from pillows.kafka.consumer import Consumer
from pillows.kafka.group import Group, Offset
from pillows.kafka.message import Message
from pillows.kafka.options import KafkaConnection
from pillows.kafka.producer import Producer
from pillows.kafka.topic import Topic
from pillows.kafka.topic_log import read_log
from tests.servers.kafka import Kafka
from tests.support.hub_meter import HubMeter
from tests.support.kafka_reader import is_led
from tests.support.waiting import wait_until

SESSION_SECONDS = 6.0


class Member:
    """A listener that begins where the group has committed, and commits what it has taken when it must go.

    Attributes:
        told: what it was told.
        offsets: partition -> behind the last message that was taken.
        begins: what `assigned` returns; by default the committed offsets, or the beginning.
    """

    def __init__(self, make: Callable[..., Consumer], name: str) -> None:
        self.told: list[tuple[str, list[int]]] = []
        self.offsets: dict[int, int] = {}
        self.errors: list[PillowError] = []
        self.begins: dict[int, int] | None = None
        self.may_drain = Event()
        self.may_drain.set()
        self.consumer = make(self, name)

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        self.told.append(("assigned", sorted(partitions)))
        if self.begins is not None:
            return self.begins
        known = self.consumer.committed(partitions)
        return {p: known[p].offset if p in known else OFFSET_BEGINNING for p in partitions}

    def revoked(self, partitions: Sequence[int]) -> Sequence[Offset]:
        self.told.append(("revoked", sorted(partitions)))
        self.may_drain.wait(60)
        return [
            Offset(partition=p, offset=self.offsets[p], metadata="revoked")
            for p in partitions
            if p in self.offsets
        ]

    def lost(self, partitions: Sequence[int]) -> None:
        self.told.append(("lost", sorted(partitions)))

    def failed(self, error: PillowError) -> None:
        self.errors.append(error)

    def take(self, partition: int, seconds: float = 0.5) -> list[int]:
        taken = [each for each in self.consumer.take(partition, seconds) if each.error() is None]
        if taken:
            self.offsets[partition] = (taken[-1].offset() or 0) + 1
        return [int(message.value() or b"") for message in taken]

    def take_all(self, count: int) -> list[int]:
        """Take so many messages of any partition."""
        found: list[int] = []

        def take() -> bool:
            for partition in self.consumer.partitions:
                found.extend(self.take(partition, 0.01))
            return len(found) >= count

        wait_until(take)
        return sorted(found)


@pytest.fixture
def options(kafka: str) -> KafkaConnection:
    return KafkaConnection(servers=(kafka,))


@pytest.fixture
def topic(options: KafkaConnection, kafka_prefix: str) -> str:
    name = f"{kafka_prefix}docs"
    topics.create(options, [Topic(name=name, partitions=4)])
    wait_until(lambda: is_led(options, name, 4))
    return name


MakeMember = Callable[..., Member]


@pytest.fixture
def make_member(options: KafkaConnection, topic: str) -> Iterator[MakeMember]:
    made: list[Consumer] = []

    def make(name: str, kind: type[Member] = Member, **changed: Any) -> Member:
        def make_consumer(listener: Any, name: str) -> Consumer:
            group = Group(id=topic, instance_id=name, session_seconds=SESSION_SECONDS)
            made.append(Consumer(options, group, topic, listener, **changed))
            return made[-1]

        member = kind(make_consumer, name)
        member.consumer.start()
        return member

    yield make
    gevent.joinall([gevent.spawn(each.close) for each in made])


def write(options: KafkaConnection, topic: str, numbers: Sequence[int], partition: int = -1) -> None:
    with closing(Producer(options)) as producer:
        delivery = producer.send(
            Message(id=str(n), key=b"%d" % n, topic=topic, value=b"%d" % n, headers=[], partition=partition)
            for n in numbers
        )
    assert not delivery.failures


def has_all(member: Member) -> bool:
    return member.consumer.partitions == [0, 1, 2, 3]


def test_messages_come_in_order_and_go_on_where_they_were_committed(
    make_member: MakeMember, options: KafkaConnection, topic: str
) -> None:
    write(options, topic, range(100), partition=2)
    first = make_member("a")
    wait_until(lambda: has_all(first))
    with HubMeter().measure() as meter:
        assert first.take(2, 20) == list(range(100))
        first.consumer.commit([Offset(partition=2, offset=40, metadata="é" * 100)])
    assert meter.longest_seconds < 0.1
    assert first.consumer.committed([0, 2]) == {2: Offset(partition=2, offset=40, metadata="é" * 100)}
    assert first.consumer.bounds(2) == (0, 100)
    first.offsets = {2: 50}
    first.consumer.close()
    assert first.told == [("assigned", [0, 1, 2, 3]), ("revoked", [0, 1, 2, 3])]
    second = make_member("a")
    wait_until(lambda: has_all(second))
    assert second.take(2, 20) == list(range(50, 100)), "what the end has drained was committed"
    (end,) = second.consumer.take(2, 20)
    assert (end.error().name(), end.offset()) == ("_PARTITION_EOF", 100)
    assert second.consumer.end_offset(2) == 100
    second.consumer.take(2, 0)
    taking = gevent.spawn(second.consumer.take, 2, 60)
    gevent.sleep(0)
    second.consumer.wake(2)
    assert taking.get(timeout=1) == []


def test_a_partition_waits_for_a_seek_and_never_gives_what_was_read_before(
    make_member: MakeMember, options: KafkaConnection, topic: str
) -> None:
    write(options, topic, range(3000), partition=1)
    member = make_member("a")
    member.begins = {}
    wait_until(lambda: member.told)
    assert member.consumer.take(1, 1.0) == []
    for begin in (OFFSET_BEGINNING, 2500, 10, 1000, 2999):
        member.consumer.seek(1, begin)
        found = member.take(1, 20)
        assert found[0] == max(0, begin)
        assert found == list(range(found[0], found[0] + len(found)))


def test_a_member_that_joins_gets_what_another_one_has_drained(
    make_member: MakeMember, options: KafkaConnection, topic: str
) -> None:
    write(options, topic, range(400))
    first = make_member("a")
    wait_until(lambda: has_all(first))
    seen = first.take_all(400)
    write(options, topic, range(400, 800))
    second = make_member("b")
    wait_until(lambda: len(second.consumer.partitions) == 2)
    assert len(first.consumer.partitions) == 2
    assert {kind for kind, _ in first.told} == {"assigned", "revoked"}
    moved = second.consumer.partitions
    known = second.consumer.committed(moved)
    assert all(each.metadata == "revoked" for each in known.values())
    seen += first.take_all(0) + second.take_all(0)
    wait_until(lambda: len(set(seen)) == 800 or seen.extend(first.take_all(0) + second.take_all(0)))
    assert sorted(seen) == list(range(800)), "none twice: what was taken was committed"
    with pytest.raises(RetryableError, match="not assigned any more"):
        first.consumer.commit([Offset(partition=moved[0], offset=0)])


@pytest.mark.proof
def test_a_member_that_does_not_drain_in_time_commits_nothing(
    make_member: MakeMember, options: KafkaConnection, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pillows.kafka.consumer_thread.REVOKE_SECONDS", 0.5)
    write(options, topic, range(400))
    first = make_member("a")
    wait_until(lambda: has_all(first))
    first.take_all(400)
    first.may_drain.clear()
    second = make_member("b")
    wait_until(lambda: len(second.consumer.partitions) == 2)
    first.may_drain.set()
    gevent.sleep(0.5)
    assert second.consumer.committed(second.consumer.partitions) == {}


def test_a_member_of_the_same_id_fences_the_first(make_member: MakeMember) -> None:
    first = make_member("a")
    wait_until(lambda: has_all(first))
    second = make_member("a")
    wait_until(lambda: has_all(second))
    wait_until(lambda: first.errors)
    (error,) = first.errors
    assert isinstance(error, FencedError)
    assert "a state directory of its own" in str(error)
    assert first.told[-1] == ("lost", [0, 1, 2, 3])
    with pytest.raises(RetryableError, match="has ended"):
        first.consumer.commit([Offset(partition=0, offset=0)])


@pytest.mark.proof
def test_a_partition_that_nobody_takes_is_paused_and_the_others_go_on(
    make_member: MakeMember, options: KafkaConnection, topic: str
) -> None:
    member = make_member("a", max_queued_bytes=40_000)
    wait_until(lambda: has_all(member))
    write(options, topic, range(2000), partition=0)
    write(options, topic, range(2000), partition=1)
    queue = member.consumer._thread.queues[0]
    wait_until(lambda: queue.is_paused)
    seen: list[int] = []
    wait_until(lambda: len(seen) == 2000 or seen.extend(member.take(1, 0.01)))
    assert queue.size_bytes < 40_000 + 600 * 400
    seen.clear()
    wait_until(lambda: len(seen) == 2000 or seen.extend(member.take(0, 0.01)))
    assert seen == list(range(2000))


class Halting(Member):
    """A listener whose broker stops when partitions are assigned.

    Attributes:
        halt: stops the broker.
    """

    halt: Callable[[], None]

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        self.halt()
        self.told.append(("assigned", sorted(partitions)))
        return {}


def test_a_seek_counts_even_if_the_broker_answers_after_it(kafka_server: Callable[..., Kafka]) -> None:
    """Late answers to earlier requests, such as for the end of a partition, must not move the position."""
    server = kafka_server()
    options = KafkaConnection(servers=(server.where,))
    topics.create(options, [Topic(name="docs", partitions=1)])
    write(options, "docs", range(1000), partition=0)

    def make(listener: Any, name: str) -> Consumer:
        return Consumer(options, Group(id="g", instance_id=name, session_seconds=20), "docs", listener)

    member = Halting(make, "a")
    member.halt = server.freeze
    with closing(member.consumer) as consumer:
        consumer.start()
        wait_until(lambda: member.told)
        consumer.seek(0, 100)
        server.thaw()
        assert member.take(0, 20)[0] == 100


class Refusing(Member):
    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        raise ConfigError("no", remedy="none")


def test_a_listener_that_fails_ends_the_membership(make_member: MakeMember) -> None:
    member = make_member("a", kind=Refusing)
    wait_until(lambda: member.errors)
    assert isinstance(member.errors[0], ConfigError)
    assert member.told == [("lost", [0, 1, 2, 3])]


@pytest.mark.proof
def test_a_broker_that_is_away_is_trouble_until_it_is_back(
    kafka_server: Callable[..., Kafka], kafka_prefix: str
) -> None:
    server = kafka_server()
    options = KafkaConnection(servers=(server.where,))
    topics.create(options, [Topic(name="docs", partitions=4)])

    def make(listener: Any, name: str) -> Consumer:
        return Consumer(options, Group(id="g", instance_id=name, session_seconds=6), "docs", listener)

    member = Member(make, "a")
    with closing(member.consumer) as consumer:
        consumer.start()
        wait_until(lambda: has_all(member))
        write(options, "docs", [1], partition=3)
        assert member.take_all(1) == [1]  # that the partition was empty may be told first
        consumer.commit([Offset(partition=3, offset=1)])
        server.stop()
        wait_until(lambda: consumer.trouble)
        assert server.where in (consumer.trouble or "")
        server.start()
        write(options, "docs", [2], partition=3)
        found: list[int] = []
        wait_until(lambda: found or found.extend(member.take(3, 0.1)))
        assert found == [2]
        assert consumer.trouble is None
    assert member.errors == []


@pytest.mark.proof
def test_no_turn_of_the_hub_is_long_whatever_the_brokers_do(kafka_server: Callable[..., Kafka]) -> None:
    """Members that join and leave, a commit that stalls for 8 s, and a broker that is killed."""
    server = kafka_server()
    options = KafkaConnection(servers=(server.where,))
    topics.create(options, [Topic(name="docs", partitions=4)])

    def make(listener: Any, name: str) -> Consumer:
        group = Group(id="g", instance_id=name, session_seconds=SESSION_SECONDS)
        return Consumer(options, group, "docs", listener)

    longest: dict[str, float] = {}

    @contextmanager
    def measured(what: str) -> Iterator[None]:
        with HubMeter().measure() as meter:
            yield
        longest[what] = meter.longest_seconds

    page = [
        Message(id=str(n), key=b"%d" % n, topic="docs", value=b"x" * 120, headers=[], partition=n % 4)
        for n in range(1000)
    ]
    first, second = Member(make, "a"), Member(make, "b")
    with (
        closing(Producer(options, "transactions")) as producer,
        closing(first.consumer),
        closing(second.consumer),
    ):
        with measured("two members join, and read a page"):
            first.consumer.start()
            wait_until(lambda: has_all(first))
            second.consumer.start()
            wait_until(lambda: [len(each.consumer.partitions) for each in (first, second)] == [2, 2])
            producer.send_all(page)
            for member in (first, second):
                for partition in member.consumer.partitions:
                    wait_until(lambda: member.consumer.take(partition, 0.1))  # noqa: B023 - called at once
        with measured("a commit stalls for 8 s"):
            sending = gevent.spawn(producer.send_all, page)
            server.freeze()
            gevent.sleep(8)
            server.thaw()
            sending.get(timeout=60)
        with measured("a member leaves"):
            second.consumer.close()
            wait_until(lambda: has_all(first), seconds=30)
        with measured("the broker is killed"):
            server.kill()
            wait_until(lambda: first.consumer.trouble)
            with pytest.raises(RetryableError):
                producer.send_all(page)
    print({what: f"{1000 * seconds:.0f} ms" for what, seconds in longest.items()})
    assert max(longest.values()) < 0.05


# --- the content of a compacted topic


def test_the_content_of_a_partition_is_the_last_value_of_each_key(
    options: KafkaConnection, topic: str
) -> None:
    assert read_log(options, topic, 0).records == {}
    values = [(b"a", b"1"), (b"b", b"1"), (b"a", b"2"), (b"b", None), (b"c", b"3")]
    with closing(Producer(options, f"{topic}-writer")) as producer:
        for key, value in values:
            producer.send([Message(id="x", key=key, topic=topic, value=value, headers=[], partition=0)])
    found = read_log(options, topic, 0)
    assert {key: each.value() for key, each in found.records.items()} == {b"a": b"2", b"c": b"3"}
    with closing(Producer(options)) as producer:
        producer.send([Message(id="x", key=b"a", topic=topic, value=None, headers=[], partition=0)])
    after = read_log(options, topic, 0, since=found.next_offset)
    assert (after.records, after.changed) == ({}, {b"a"})


@pytest.mark.proof
def test_the_end_of_an_open_transaction_is_awaited(options: KafkaConnection, topic: str) -> None:
    with closing(Producer(options, f"{topic}-writer")) as producer:
        library = producer.fence()
        library.begin_transaction()
        library.produce(topic, b"1", b"a", 0)
        gevent.sleep(0.5)
        producer._poll()
        reading = gevent.spawn(read_log, options, topic, 0)
        gevent.sleep(1)
        assert not reading.dead
        producer._worker.run(library.commit_transaction, 20)
        found = reading.get(timeout=20)
    assert {key: each.value() for key, each in found.records.items()} == {b"a": b"1"}


def test_a_topic_that_is_missing_is_said_so(options: KafkaConnection, kafka_prefix: str) -> None:
    with pytest.raises((ConfigError, RetryableError), match="UNKNOWN"):
        read_log(options, f"{kafka_prefix}none", 0)

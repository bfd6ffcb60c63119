"""The reader of a database on a real broker: each change once, whatever ends it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import reduce
from typing import Any

import gevent
import msgspec
import pytest
from confluent_kafka import Message
from gevent.event import Event
from msgspec.structs import replace

from checkpoints import Seq
from pillows.change_topics import page_writer
from pillows.change_topics.names import ServiceTopics
from pillows.change_topics.page_writer import Destination, PageWriter, advance
from pillows.change_topics.pages import PAGE_CHANGES, Piece
from pillows.change_topics.positions import Position, load_position, make_message
from pillows.change_topics.reader import Reader
from pillows.change_topics.records import DATABASE_KEY, IDENTITY, decode_purge, encode_change
from pillows.errors import ConfigError, FencedError, RetryableError
from pillows.feed import identity_check
from pillows.feed.base import PURGED_REV
from pillows.feed.source_database import SourceDatabase
from pillows.kafka import topics
from pillows.kafka.options import KafkaConnection
from pillows.kafka.producer import Producer
from pillows.models import Change, ChangeBatch
from pillows.runtime.status import State
from tests.integration.change_topics.published import Published
from tests.integration.change_topics.reader_process import make_reader
from tests.servers.couch_client import CouchDatabase
from tests.servers.kafka import Kafka
from tests.support.kafka_reader import headers, read_topic
from tests.support.sizes import size
from tests.support.waiting import wait_until

#: Kills of a reader; each takes 5 s, so that a proof may have them in several runs.
CYCLES = int(os.environ.get("PILLOWD_READER_KILLS", size(ci=5, proof=100)))


class Run:
    """A reader that runs.

    Attributes:
        reader: the reader.
        greenlet: runs it.
    """

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self._stop = Event()
        self.greenlet = gevent.spawn(reader.run, self._stop)

    def stop(self) -> None:
        self._stop.set()
        self.greenlet.get(timeout=60)


class Service:
    """A database, and the topics of a service that no other test has.

    Attributes:
        couch: the database.
        topics: the topics.
    """

    def __init__(self, server: str, prefix: str, couch: CouchDatabase) -> None:
        self.server = server
        self.couch = couch
        self.topics = ServiceTopics(prefix.strip("-"))
        self.source = f"couch/{couch.name}"
        self.arguments = (server, self.topics.service, couch.server_url, couch.name, *(couch.auth or ()))

    @contextmanager
    def running(self) -> Iterator[Run]:
        run = Run(make_reader(*self.arguments))
        try:
            yield run
            run.stop()
        finally:
            run.greenlet.kill()

    def fence(self) -> None:
        """Abort the transaction that a killed reader has left open, as the next one does."""
        options = KafkaConnection(servers=(self.server,))
        with closing(Producer(options, self.topics.reader_id(self.source))) as producer:
            producer.fence()

    def read(self) -> Published:
        return Published.read(self.server, self.topics, self.source)

    def catch_up(self) -> Published:
        """Run a reader until it is at the head; return what is published then."""
        with self.running() as run:
            wait_until(lambda: run.reader.state is State.LIVE, worker=run.greenlet)
        return self.read()


@pytest.fixture
def service(kafka: str, kafka_prefix: str, couch_db: CouchDatabase) -> Service:
    return Service(kafka, kafka_prefix, couch_db)


def fill(couch: CouchDatabase, count: int = 50, offset: int = 0) -> None:
    couch.bulk([{"_id": f"d{number}", "n": number} for number in range(offset, offset + count)])


def test_every_change_is_published_once_with_its_leaves(service: Service) -> None:
    couch = service.couch
    fill(couch, 1500)
    couch.put("_design/x", {"views": {}})
    couch.delete("d1")
    found = service.catch_up()
    found.assert_agreeing()
    found.assert_complete(couch)
    assert found.position is not None
    created_at = str(couch.info()["instance_start_time"])
    assert {tuple(headers(each).items()) for each in found.messages} == {
        (("src", service.source), ("idn", created_at))
    }
    assert {each.partition() for each in found.messages} == {0, 1, 2, 3}
    fill(couch, 10, offset=9000)
    couch.put("d2", {"n": "again"})
    with service.running() as run:
        wait_until(lambda: run.reader.status().changes == len(found.changes) + 11, worker=run.greenlet)
        fill(couch, 1, offset=9500)
        wait_until(lambda: run.reader.status().changes == len(found.changes) + 12, worker=run.greenlet)
        assert run.reader.status().state is State.LIVE
    after = service.read()
    after.assert_agreeing()
    after.assert_complete(couch)
    assert after.count_repeated() == 0, "a clean stop reads nothing again"


def test_a_reader_that_was_replaced_publishes_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a reader was stopped (SIGSTOP) in a transaction, while another one took over."""
    fill(service.couch, 100)
    may_go_on, holds = Event(), Event()
    send = Producer._commit_while_up

    def hold(producer: Producer, library: Any) -> None:
        holds.set()
        may_go_on.wait(60)
        send(producer, library)

    monkeypatch.setattr(Producer, "_commit_while_up", hold)
    zombie = Run(make_reader(*service.arguments))
    wait_until(holds.is_set, worker=zombie.greenlet)
    monkeypatch.setattr(Producer, "_commit_while_up", send)
    assert service.catch_up().count_repeated() == 0
    fill(service.couch, 100, offset=500)
    may_go_on.set()
    with pytest.raises(FencedError, match="taken over"):
        zombie.greenlet.get(timeout=60)
    found = service.catch_up()
    found.assert_agreeing()
    found.assert_complete(service.couch)
    assert found.count_repeated() == 0


def test_no_transaction_of_a_reader_that_was_replaced_becomes_visible(service: Service) -> None:
    """Again and again: each reader has pages under way when the next one takes over."""
    takeovers = size(ci=3, proof=60)
    topics.create(KafkaConnection(servers=(service.server,)), service.topics.describe())
    destination = Destination(
        source=service.source,
        topics=service.topics,
        connection=KafkaConnection(servers=(service.server,)),
        partitions=4,
    )
    refused, position = 0, Position()
    with ExitStack() as stack:
        zombie: PageWriter | None = None
        for number in range(takeovers):
            producer = stack.enter_context(
                closing(Producer(destination.connection, service.topics.reader_id(service.source)))
            )
            writer = PageWriter(producer, destination)
            writer.create_topics()
            producer.fence()
            page = make_page(f"d{number}", number + 1)
            position = writer.write([page], position)
            if zombie is not None:
                with pytest.raises(FencedError):
                    zombie.write([make_page(f"zombie{number}", number + 1)], position)
                refused += 1
            zombie = writer
    found = service.read()
    found.assert_agreeing()
    assert [each.id for each in found.changes if each.id.startswith("zombie")] == []
    assert (len(found.changes), refused) == (takeovers, takeovers - 1)
    print(f"{refused} transactions of replaced readers, none visible")


def make_page(id: str, number: int) -> Piece:
    changes = [Change(id=id, revs=("1-a",), leaf_version=1)]
    return Piece(ChangeBatch(changes=changes, seq=Seq.of(f"{number}-x")), None)


@pytest.mark.timeout(1800)
def test_a_reader_that_is_killed_again_and_again_leaves_position_and_changes_in_agreement(
    service: Service,
) -> None:
    """Somebody writes all the time; `kill -9` comes at any moment, even within a transaction."""
    couch, draw, written = service.couch, random.Random(7), Event()

    def write() -> None:
        number = 0
        while not written.is_set():
            fill(couch, 5, offset=number)
            couch.put(f"d{draw.randrange(number + 5)}", {"n": "again"})
            number += 5
            gevent.sleep(0.03)

    writer = gevent.spawn(write)
    repeated = known = 0
    for _ in range(CYCLES):
        with own_process(service) as process:
            wait_until(lambda: has_moved(service, process, known))  # noqa: B023 - it is called here
            gevent.sleep(draw.random() * 0.5)
        service.fence()
        found = service.read()
        found.assert_agreeing()
        assert found.count_repeated() - repeated <= PAGE_CHANGES
        repeated, known = found.count_repeated(), len(found.changes)
    written.set()
    writer.get(timeout=60)
    found = service.catch_up()
    found.assert_agreeing()
    found.assert_complete(couch)
    print(f"{CYCLES} kills, {len(found.changes)} changes, {found.count_repeated()} of them published twice")


@contextmanager
def own_process(service: Service) -> Iterator[subprocess.Popen[bytes]]:
    """A reader in a process of its own, which is killed at the end."""
    command = [sys.executable, "-m", "tests.integration.change_topics.reader_process", *service.arguments]
    process = subprocess.Popen(command)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def has_moved(service: Service, process: subprocess.Popen[bytes], known: int) -> bool:
    """Whether more than so many changes are committed."""
    assert process.poll() is None, "the reader has ended by itself"
    try:
        found = load_position(KafkaConnection(servers=(service.server,)), service.topics, service.source)
    except (ConfigError, RetryableError):  # there is no topic yet
        return False
    return found is not None and found.ordinal > known


# --- the checks see what they are for


def test_a_position_outside_of_the_transaction_is_noticed(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(service.couch)

    class Killed(BaseException):
        """Stands for a `kill -9` between two steps."""

    def write(self: PageWriter, pieces: Sequence[Piece], before: Position) -> Position:
        after = reduce(advance, pieces, before)
        with closing(Producer(self._to.connection)) as alone:
            alone.send([make_message(self._to.topics, self._to.source, after)])
        raise Killed

    monkeypatch.setattr(PageWriter, "write", write)
    run = Run(make_reader(*service.arguments))
    with pytest.raises(Killed):
        run.greenlet.get(timeout=60)
    with pytest.raises(AssertionError, match="50 are counted, 0 are there"):
        service.read().assert_agreeing()


@pytest.mark.proof
def test_a_null_for_a_deletion_is_noticed(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(service.couch)
    service.couch.delete("d1")

    def encode(change: Change) -> bytes | None:
        return None if change.deleted else encode_change(change)

    monkeypatch.setattr(page_writer, "encode_change", encode)
    with pytest.raises(AssertionError, match="a null is dropped after a day"):
        service.catch_up()


# --- databases that change behind the feed


@pytest.mark.proof
def test_a_recreated_database_is_read_from_its_beginning_under_its_own_identity(service: Service) -> None:
    fill(service.couch, 5)
    before = service.catch_up()
    service.couch.recreate()
    fill(service.couch, 3)
    after = service.catch_up()
    identities = [headers(each)[IDENTITY] for each in after.messages]
    assert len(identities) == 8
    assert len(set(identities)) == 2
    assert after.position is not None
    assert after.position.identity != (before.position and before.position.identity)
    after.assert_agreeing()


def test_purged_documents_are_published_as_deleted_and_every_partition_is_told(service: Service) -> None:
    fill(service.couch, 5)
    service.catch_up()
    service.couch.purge("d1")
    found = service.catch_up()
    (purged,) = [each for each in found.changes if each.rev == PURGED_REV]
    assert (purged.id, purged.leaf_version, purged.deleted) == ("d1", 0, True)
    told = read_purges(service)
    assert sorted(each.partition() or 0 for each in told) == [0, 1, 2, 3]
    assert decode_purge(told[0].value() or b"").missed == 0
    assert service.catch_up().count_repeated() == 0, "it is told once"


def test_purges_that_the_server_does_not_list_are_told_though_nothing_else_happens(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a batch has neither changes nor a position; servers before CouchDB 3.4 list none."""
    monkeypatch.setattr(identity_check, "CHECK_SECONDS", 0.1)
    monkeypatch.setattr(SourceDatabase, "list_purges", lambda _: None)
    fill(service.couch, 5)
    with service.running() as run:
        wait_until(lambda: run.reader.state is State.LIVE, worker=run.greenlet)
        service.couch.purge("d1")
        wait_until(lambda: len(read_purges(service)) == 4, worker=run.greenlet)
    told = read_purges(service)
    assert sorted(each.partition() or 0 for each in told) == [0, 1, 2, 3]
    assert {decode_purge(each.value() or b"").missed for each in told} == {1}


def read_purges(service: Service) -> list[Message]:
    found = read_topic(service.server, service.topics.changes(service.source))
    return [each for each in found if each.key() == DATABASE_KEY]


@pytest.mark.proof
def test_a_position_that_couchdb_rejects_has_the_database_read_again(service: Service) -> None:
    """The position still says which purges are in the topic, so the new one is written."""
    fill(service.couch, 5)
    before = service.catch_up()
    assert before.position is not None
    service.couch.purge("d1")
    broken = replace(before.position, seq=Seq('"nonsense"'))
    with closing(Producer(KafkaConnection(servers=(service.server,)))) as producer:
        assert not producer.send([make_message(service.topics, service.source, broken)]).failures
    found = service.catch_up()
    found.assert_agreeing()
    assert [each.id for each in found.changes if each.rev == PURGED_REV] == ["d1"]
    assert len(found.changes) == 5 + 4 + 1


def test_a_position_of_the_first_format_has_the_database_read_again_for_its_design_documents(
    service: Service,
) -> None:
    fill(service.couch, 5)
    before = service.catch_up().position
    assert before is not None
    service.couch.put("_design/x", {"views": {}})
    head = replace(before, seq=Seq.of(service.couch.changes(since=0)["last_seq"]))
    message = make_message(service.topics, service.source, head)
    record = msgspec.json.decode(message.value or b"") | {"format": 1}
    message = replace(message, value=msgspec.json.encode(record))
    with closing(Producer(KafkaConnection(servers=(service.server,)))) as producer:
        assert not producer.send([message]).failures
    found = service.catch_up()
    found.assert_agreeing()
    found.assert_complete(service.couch)
    assert service.catch_up().count_repeated() == 5, "it is read again once"


@pytest.mark.proof
def test_a_broker_that_restarts_loses_nothing(
    kafka_server: Callable[..., Kafka], couch_db: CouchDatabase
) -> None:
    server = kafka_server()
    service = Service(server.where, "reports", couch_db)
    fill(couch_db, 100)
    with service.running() as run:
        wait_until(lambda: run.reader.status().changes == 100, worker=run.greenlet)
        server.stop()
        fill(couch_db, 100, offset=100)
        wait_until(lambda: run.reader.state is State.BACKING_OFF, worker=run.greenlet)
        assert server.where in run.reader.status().reason
        server.start()
        wait_until(lambda: run.reader.status().changes >= 200, worker=run.greenlet)
    found = service.read()
    found.assert_agreeing()
    found.assert_complete(couch_db)
    assert found.count_repeated() == 0

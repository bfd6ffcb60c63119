"""How the producer waits, over a library of the test's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from confluent_kafka import KafkaError, KafkaException
from gevent.monkey import get_original

from pillows.errors import AccessError, RetryableError
from pillows.kafka import producer as module
from pillows.kafka.delivery import Delivery
from pillows.kafka.message import Message
from pillows.kafka.options import KafkaConnection
from pillows.kafka.producer import CALL_SECONDS, Producer

sleep_in_thread = get_original("time", "sleep")


class Library:
    """Acknowledges each message after some calls of `poll`."""

    def __init__(self, polls: int = 0) -> None:
        self._polls = polls
        self._waiting: list[Callable[..., None]] = []

    def produce(self, *_: object, on_delivery: Callable[..., None], **__: object) -> None:
        self._waiting.append(on_delivery)

    def poll(self, _: float) -> int:
        self._polls -= 1
        if self._polls > 0:
            return 0
        reports, self._waiting = self._waiting, []
        for report in reports:
            report(None, None)
        return len(reports)


def make(library: Any, transactional_id: str = "") -> Producer:
    producer = Producer(KafkaConnection(servers=("a:1",)), transactional_id)
    producer._library = library
    return producer


def message(id: str) -> Message:
    return Message(id=id, topic="cases", key=id.encode(), value=b"{}", headers=[])


def test_a_cluster_that_needs_time_to_answer_has_all_that_is_left() -> None:
    given: list[float] = []

    def work(_: object, seconds: float) -> str:
        given.append(seconds)
        if seconds < 15:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return "answer"

    assert make(Library()).call(work) == "answer"
    assert given[0] == 1, "a refused password is noticed soon"
    assert CALL_SECONDS - 5 < given[1] <= CALL_SECONDS


def test_a_call_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(_: object, seconds: float) -> None:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    monkeypatch.setattr(module, "CALL_SECONDS", 0.1)
    with pytest.raises(RetryableError, match="_TIMED_OUT"):
        make(Library()).call(work)


def test_a_batch_is_encoded_for_a_transaction_with_turns_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    producer = make(Library(), "cases")
    sent: list[int] = []

    def send(messages: list[Message]) -> Delivery:
        sent.append(len(messages))
        return Delivery()

    monkeypatch.setattr(producer, "_send_in_transaction", send)
    turns_at: list[int] = []
    encoded = 0

    def encode() -> Iterator[Message]:
        nonlocal encoded
        for number in range(200):
            encoded += 1
            yield message(str(number))

    def others() -> None:
        while True:
            turns_at.append(encoded)
            gevent.sleep(0)

    other = gevent.spawn(others)
    producer.send(encode())
    other.kill()
    assert sent == [200]
    assert {50, 100, 150} <= set(turns_at)


def test_a_new_producer_has_no_transactions_even_if_the_end_of_the_last_one_was_cut_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Former(Library):
        def purge(self) -> None:
            sleep_in_thread(0.2)

        def abort_transaction(self, _: float) -> None:
            pass

    class Next(Library):
        is_ready = False

        def init_transactions(self, _: float) -> None:
            self.is_ready = True

        def purge(self) -> None:
            pass

    producer = make(Former(), "cases")
    producer._has_transactions = producer._in_transaction = True
    closing = gevent.spawn(producer._disconnect)
    gevent.sleep(0.05)
    closing.kill()
    monkeypatch.setattr(module, "LibraryProducer", lambda _: Next())
    library: Any = producer.fence()
    assert library.is_ready
    assert not producer._in_transaction
    producer.close()


def test_a_denial_of_access_that_has_passed_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Brokers that are restarted may deny access for a while."""

    class Denied(Library):
        def poll(self, _: float) -> int:
            producer._note_error(KafkaError(KafkaError._AUTHENTICATION))
            return 0

        def purge(self, **_: object) -> None:
            pass

    producer = make(Denied())
    with pytest.raises(AccessError):
        producer.send([message("a")])
    monkeypatch.setattr(module, "LibraryProducer", lambda _: Library())
    assert producer.send([message("a")]).failures == {}


def test_a_write_that_a_close_cut_short_does_not_take_the_transactions_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its messages are reported as purged, which is a reason to repeat the transaction, but not then."""

    class Silent(Library):
        def poll(self, _: float) -> int:
            return 0

        def begin_transaction(self) -> None:
            pass

        def purge(self) -> None:
            pass

        def abort_transaction(self, _: float) -> None:
            reports, self._waiting = self._waiting, []
            for report in reports:
                report(KafkaError(KafkaError._PURGE_INFLIGHT), None)

    made: list[Any] = []
    monkeypatch.setattr(module, "LibraryProducer", made.append)
    producer = make(Silent(), "cases")
    producer._has_transactions = True
    sending = gevent.spawn(producer.send, [message("a")])
    gevent.sleep(0.05)
    producer.close()
    with pytest.raises(RetryableError, match="closed"):
        sending.get(timeout=10)
    assert not made


def test_a_broker_that_was_away_before_a_write_says_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DOWN_SECONDS", 0.0)
    producer = make(Library(polls=10))
    producer._down_at = time.monotonic() - 60
    assert not producer.send([message("a")]).failures

"""A producer of Kafka's client library, `confluent-kafka`, without ever blocking gevent's hub.

`produce` and `poll(0)` do not wait, so they run on the hub. Everything that waits for a broker runs in a
thread of the producer's own. Callbacks of the library run inside `poll`, never in its native threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

import gevent
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Producer as LibraryProducer

from pillows.errors import AwayError, RetryableError
from pillows.kafka.delivery import ABORTED, Delivery, to_failure
from pillows.kafka.errors import Failure, Verdict, to_error
from pillows.kafka.message import Message
from pillows.kafka.options import KafkaConnection
from pillows.kafka.settings import make_producer_settings
from pillows.serial_worker import SerialWorker

T = TypeVar("T")

#: Seconds after which a write that waits for a broker without a connection is given up, so that the pillow
#: reports it; librdkafka would wait for `timeout`.
DOWN_SECONDS = 5.0
#: Longest time of a call other than `produce`, in seconds: to log in, to commit, to abort.
CALL_SECONDS = 20.0
_FIRST_CALL_SECONDS = 1.0
#: Seconds that the end of a transaction may take when the producer is closed.
CLOSE_SECONDS = 3.0
#: Seconds between polls while nothing is written. Without them, errors and log lines would pile up.
_IDLE_POLL_SECONDS = 1.0
#: Messages and bytes between two turns of the hub.
_TURN_MESSAGES = 50
_TURN_BYTES = 2**20
#: Most transactions that are begun for one delivery. If messages of an aborted transaction had failed,
#: librdkafka aborts the next one as well: "skipped sequence numbers" (measured with 2.16).
_TRANSACTION_ATTEMPTS = 3
_UNANSWERED = ("_TRANSPORT", "_TIMED_OUT")
_PURGED = ("_PURGE_QUEUE", "_PURGE_INFLIGHT")


class Producer:
    """Sends messages, and waits for their acknowledgements.

    Args:
        options: the cluster.
        transactional_id: "" without transactions.
    """

    def __init__(self, options: KafkaConnection, transactional_id: str = "") -> None:
        self._options = options
        self._transactional_id = transactional_id
        self._worker = SerialWorker()
        self._library: LibraryProducer | None = None
        self._idle: gevent.Greenlet[..., None] | None = None
        self._refused: Failure | None = None
        self._fatal: Failure | None = None
        self._down_at: float | None = None
        self._has_transactions = False
        self._in_transaction = False
        self._is_closed = False

    def send(self, messages: Iterable[Message]) -> Delivery:
        """Send messages and wait for all reports; with transactions, in one transaction.

        A document may have several messages. If the iterable raises, none of them counts as delivered.

        Raises:
            AwayError: no broker can be reached.
            RetryableError: some messages may have been written.
            AccessError, ConfigError: the brokers refuse the login or the settings.
            FencedError: another producer has taken over the transactions.
        """
        if not self._transactional_id:
            return self._send(messages)
        kept = list(self._take_turns(messages))
        for _ in range(_TRANSACTION_ATTEMPTS):
            delivery = self._send_in_transaction(kept)
            names = {failure.name for failure in delivery.failures.values()} - {ABORTED.name}
            if not names.intersection(_PURGED):
                break
        return delivery

    def send_all(self, messages: Iterable[Message]) -> None:
        """Send messages in one transaction: all of them or none. Without reports per message this is cheaper.

        Raises:
            RetryableError: they may or may not have been written.
            AccessError, ConfigError, FencedError: they were not written; see `send`.
        """
        library = self.fence()
        if self._in_transaction:  # of a write that was killed
            self._abort(library)
        self._in_transaction, self._down_at = True, None
        try:
            self._worker.run(library.begin_transaction)
            for message in self._take_turns(messages):
                self._produce(library, message, None)
            self._commit_while_up(library)
        except KafkaException as error:
            failure = to_failure(error.args[0])
            if error.args[0].txn_requires_abort():
                self._abort(library)
            else:
                self._fatal = failure
            raise to_error(self._explain(failure), self._options.servers) from error
        self._in_transaction = False

    def fence(self) -> LibraryProducer:
        """Take over the transactions, if any are used: from then on an earlier producer cannot write.

        Returns:
            The library's producer.

        Raises:
            PillowError: as `send`.
        """
        self._connect()
        if self._transactional_id and not self._has_transactions:
            self.call(lambda library, seconds: library.init_transactions(seconds))
            self._has_transactions = True
        return self._connect()

    def call(self, work: Callable[[LibraryProducer, float], T]) -> T:
        """Return the result of a call that waits for a broker, made in the producer's thread.

        Args:
            work: a function of the library's producer and the seconds that it may wait. It is called again if
                it did not succeed in time: first with a short time, to notice a wrong password soon, then
                with the rest, which a large cluster may need.

        Raises:
            PillowError: as `send`.
        """
        until = time.monotonic() + CALL_SECONDS
        seconds = _FIRST_CALL_SECONDS
        while True:
            try:
                return self._worker.run(work, self._connect(), seconds)
            except KafkaException as error:
                failure = to_failure(error.args[0])
                may_succeed = failure.name in _UNANSWERED or error.args[0].retriable()
            self._poll()
            self._raise_refusal()
            if not may_succeed or time.monotonic() > until:
                raise to_error(self._explain(failure), self._options.servers)
            gevent.sleep(0.05)
            seconds = max(_FIRST_CALL_SECONDS, until - time.monotonic())

    def close(self) -> None:
        """Drop what was not sent, and close every connection for good. May be called twice.

        A call that is under way ends with a `RetryableError`. It must not connect again: with transactions it
        would take them back from the producer that has taken over meanwhile.
        """
        self._is_closed = True
        self._disconnect()

    # --- the library's producer

    def _disconnect(self) -> None:
        if self._idle is not None:
            self._idle.kill(block=False)
            self._idle = None
        if self._library is not None:
            last, self._library = [self._library], None
            self._worker.run(_close, last, self._in_transaction)

    def _connect(self) -> LibraryProducer:
        """Return the library's producer, and replace one that has failed."""
        self._refuse_closed()
        if self._fatal is not None and self._fatal.verdict is Verdict.FENCED:
            raise to_error(self._fatal, self._options.servers)  # a new producer would take over in turn
        if self._fatal or self._refused:  # a refusal may pass: a broker that restarts refuses, too
            self._disconnect()
        if self._library is None:
            self._refused = self._fatal = self._down_at = None
            self._has_transactions = self._in_transaction = False
            settings = make_producer_settings(self._options, self._transactional_id)
            settings["error_cb"] = self._note_error
            try:
                self._library = self._worker.run(LibraryProducer, settings)
            except KafkaException as error:  # a file that cannot be read, an invalid setting
                raise to_error(to_failure(error.args[0]), self._options.servers) from error
            self._idle = gevent.spawn(self._poll_while_idle)
        return self._library

    def _note_error(self, error: KafkaError) -> None:
        """Note an error that is not about a single message. Called within `poll`."""
        failure = to_failure(error)
        if error.fatal():
            self._fatal = failure
        elif failure.verdict is Verdict.ACCESS:
            self._refused = failure
        elif failure.verdict is Verdict.AWAY and self._down_at is None:
            self._down_at = time.monotonic()

    def _poll(self) -> int:
        """Process waiting reports and errors. Return their number."""
        if self._library is None:
            return 0
        try:
            return self._library.poll(0)
        except KafkaException as error:  # a fatal one, raised by every call from now on
            self._fatal = to_failure(error.args[0])
            return 0

    def _poll_while_idle(self) -> None:
        while True:
            gevent.sleep(_IDLE_POLL_SECONDS)
            self._poll()

    def _refuse_closed(self) -> None:
        if self._is_closed:
            raise RetryableError("Kafka's producer was closed.")

    def _raise_refusal(self) -> None:
        self._refuse_closed()
        refusal = self._refused or self._fatal
        if refusal is None:
            return
        if refusal is self._fatal and refusal.verdict is not Verdict.FENCED:
            raise RetryableError(f"Kafka's producer failed and is replaced: {refusal}.")
        raise to_error(refusal, self._options.servers)

    def _explain(self, failure: Failure) -> Failure:
        """Return the error of a failure; a timeout while no broker can be reached is an `AwayError`."""
        if failure.name in ("_TIMED_OUT", "_MSG_TIMED_OUT") and self._down_at is not None:
            return Failure(name="_ALL_BROKERS_DOWN", text="no broker can be reached")
        return failure

    # --- messages

    def _send(self, messages: Iterable[Message]) -> Delivery:
        library = self._connect()
        self._down_at = None  # a broker may have come back while nothing was written
        delivery = Delivery()
        try:
            for message in self._take_turns(messages):
                self._produce(library, message, delivery)
            self._wait(delivery)
        except BaseException:
            library.purge(blocking=False)
            raise
        delivery.failures = {id: self._explain(failure) for id, failure in delivery.failures.items()}
        return delivery

    def _take_turns(self, messages: Iterable[Message]) -> Iterator[Message]:
        """Yield messages, which are encoded one by one, and let others run meanwhile."""
        count = size_bytes = 0
        for message in messages:
            yield message
            count, size_bytes = count + 1, size_bytes + message.size_bytes
            if count >= _TURN_MESSAGES or size_bytes >= _TURN_BYTES:
                count = size_bytes = 0
                self._poll()
                gevent.sleep(0)

    def _produce(self, library: LibraryProducer, message: Message, delivery: Delivery | None) -> None:
        """Give the library a message.

        Raises:
            KafkaException: it is refused, and there is no `Delivery` that could record the failure.
        """
        report = delivery.expect(message.id) if delivery is not None else None
        headers: Any = message.headers
        began: float | None = None
        while True:
            try:
                return library.produce(
                    message.topic,
                    message.value,
                    message.key,
                    message.partition,
                    on_delivery=report,
                    headers=headers,
                )
            except BufferError:  # full: wait for acknowledgements
                began = began or time.monotonic()
                self._poll()
                self._check(began)
                gevent.sleep(0.002)
            except KafkaException as error:
                if report is None:
                    raise
                return report(error.args[0], None)

    def _wait(self, delivery: Delivery) -> None:
        """Wait until every message has its report: librdkafka sends one within `timeout`."""
        began, pending = time.monotonic(), delivery.pending
        pause_seconds = 0.0005
        while delivery.pending:
            self._poll()
            if delivery.pending < pending:
                began, pending, pause_seconds = time.monotonic(), delivery.pending, 0.0005
                self._down_at = None
            else:
                self._check(began)
                gevent.sleep(pause_seconds)
                pause_seconds = min(pause_seconds * 1.5, 0.01)

    def _check(self, began: float) -> None:
        """Give up a write that cannot succeed.

        Args:
            began: monotonic seconds of the last report, or of the start of the wait.
        """
        self._raise_refusal()
        now = time.monotonic()
        if self._down_at is not None and now - max(began, self._down_at) > DOWN_SECONDS:
            servers = ", ".join(self._options.servers)
            raise AwayError(f"Kafka at {servers} acknowledged no message: a broker cannot be reached.")
        if now - began > self._options.timeout + CALL_SECONDS:
            raise RetryableError("Kafka's client sent no delivery reports for the messages.")

    # --- transactions

    def _send_in_transaction(self, messages: list[Message]) -> Delivery:
        library = self.fence()
        if self._in_transaction:  # of a write that was killed
            self._abort(library)
        self._in_transaction = True
        try:
            self._worker.run(library.begin_transaction)
            delivery = self._send(messages)
            if not delivery.failures:
                self._commit(library)
                self._in_transaction = False
                return delivery
        except KafkaException as error:
            failure = to_failure(error.args[0])
            if not error.args[0].txn_requires_abort():
                self._fatal = failure
                self._raise_refusal()
            delivery = Delivery()
            delivery.abort({message.id for message in messages}, failure)
        self._abort(library)
        delivery.abort(message.id for message in messages)
        return delivery

    def _commit(self, library: LibraryProducer) -> None:
        until = time.monotonic() + CALL_SECONDS
        while True:
            try:
                return self._worker.run(library.commit_transaction, CALL_SECONDS)
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() > until:
                    raise

    def _commit_while_up(self, library: LibraryProducer) -> None:
        """Commit, as long as a broker can be reached."""
        began = time.monotonic()
        while True:
            try:
                return self._worker.run(library.commit_transaction, DOWN_SECONDS)
            except KafkaException as error:
                if not error.args[0].retriable():
                    raise
            self._poll()
            self._check(began)

    def _abort(self, library: LibraryProducer) -> None:
        """Abort the transaction. A producer that fails to do so is replaced before the next transaction."""
        try:
            self._worker.run(library.abort_transaction, CALL_SECONDS)
        except KafkaException as error:
            failure = to_failure(error.args[0])
            if failure.verdict is Verdict.FENCED:
                self._fatal = failure
                raise to_error(failure, self._options.servers) from error
            if failure.name != "_STATE":  # then the one that was killed had ended after all
                self._fatal = failure
        self._in_transaction = False


def _close(last: list[LibraryProducer], is_in_transaction: bool) -> None:
    """Destroy a producer, which ends its connections and threads.

    Args:
        last: the last reference, dropped here rather than on the hub. The library's own `close` would wait
            forever for a broker that hangs.
        is_in_transaction: whether to abort a transaction. Otherwise consumers with `read_committed` would
            wait for its timeout.
    """
    library = last.pop()
    library.purge()
    if is_in_transaction:
        with suppress(KafkaException):
            library.abort_transaction(CLOSE_SECONDS)

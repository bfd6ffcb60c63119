"""Features of Kafka alone: keys, headers, envelopes, sizes and transactions, on a real broker."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import gevent
import msgspec
import psutil
import pytest

from pillows.change_topics.partitioner import find_partition
from pillows.errors import AwayError, FencedError, RetryableError
from pillows.models import WriteResult, write_version
from pillows.transports.kafka.transport import KafkaTransport
from tests.conformance.append_only import latest
from tests.conformance.steps import assert_applied, write_until_answered
from tests.conformance.target import at, batch, document, gone
from tests.integration.transports.kafka_target import KafkaTarget
from tests.servers.kafka import Kafka
from tests.servers.process import free_port
from tests.support.hub_meter import HubMeter
from tests.support.kafka_reader import headers, read_topic
from tests.support.memory import MIB
from tests.support.waiting import wait_until

MakeTarget = Callable[..., KafkaTarget]


@pytest.fixture
def make_target(kafka: str, kafka_prefix: str) -> MakeTarget:
    return lambda **options: KafkaTarget(kafka, kafka_prefix, **options)


def start(target: KafkaTarget, *outputs: str, **options: Any) -> KafkaTransport:
    transport = target.transport(*(outputs or ("docs",)), **options)
    transport.open()
    transport.acquire(at("0"))
    return transport


def test_a_message_has_the_id_as_key_the_row_as_value_and_three_headers(make_target: MakeTarget) -> None:
    target = make_target()
    raw = b'{"_id": "a/\xc3\xbc",  "n": 1.0}'
    with closing(start(target)) as transport:
        transport.write(batch(document("a/ü", 3, raw, rev="3-x"), epoch=2))
        transport.write(batch(gone("a/ü", 4), epoch=2))
    written, removed = target.messages()
    assert (written.key(), written.value()) == ("a/ü".encode(), raw)
    assert headers(written) == {
        "version": str(write_version(2, 3)),
        "rev": "3-x",
        "source": "couch/cases",
    }
    assert (removed.key(), removed.value()) == ("a/ü".encode(), None)
    assert headers(removed)["version"] == str(write_version(2, 4))


def test_debeziums_envelope_has_an_event_for_a_delete_and_a_null_behind_it(make_target: MakeTarget) -> None:
    target = make_target(output={"envelope": "debezium"})
    with closing(start(target)) as transport:
        transport.write(batch(document("a", 1, {"n": 1}, rev="1-x"), first_pass=True))
        transport.write(batch(document("a", 2, {"n": 2})))
        transport.write(batch(gone("a", 3)))
    events = [msgspec.json.decode(each.value() or b"null") for each in target.messages()]
    assert [event and event["op"] for event in events] == ["r", "u", "d", None]
    assert [event["after"] for event in events[:3]] == [{"n": 1}, {"n": 2}, None]
    assert events[0]["before"] is None
    assert events[0]["source"] == {
        "connector": "pillowd",
        "name": "cases",
        "db": "couch/cases",
        "snapshot": "true",
        "rev": "1-x",
        "write_version": write_version(1, 1),
    }
    assert abs(events[0]["ts_ms"] / 1000 - time.time()) < 600


def test_an_id_is_in_the_partition_where_javas_clients_look_for_it(make_target: MakeTarget) -> None:
    target = make_target(output={"partitions": 5})
    ids = [f"document-{number}" for number in range(60)]
    with closing(start(target)) as transport:
        transport.write(batch(*(document(id, 1, {"n": 1}) for id in ids)))
    found = {(each.key() or b"").decode(): each.partition() for each in target.messages()}
    assert found == {id: find_partition(id, 5) for id in ids}


def test_a_topic_is_created_as_configured_and_an_existing_one_is_left_alone(make_target: MakeTarget) -> None:
    target = make_target(output={"partitions": 3, "topic_config": {"cleanup.policy": "compact"}})
    with closing(target.transport("docs")) as transport:
        assert "docs will be created" in transport.check()
        transport.open()
        assert "docs has 3 partitions" in transport.check()
    target.output["partitions"] = 7
    with closing(target.transport("docs")) as transport:
        transport.open()
        assert "docs has 3 partitions" in transport.check()


# --- sizes


def test_a_message_above_max_message_is_the_only_one_dead(make_target: MakeTarget) -> None:
    target = make_target(connection={"max_message": "2KiB"})
    documents = [document(f"d{number}", 1, {"n": number}) for number in range(50)]
    large = document("large", 1, {"text": "x" * 3000})
    with closing(start(target)) as transport:
        result = transport.write(batch(*documents, large))
        assert set(result.dead) == {"large"}
        assert "`max_message` is 2048 bytes" in result.dead["large"]
        assert not result.retry
    assert set(latest(target)) == {each.id for each in documents}


@pytest.mark.parametrize("transactions", [False, True])
def test_a_message_that_the_brokers_refuse_for_its_size_is_the_only_one_dead(
    make_target: MakeTarget, transactions: bool
) -> None:
    """They refuse all messages that came together with it."""
    target = make_target(
        connection={"transactions": transactions}, output={"topic_config": {"max.message.bytes": "4000"}}
    )
    documents = [document(f"d{number}", 1, {"n": number}) for number in range(24)]
    documents[7] = document("large", 1, {"text": "x" * 5000})
    with closing(start(target)) as transport:
        result = transport.write(batch(*documents))
        assert set(result.dead) == {"large"}
        assert "MSG_SIZE_TOO_LARGE" in result.dead["large"]
        assert not result.retry
        assert_applied(transport.write(batch(document("after", 1, {"n": 1}))))
    ids = [(each.key() or b"").decode() for each in target.messages()]
    assert sorted(ids) == sorted([each.id for each in documents if each.id != "large"] + ["after"])


def test_more_bytes_than_the_buffer_holds_are_written(make_target: MakeTarget) -> None:
    target = make_target(connection={"max_buffered": "1MiB"})
    documents = [document(f"d{number}", 1, {"text": "x" * 100_000}) for number in range(60)]
    with closing(start(target)) as transport:
        assert_applied(transport.write(batch(*documents)))
    assert len(target.messages()) == 60


# --- transactions


def test_a_later_writer_fences_an_earlier_one_for_good(make_target: MakeTarget) -> None:
    target = make_target(connection={"transactions": True})
    with closing(start(target)) as earlier:
        assert_applied(earlier.write(batch(document("a", 1, {"n": 1}))))
        with closing(start(target)) as later:
            assert_applied(later.write(batch(document("a", 2, {"n": 2}))))
            for _ in range(2):
                with pytest.raises(FencedError, match="Another pillowd has taken over"):
                    earlier.write(batch(document("a", 3, {"n": 3})))
            assert_applied(later.write(batch(document("b", 1, {"n": 1}))))
    assert latest(target) == {"a": [{"n": 2}], "b": [{"n": 1}]}


def test_a_check_fences_nobody(make_target: MakeTarget) -> None:
    target = make_target(connection={"transactions": True})
    with closing(start(target)) as running:
        assert_applied(running.write(batch(document("a", 1, {"n": 1}))))
        assert "has 1 partitions" in target.transport("docs").check()
        with closing(target.transport("docs")) as other:
            other.open()
        assert_applied(running.write(batch(document("b", 1, {"n": 1}))))


def test_readers_of_committed_messages_never_see_a_part_of_a_batch(make_target: MakeTarget) -> None:
    target = make_target(connection={"transactions": True}, output={"partitions": 2})
    seen: list[set[str]] = []
    with closing(start(target)) as transport:
        for turn in range(4):
            documents = [document(f"{turn}-{number}", 1, {"text": "x" * 2000}) for number in range(300)]
            writer = gevent.spawn(transport.write, batch(*documents))
            gevent.sleep(0.01 * turn)
            if turn % 2:
                writer.kill(timeout=60)
                assert_applied(write_until_answered(transport, batch(*documents)))
            else:
                writer.get(timeout=60)
            seen.append({(each.key() or b"").decode() for each in target.messages()})
    for turn, ids in enumerate(seen):
        assert len(ids) == 300 * (turn + 1)


# --- trouble


def test_nobody_listening_is_away() -> None:
    target = KafkaTarget(f"127.0.0.1:{free_port()}", "none-")
    with closing(target.transport("docs", timeout=2.0)) as transport, pytest.MonkeyPatch.context() as patch:
        patch.setattr("pillows.kafka.producer.CALL_SECONDS", 2.0)
        with pytest.raises(AwayError, match="cannot be reached"):
            transport.check()


def test_a_broker_that_dies_is_away_and_what_it_did_not_acknowledge_comes_again(
    own_kafka: Kafka, kafka_prefix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    target = KafkaTarget(own_kafka.where, kafka_prefix)
    documents = [document(f"d{number}", 1, {"n": number}) for number in range(500)]
    with closing(start(target)) as transport:
        assert_applied(transport.write(batch(*documents[:10])))
        own_kafka.kill()
        with HubMeter().measure() as meter, pytest.raises(AwayError, match="cannot be reached"):
            transport.write(batch(*documents))  # long before the timeout of 30 s
        assert meter.longest_seconds < 1.0, "nothing waits for the broker on the hub"
        own_kafka.start()
        assert_applied(write_until_answered(transport, batch(*documents)))
    assert latest(target) == {each.id: list(each.rows["docs"]) for each in documents}
    assert "rdkafka" not in capfd.readouterr().err, "the library's log goes where ours goes"


def test_a_broker_that_hangs_never_blocks_the_hub(own_kafka: Kafka, kafka_prefix: str) -> None:
    target = KafkaTarget(own_kafka.where, kafka_prefix, connection={"timeout": "2s", "transactions": True})
    with closing(start(target)) as transport, pytest.MonkeyPatch.context() as patch:
        patch.setattr("pillows.kafka.producer.CALL_SECONDS", 2.0)
        transport.write(batch(document("a", 1, {"n": 1})))
        own_kafka.freeze()
        with HubMeter().measure() as meter, pytest.raises(RetryableError):
            transport.write(batch(document("a", 2, {"n": 2})))
        own_kafka.thaw()
        assert meter.longest_seconds < 1.0
        assert_applied(write_until_answered(transport, batch(document("a", 2, {"n": 2}))))
    assert latest(target) == {"a": [{"n": 2}]}


def test_a_topic_that_is_deleted_meanwhile_loses_nothing_in_silence(make_target: MakeTarget) -> None:
    from confluent_kafka.admin import AdminClient

    target = make_target(connection={"timeout": "2s"})
    with closing(start(target)) as transport:
        transport.write(batch(document("a", 1, {"n": 1})))
        (deleting,) = (
            AdminClient({"bootstrap.servers": target.server}).delete_topics([target.topic()]).values()
        )
        wait_until(deleting.done)
        # A broker that creates topics by itself may have done so.
        result = write_until_answered(transport, batch(document("b", 1, {"n": 1})))
        assert result == WriteResult()
    assert "b" in latest(target)


def test_no_connection_and_no_thread_is_left_after_close(make_target: MakeTarget) -> None:
    target = make_target()
    port = int(target.server.rpartition(":")[2])

    def connections() -> int:
        found = psutil.Process().net_connections("tcp")
        return sum(bool(each.raddr) and each.raddr.port == port for each in found)

    before, threads = connections(), psutil.Process().num_threads()
    for _ in range(5):
        with closing(start(target)) as transport:
            transport.write(batch(document("a", 1, {"n": 1})))
    wait_until(lambda: connections() <= before)
    wait_until(lambda: psutil.Process().num_threads() <= threads + 6)  # gevent's own end after 10 s


def test_memory_is_bounded_by_the_buffer(make_target: MakeTarget) -> None:
    target = make_target(connection={"max_buffered": "1MiB"})
    with closing(start(target)) as transport:
        transport.write(batch(document("a", 1, {"n": 1})))
        before = psutil.Process().memory_info().rss
        for turn in range(20):
            transport.write(batch(*(document(f"{turn}-{n}", 1, {"text": "x" * 10_000}) for n in range(200))))
        assert psutil.Process().memory_info().rss - before < 24 * MIB
    assert len(read_topic(target.server, target.topic())) == 4001

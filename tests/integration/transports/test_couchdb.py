"""The CouchDB transport in its mode `upsert`, against a real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pillows.couch.options import CouchConnection
from pillows.errors import AwayError, ConfigError, RetryableError
from pillows.models import WriteResult, write_version
from pillows.transports.couchdb.options import CouchdbOutput
from pillows.transports.couchdb.target import TargetDatabase
from pillows.transports.couchdb.transport import CouchdbTransport
from pillows.transports.couchdb.upsert_writer import UpsertWriter
from tests.conformance import TransportConformance
from tests.conformance.steps import assert_applied, opened
from tests.conformance.target import KEY, OTHER_KEY, at, batch, document, gone
from tests.integration.transports.couch_target import CouchTarget
from tests.servers.scripted import ScriptedServer, json_reply
from tests.servers.tcp_proxy import TcpProxy


@pytest.fixture
def target(
    request: pytest.FixtureRequest, couch: Any, tcp_proxy: Callable[[Any], TcpProxy]
) -> Iterator[CouchTarget]:
    server = None
    if "restart" in request.node.name:
        couch = server = request.getfixturevalue("couch_server")()
    made = CouchTarget(couch, tcp_proxy(couch), server)
    yield made
    made.drop()


class TestCouchdbConformance(TransportConformance):
    @pytest.fixture
    def target(self, target: CouchTarget) -> CouchTarget:
        return target


def rows(target: CouchTarget) -> dict[str, Any]:
    return {id: found[0] for id, found in target.read("docs").items()}


def test_a_rows_values_keep_their_digits_and_couchdbs_own_fields_stay_out(target: CouchTarget) -> None:
    body = b'{"_id":"a","_rev":"7-x","_attachments":{"f":{"stub":true}},"n":1.50,"large":12345678901234567}'
    with opened(target, "docs") as couch:
        assert_applied(couch.write(batch(document("a", 1, body))))
    found = rows(target)["a"]
    assert set(found) == {"_id", "_rev", "n", "large"}
    assert found["_rev"].startswith("1-")
    assert b'"n":1.50,"large":12345678901234567' in target.proxy.received("to_server")


def test_rows_that_are_no_objects_or_too_many_are_dead(target: CouchTarget) -> None:
    with opened(target, "docs") as couch:
        result = couch.write(
            batch(document("a", 1, b"[1]"), document("b", 1, {"n": 1}, {"n": 2}), document("c", 1, {"n": 1}))
        )
    assert set(result.dead) == {"a", "b"}
    assert "not a JSON object" in result.dead["a"]
    assert "one row per document, not 2" in result.dead["b"]
    assert set(rows(target)) == {"c"}


def test_somebody_elses_document_is_replaced_and_never_swept(target: CouchTarget) -> None:
    with opened(target, "docs") as couch:
        target.request("POST", "docs", "/_bulk_docs", json={"docs": [{"_id": "a"}, {"_id": "theirs"}]})
        assert_applied(couch.write(batch(document("a", 1, {"n": 1}))))
        couch.acquire(at("0", epoch=2))
        assert couch.finish_pass(2) == 1
    assert set(rows(target)) == {"theirs"}


def test_a_delete_leaves_no_conflict_to_come_to_light(target: CouchTarget) -> None:
    with opened(target, "docs") as couch:
        couch.write(batch(document("a", 1, {"n": 1})))
        other = {"_id": "a", "_rev": "1-0", "n": 7, "_revisions": {"start": 1, "ids": ["0"]}}
        target.request("POST", "docs", "/_bulk_docs", json={"docs": [other], "new_edits": False})
        assert_applied(couch.write(batch(gone("a", 2))))
        assert rows(target) == {}
        assert couch.write(batch(document("a", 2, {"n": 1}))).refused == {"a": write_version(1, 2)}


def test_a_write_between_reading_and_writing_is_retried(
    target: CouchTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(target, "docs") as couch:
        couch.write(batch(document("a", 1, {"n": 1})))
        real = TargetDatabase.send

        def too_late(self: TargetDatabase, documents: Any, **more: Any) -> WriteResult:
            monkeypatch.setattr(TargetDatabase, "send", real)
            with opened(target, "docs") as faster:
                faster.write(batch(document("a", 3, {"n": 3})))
            return self.send(documents, **more)

        monkeypatch.setattr(TargetDatabase, "send", too_late)
        result = couch.write(batch(document("a", 2, {"n": 2}), document("b", 1, {"n": 1})))
        assert set(result.retry) == {"a"}
        assert "conflict" in result.retry["a"]
        assert couch.write(batch(document("a", 2, {"n": 2}))).refused == {"a": write_version(1, 3)}
    assert {id: row["n"] for id, row in rows(target).items()} == {"a": 3, "b": 1}


def test_a1_a_tombstone_takes_a_higher_write_version(target: CouchTarget) -> None:
    """A deletion of a deleted document counts: a version between the two is refused."""
    with opened(target, "docs") as couch:
        couch.write(batch(document("a", 1, {"n": 1})))
        assert_applied(couch.write(batch(gone("a", 2))))
        assert_applied(couch.write(batch(gone("a", 9))))
        assert couch.write(batch(document("a", 5, {"n": 5}))).refused == {"a": write_version(1, 9)}
        assert_applied(couch.write(batch(document("a", 10, {"n": 10}))))
    assert {id: row["n"] for id, row in rows(target).items()} == {"a": 10}


def faster_writer(monkeypatch: pytest.MonkeyPatch, target: CouchTarget, *writes: Any) -> None:
    """Let another writer write between the next reading and the next writing."""
    real = TargetDatabase.send

    def too_late(self: TargetDatabase, documents: Any, **more: Any) -> WriteResult:
        monkeypatch.setattr(TargetDatabase, "send", real)
        with opened(target, "docs") as faster:
            for write in writes:
                assert_applied(faster.write(batch(write)))
        return self.send(documents, **more)

    monkeypatch.setattr(TargetDatabase, "send", too_late)


NEWER = {
    "a-newer-tombstone": ([gone("a", 5)], {}),
    "a-newer-document": ([document("a", 5, {"n": 5})], {"a": 5}),
    "a-newer-document-that-was-deleted": ([document("a", 4, {"n": 4}), gone("a", 5)], {}),
}


@pytest.mark.parametrize(("writes", "kept"), NEWER.values(), ids=NEWER)
@pytest.mark.parametrize("late", [gone("a", 3), document("a", 3, {"n": 3})], ids=["deletion", "revival"])
def test_a1_a_write_over_a_tombstone_yields_to_a_newer_one(
    target: CouchTarget, monkeypatch: pytest.MonkeyPatch, late: Any, writes: list[Any], kept: dict[str, int]
) -> None:
    """Over a tombstone CouchDB tells of no conflict, and still the newer version stays."""
    with opened(target, "docs") as couch:
        couch.write(batch(document("a", 1, {"n": 1})))
        couch.write(batch(gone("a", 2)))
        faster_writer(monkeypatch, target, *writes)
        couch.write(batch(late))
        assert couch.write(batch(late)).refused == {"a": write_version(1, 5)}
    assert {id: row["n"] for id, row in rows(target).items()} == kept


@pytest.mark.parametrize("late", [gone("a", 5), document("a", 5, {"n": 5})], ids=["deletion", "revival"])
def test_a1_a_write_over_a_tombstone_wins_over_an_older_one(
    target: CouchTarget, monkeypatch: pytest.MonkeyPatch, late: Any
) -> None:
    """An older version that comes between is written over, at the second attempt at the latest."""
    with opened(target, "docs") as couch:
        couch.write(batch(document("a", 1, {"n": 1})))
        couch.write(batch(gone("a", 2)))
        faster_writer(monkeypatch, target, document("a", 3, {"n": 3}))
        if couch.write(batch(late)).retry:
            assert_applied(couch.write(batch(late)))
    assert {id: row["n"] for id, row in rows(target).items()} == ({"a": 5} if late.rows else {})


def test_a_missing_database_is_created_or_waited_for(target: CouchTarget) -> None:
    waiting = CouchdbOutput(database=target.prefix + "docs", create=False)
    couch = CouchdbTransport("copy", KEY, target.connection(), {"docs": waiting})
    with pytest.raises(RetryableError, match="Database does not exist"):
        couch.open()
    with opened(target, "docs"):
        pass
    assert couch.open().empty
    couch.close()


def test_two_outputs_cannot_share_a_database(target: CouchTarget) -> None:
    outputs = {name: CouchdbOutput(database="same") for name in ("docs", "other")}
    with pytest.raises(ConfigError, match="name the same database"):
        CouchdbTransport("copy", KEY, target.connection(), outputs)


def test_the_source_itself_is_refused_as_target(target: CouchTarget) -> None:
    couch = target.transport("docs")
    couch.set_source(target.connection(), "elsewhere")
    with pytest.raises(ConfigError, match="is the source itself"):
        couch.set_source(target.connection(), target.prefix + "docs")
    couch.close()


def test_a_target_that_cannot_be_reached_is_away() -> None:
    """Such a target is asked every few seconds; a busy one ever more seldom."""
    connection = CouchConnection(url="http://127.0.0.1:1")
    couch = CouchdbTransport("copy", KEY, connection, {"docs": CouchdbOutput(database="db")})
    with pytest.raises(AwayError, match="refused"):
        couch.open()
    couch.close()


def scripted(server: ScriptedServer, *answers: Any) -> CouchdbTransport:
    """A transport on a server that knows no document and answers writes as told."""

    def unknown(request: Any) -> bytes:
        ids = [one["id"] for one in request.json()["docs"]]
        missing = [{"error": {"error": "not_found"}}]
        return json_reply({"results": [{"id": id, "docs": missing} for id in ids]})

    server.on("GET", "/db", json_reply({"doc_count": 0}))
    server.on("GET", "/db/_local/", json_reply({"error": "not_found"}, 404))
    server.on("POST", "/db/_bulk_get", unknown)
    server.on("POST", "/db/_bulk_docs", *answers)
    couch = CouchdbTransport(
        "copy", KEY, CouchConnection(url=server.url), {"docs": CouchdbOutput(database="db")}
    )
    couch._writers = {"docs": UpsertWriter(couch._targets["docs"])}
    return couch


def test_what_a_validation_function_forbids_is_dead(scripted_server: Callable[[], ScriptedServer]) -> None:
    answer = [
        {"ok": True, "id": "a", "rev": "1-a"},
        {"id": "b", "error": "forbidden", "reason": "no b here"},
        {"id": "c", "error": "internal_error", "reason": "worker died"},
    ]
    couch = scripted(scripted_server(), json_reply(answer, 201))
    result = couch.write(batch(*(document(id, 1, {"n": 1}) for id in "abcd")))
    assert result.dead == {"b": "forbidden: no b here"}
    assert result.retry == {
        "c": "internal_error: worker died",
        "d": "The target's answer does not mention it.",
    }
    couch.close()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_retryable(scripted_server: Callable[[], ScriptedServer], status: int) -> None:
    couch = scripted(scripted_server(), json_reply({"error": "busy"}, status, Retry_After="3"))
    with pytest.raises(RetryableError) as caught:
        couch.write(batch(document("a", 1, {"n": 1})))
    assert caught.value.retry_after_seconds == 3
    couch.close()


def test_a_document_that_cannot_be_read_now_is_retryable(
    scripted_server: Callable[[], ScriptedServer],
) -> None:
    """Taken for missing it would lose its write version."""
    server = scripted_server()
    couch = scripted(server, json_reply([], 201))
    broken = {"results": [{"id": "a", "docs": [{"error": {"error": "internal_error"}}]}]}
    server.on("POST", "/db/_bulk_get", json_reply(broken))
    with pytest.raises(RetryableError, match="cannot return the document 'a' now: internal_error"):
        couch.write(batch(document("a", 1, {"n": 1})))
    couch.close()


def test_who_comes_back_under_a_former_name_hears_of_the_epoch_that_came_after(target: CouchTarget) -> None:
    """Under its own former epoch, the target would refuse all writes as older."""
    with opened(target, "docs", epoch=3):
        pass
    with opened(target, "docs", epoch=6, key=OTHER_KEY):
        pass
    with opened(target, "docs", claim=False) as couch:
        assert (couch.state.epoch, couch.state.foreign_epoch) == (3, 6)


def test_b3_one_id_without_a_partition_is_the_only_dead_one(target: CouchTarget) -> None:
    target.request("PUT", "docs", "?partitioned=true")
    parted = [document(f"p:{n}", 1, {"n": n}) for n in range(20)]
    with opened(target, "docs") as couch:
        result = couch.write(batch(*parted[:7], document("plain", 1, {"n": 1}), *parted[7:]))
        assert not result.retry
        assert set(result.dead) == {"plain"}
        assert "partition" in result.dead["plain"]
        assert_applied(couch.write(batch(document("p:0", 2, {"n": 2}))))
    assert set(rows(target)) == {each.id for each in parted}

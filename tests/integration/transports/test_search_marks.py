"""`deletes: mark` in an index: a deleted document stays as it was, with the time; all else as without it.

The conformance suite looks at unmarked documents alone, since readers and `verify` do.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pillows.models import Batch, write_version
from pillows.transports.common.search import connection_pool, reader
from pillows.transports.elasticsearch.transport import ElasticsearchTransport
from pillows.transports.opensearch.transport import OpensearchTransport
from tests.conformance.guards import GuardConformance
from tests.conformance.history import History
from tests.conformance.steps import assert_applied
from tests.conformance.target import Target, at, batch, document, gone
from tests.conformance.target_states import TargetStateConformance
from tests.conformance.writes import WriteConformance
from tests.integration.transports.search_index import ANYTHING, Node, many, running
from tests.integration.transports.search_target import SearchTarget
from tests.support.sizes import size

MARKING = {**ANYTHING, "deletes": "mark"}


class MarkConformance(WriteConformance, GuardConformance, TargetStateConformance):
    kind: Any

    @pytest.fixture
    def target(self, request: pytest.FixtureRequest, es_prefix: str) -> SearchTarget:
        if "restart" in request.node.name:
            pytest.skip("the same without marks: it is about deletions of what was never stored")
        url = request.getfixturevalue(f"{self.kind.TYPE}_url")
        return SearchTarget(Node(url, es_prefix, self.kind), deletes="mark")

    @pytest.mark.parametrize("seed", range(size(ci=1, proof=50)))
    def test_g10_histories_converge(self, target: Target, seed: int) -> None:
        History(target, random.Random(seed)).play(steps=60)


class TestG10Elasticsearch(MarkConformance):
    kind = ElasticsearchTransport


@pytest.mark.proof
class TestG10Opensearch(MarkConformance):
    kind = OpensearchTransport


def moment(row: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(row["_deleted_at"])


def test_g10_a_deleted_document_is_kept_with_the_time_and_its_version(each_node: Node) -> None:
    node = each_node
    with running(node, docs=MARKING) as one:
        body = b'{"n":1,"big":12345678901234567890123,"deep":{"_deleted_at":"its own"}}'
        assert_applied(one.write(batch(document("a", 1, body))))
        assert_applied(one.write(batch(gone("a", 2), gone("never", 2))))
        kept = node.read("docs")["a"]
        assert abs(moment(kept) - datetime.now(UTC)) < timedelta(minutes=1)
        fields = {name: value for name, value in kept.items() if name != "_deleted_at"}
        assert fields == {"n": 1, "big": 12345678901234567890123, "deep": {"_deleted_at": "its own"}}
        assert node.write_version("docs", "a") == write_version(1, 2)
        # A replay changes nothing, and a later deletion only the version: the first mark stays.
        assert one.write(batch(gone("a", 2))).refused == {"a": write_version(1, 2)}
        assert one.write(batch(document("a", 1, {"n": 1}))).refused == {"a": write_version(1, 2)}
        assert one.write(batch(document("never", 1, {"n": 1}))).refused == {"never": write_version(1, 2)}
        assert_applied(one.write(batch(gone("a", 4))))
        assert node.read("docs") == {"a": kept}
        assert node.write_version("docs", "a") == write_version(1, 4)
        # A revival clears the mark.
        assert_applied(one.write(batch(document("a", 5, {"n": 5}))))
        assert node.read("docs") == {"a": {"n": 5}}
        # A search tells them apart.
        assert_applied(one.write(batch(document("b", 1, {"n": 1}))))
        assert_applied(one.write(batch(gone("b", 2))))
    node.ask("POST", f"{node.alias('docs')}/_refresh")
    query = {"query": {"range": {"_deleted_at": {"gte": "now-1h"}}}}
    assert [
        hit["_id"] for hit in node.ask("POST", f"{node.alias('docs')}/_search", query)["hits"]["hits"]
    ] == ["b"]


def test_g10_nothing_of_a_document_that_has_a_row_is_marked(node_in_proof: Node) -> None:
    node = node_in_proof
    with running(node, docs=MARKING, other=MARKING) as one:
        assert_applied(one.write(batch(document("a", 1, {"n": 1}))))
        assert_applied(one.write(batch(document("a", 2, {"n": 2}, output="other"))))
        assert (node.read("docs"), node.read("other")) == ({}, {"a": {"n": 2}})
        assert_applied(one.write(batch(gone("a", 3))))
        assert node.read("docs") == {}
        assert node.read("other")["a"].keys() == {"n", "_deleted_at"}


def test_g10_verify_does_not_see_marked_documents(node_in_proof: Node) -> None:
    with running(node_in_proof, docs=MARKING) as one:
        written = [document(id, 1, {"n": 1}) for id in ("a", "b")]
        assert_applied(one.write(batch(*written)))
        assert_applied(one.write(batch(gone("a", 2))))
        for ids in (None, ["a", "b"]):
            assert [each.id for page in one.stored("docs", ids) for each in page] == ["b"]
        assert one.find_altered("docs", [document("a", 2, {"n": 1}), document("b", 1, {"n": 1})]) == set()


def test_g10_the_end_of_a_pass_marks_what_it_did_not_meet_once(
    each_node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = each_node
    monkeypatch.setattr(reader, "_PAGE", 7)
    with running(node, docs=MARKING) as one:
        assert_applied(one.write(batch(*many(50))))
        assert_applied(one.write(batch(gone("d00003", 2))))
        before = node.read("docs")["d00003"]
        one.acquire(at("0", epoch=2))
        assert_applied(one.write(batch(document("d00000", 1, {"n": 0}), epoch=2)))
        assert one.finish_pass(2) == 48
        assert one.finish_pass(2) == 0
        rows = node.read("docs")
        assert [id for id, row in rows.items() if "_deleted_at" not in row] == ["d00000"]
        assert all(row["n"] == int(id[1:]) for id, row in rows.items())
        assert rows["d00003"] == before
        one.acquire(at("0", epoch=3))
        assert_applied(one.write(batch(*many(2), epoch=3)))
    assert sum("_deleted_at" not in row for row in node.read("docs").values()) == 2


def test_g10_a_first_pass_marks_too(node_in_proof: Node) -> None:
    node = node_in_proof
    with running(node, docs=MARKING) as one:
        assert_applied(one.write(Batch(documents=[document("a", 1, {"n": 1})], epoch=1, first_pass=True)))
        assert_applied(one.write(Batch(documents=[gone("a", 2), gone("b", 2)], epoch=1, first_pass=True)))
    assert {id: row.keys() for id, row in node.read("docs").items()} == {"a": {"n", "_deleted_at"}}


def test_g10_a_document_with_the_field_of_the_mark_is_a_dead_letter(node_in_proof: Node) -> None:
    with running(node_in_proof, docs=MARKING) as one:
        result = one.write(batch(document("a", 1, {"_deleted_at": 1}), document("b", 1, {"n": 1})))
    assert result.dead == {"a": "its row can't be written: a field _deleted_at would make it a deleted one"}
    assert set(node_in_proof.read("docs")) == {"b"}


@pytest.mark.parametrize("levels", [15, 900])
def test_g10_a_deeply_nested_document_is_marked_as_any_other(node_in_proof: Node, levels: int) -> None:
    body = b'{"n":' + b"[" * levels + b"]" * levels + b"}"
    with running(node_in_proof, docs=MARKING) as one:
        result = one.write(batch(document("a", 1, body), document("b", 1, {"n": 1})))
        assert set(result.dead) <= {"a"}, "OpenSearch does not take as many levels"
        assert_applied(one.write(batch(gone("a", 2), gone("b", 2))))
        assert list(one.stored("docs")) == []


def test_g10_large_documents_are_read_in_parts_and_what_no_answer_holds_is_removed(
    node_in_proof: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = node_in_proof
    monkeypatch.setattr(connection_pool, "MAX_ANSWER_BYTES", 40_000)
    with running(node, docs=MARKING, connection={"max_request": 60_000}) as one:
        written = [document(f"d{n}", 1, {"n": n, "text": "x" * 15_000}) for n in range(10)]
        assert_applied(one.write(batch(*written, document("huge", 1, {"text": "x" * 50_000}))))
        assert_applied(one.write(batch(*(gone(f"d{n}", 2) for n in range(10)), gone("huge", 2))))
        assert list(one.stored("docs")) == []
    monkeypatch.undo()
    rows = node.read("docs")
    assert set(rows) == {f"d{n}" for n in range(10)}
    assert all("_deleted_at" in row and len(row["text"]) == 15_000 for row in rows.values())


def test_g10_a_document_whose_mark_the_index_refuses_is_removed(node_in_proof: Node) -> None:
    """Somebody has made another field of the mark."""
    node = node_in_proof
    with running(node, docs=MARKING) as one:
        assert_applied(one.write(batch(document("a", 1, {"n": 1}), document("b", 1, {"n": 1}))))
        (index,) = node.indices("docs")
        mapping = node.ask("GET", index)[index]["mappings"]
        mapping["properties"]["_deleted_at"] = {"type": "integer"}
        node.ask("DELETE", index)
        node.ask("PUT", index, {"mappings": mapping, "aliases": {f"{index}-write": {}}})
        assert_applied(one.write(batch(document("a", 1, {"n": 1}), document("b", 1, {"n": 1}))))
        assert_applied(one.write(batch(gone("a", 2))))
        assert one.finish_pass(2) == 1
        node.ask("POST", f"{index}/_refresh")
        assert node.ask("GET", f"{index}/_count")["count"] == 0

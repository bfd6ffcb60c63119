"""More ids than CouchDB looks up for one request are asked for in groups."""

from __future__ import annotations

import json

import pytest

from checkpoints import Seq
from pillows.feed.doc_id_groups import GROUP_IDS, DocIdGroups
from pillows.models import Change
from tests.servers.scripted import Request, ScriptedServer, json_reply
from tests.support.clock import FakeClock
from tests.unit.pillows.feed.wire import couchdb, feed_of, page, reply, row, taking

CHANGES = ("GET", "/db/_changes")
POSTED = ("POST", "/db/_changes")
LAG_SECONDS = 30.0


def ids(count: int) -> list[str]:
    return [f"doc-{n}" for n in range(1, count + 1)]


class Database:
    """Change n writes a document; each second answer comes from a copy that lags by `LAG_SECONDS`."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.writes: list[tuple[float, str]] = []
        self.groups: list[list[str]] = []
        self._turn = 0

    def serve(self, server: ScriptedServer) -> None:
        couchdb(server).on(*POSTED, self.changes).on("POST", "/db/_bulk_get", self.documents)

    def write(self, *ids: str) -> None:
        self.writes += [(self.clock.monotonic(), id) for id in ids]

    def changes(self, request: Request) -> bytes:
        asked = json.loads(request.body)["doc_ids"]
        self.groups.append(asked)
        self._turn += 1
        lag_seconds = 0.0 if self._turn % 2 else LAG_SECONDS
        visible = sum(at <= self.clock.monotonic() - lag_seconds for at, _ in self.writes)
        since = int(request.query["since"].partition("-")[0])
        latest = {id: n for n, (_, id) in enumerate(self.writes[:visible], start=1) if n > since}
        rows = [
            row(n, id=id, rev=f"{n}-{n:032x}") for id, n in sorted(latest.items(), key=str) if id in asked
        ]
        return reply(page(rows, f"{max(visible, since)}-{self._turn}"))

    def documents(self, request: Request) -> bytes:
        revs = {id: f"{n}-{n:032x}" for n, (_, id) in enumerate(self.writes, start=1)}
        asked = [one["id"] for one in json.loads(request.body)["docs"]]
        results = [{"id": i, "docs": [{"ok": {"_id": i, "_rev": revs[i]}}]} for i in asked]
        return json_reply({"results": results})


def reading(server: ScriptedServer, clock: FakeClock, count: int, **source):
    options = {"on_filtered": "ignore", "deletes": "ignore", "doc_ids": ids(count)} | source
    return taking(feed_of(server.url, clock=clock, **options))


@pytest.fixture
def database(scripted_server, clock) -> tuple[Database, ScriptedServer]:
    server, database = scripted_server(), Database(clock)
    database.serve(server)
    return database, server


@pytest.mark.parametrize(("count", "sizes"), [(1000, [1000]), (1001, [1000, 1]), (2500, [1000, 1000, 500])])
def test_ids_beyond_a_thousand_are_asked_for_in_groups(database, clock, count, sizes):
    couch, server = database
    couch.write(*ids(count), "another")
    clock.advance(LAG_SECONDS)
    with reading(server, clock, count) as taken:
        taken.until(lambda: len(set(taken.ids)) == count)
        taken.until(lambda: len(couch.groups) >= 2 * len(sizes))
    assert [len(group) for group in couch.groups[: len(sizes)]] == sizes
    assert set(taken.ids) == set(ids(count))
    assert len(taken.ids) == count, "what comes again is left out"
    assert taken.error is None


def test_no_change_is_missed_when_a_copy_lags_and_the_position_moves(database, clock):
    """The first group's answer may cover what the copy that answers for the second does not have."""
    couch, server = database
    couch.write("doc-1")
    with reading(server, clock, 1001) as taken:
        for n in range(60):
            couch.write("doc-1001", f"doc-{n + 2}", "no-match")
            rounds = len(couch.groups)
            taken.until(lambda rounds=rounds: len(couch.groups) > rounds + 1)
        behind = int(taken.seqs[-1].partition("-")[0])
        assert behind > 100, "it follows by the overlap"
        expected = {"doc-1", *(f"doc-{n + 2}" for n in range(60)), "doc-1001"}
        taken.until(lambda: expected <= set(taken.ids))
        last = max(n for n, (_, id) in enumerate(couch.writes, start=1) if id == "doc-1001")
        taken.until(lambda: last in [c.leaf_version for b in taken.batches for c in b.changes])
    for number, batch in enumerate(taken.batches):
        if batch.seq is None or batch.seq == Seq.BEGINNING:
            continue
        # Whatever a position covers was handed on before it, in this state or a newer one.
        had = {c.id: c.leaf_version for b in taken.batches[: number + 1] for c in b.changes}
        for n, (_, id) in enumerate(couch.writes[: int(str(batch.seq).partition("-")[0])], start=1):
            assert id == "no-match" or had.get(id, 0) >= n


def test_a_position_is_taken_once_every_copy_has_what_it_covers():
    groups = DocIdGroups(ids(GROUP_IDS + 1), overlap_seconds=60.0)
    for at in (0, 10, 20):
        groups.hold(at, Seq.of(f"{at}-x"))
    assert groups.find_covered(59.0) is None
    assert groups.find_covered(75.0) == Seq.of("10-x")
    assert groups.find_covered(75.0) is None
    assert groups.find_covered(80.0) == Seq.of("20-x")


def test_what_was_handed_on_comes_again_only_in_another_state():
    groups = DocIdGroups(ids(2), overlap_seconds=60.0)
    first, second = Change("doc-1", ("1-a",), 1), Change("doc-1", ("2-b",), 2)
    assert groups.take_new([first]) == [first]
    assert groups.take_new([first]) == []
    assert groups.take_new([second]) == [second]

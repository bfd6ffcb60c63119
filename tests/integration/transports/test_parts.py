"""Several tails, each with a part of a pillow's documents, write into the same outputs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import gevent
import msgspec
import pytest

from checkpoints import TailKey
from pillows import registry
from pillows.errors import ConfigError, FencedError, StateLostError
from pillows.models import DocumentRows, write_version
from pillows.transports.base import Part
from pillows.transports.elasticsearch.transport import ElasticsearchTransport
from pillows.transports.jsonl.options import JsonlConnection, JsonlOutput
from pillows.transports.jsonl.transport import JsonlTransport
from tests.conformance.steps import assert_applied, opened, rows
from tests.conformance.target import KEY, OTHER_KEY, Target, at, batch, document, gone
from tests.integration.transports.postgres_database import PostgresDatabase
from tests.integration.transports.search_index import Node
from tests.integration.transports.search_target import SearchTarget
from tests.support.sizes import size


def part(number: int, term: str = "one") -> Part:
    return Part(key=TailKey(KEY.pillow, f"{KEY.source}#{number}"), number=number, term=term)


@contextmanager
def taken(target: Target, which: Part, *, epoch: int = 1, seq: str = "0") -> Iterator[Any]:
    """An open transport of one part; its `TargetState` at `.state`."""
    transport: Any = target.transport("docs")
    transport.take_part(which)
    try:
        transport.state = transport.open()
        transport.acquire(at(seq, epoch=epoch))
        yield transport
    finally:
        transport.close()


@pytest.fixture
def database(postgres_dsn: str) -> PostgresDatabase:
    return PostgresDatabase(postgres_dsn)


@pytest.fixture(params=["postgres", "elasticsearch"])
def target(request: pytest.FixtureRequest) -> Target:
    if request.param == "postgres":
        return PostgresDatabase(request.getfixturevalue("postgres_dsn"))
    node = Node(
        request.getfixturevalue("elasticsearch_url"),
        request.getfixturevalue("es_prefix"),
        ElasticsearchTransport,
    )
    return SearchTarget(node, deletes="tombstone")


def test_parts_write_into_the_same_output_and_none_removes_what_others_wrote(target: Target) -> None:
    with taken(target, part(0)) as first, taken(target, part(1)) as second:
        assert not first.state.empty, "no part may count on an empty target"
        assert_applied(first.write(batch(document("a", 1, {"n": 1}))))
        assert_applied(second.write(batch(document("b", 1, {"n": 2}))))
        assert first.finish_pass(9) == 0
    assert rows(target) == {"a": [{"n": 1}], "b": [{"n": 2}]}


def test_a_part_learns_the_highest_epoch_of_the_others_and_of_the_whole(target: Target) -> None:
    with opened(target, "docs", epoch=3):
        pass
    with taken(target, part(0), epoch=5) as first:
        assert first.state.epoch == 3
    with taken(target, part(1), epoch=6) as second:
        assert second.state.epoch == 5
    with opened(target, "docs", claim=False) as whole:
        assert whole.state.epoch == 6


@pytest.mark.parametrize("seed", range(size(ci=2, proof=60)))
def test_the_newest_state_stays_when_two_parts_write_the_same_documents(target: Target, seed: int) -> None:
    """A document that changes its part may be written by both at once, in any order."""
    chance = random.Random(seed)
    ids = [f"d{number}" for number in range(6)]
    newest: dict[str, DocumentRows] = {}
    turns: list[list[DocumentRows]] = [[], []]
    for id in ids:
        for version in range(1, size(ci=12, proof=20)):
            state = gone(id, version) if chance.random() < 0.4 else document(id, version, {"v": version})
            newest[id] = state
            turns[chance.randrange(2)].append(state)
    for each in turns:
        each.sort(key=lambda state: state.leaf_version)

    def write(transport: Any, states: list[DocumentRows]) -> None:
        while states:
            count = chance.randint(1, 4)
            assert not transport.write(batch(*states[:count])).dead
            del states[:count]
            gevent.sleep(0)

    with taken(target, part(0)) as first, taken(target, part(1)) as second:
        writers = [gevent.spawn(write, first, turns[0]), gevent.spawn(write, second, turns[1])]
        gevent.joinall(writers, raise_error=True)
    assert rows(target) == {id: list(one.rows["docs"]) for id, one in newest.items() if one.rows}


def test_what_former_owners_write_after_a_takeover_is_refused(target: Target) -> None:
    """Each owner wakes up after the next one has written, and tries to write an older state."""
    owners = size(ci=4, proof=60)
    refused = 0
    with ExitStack() as stack:
        zombies: list[Any] = []
        for term in range(1, owners + 1):
            owner = stack.enter_context(taken(target, part(0, f"term{term}")))
            assert_applied(owner.write(batch(document("a", 2 * term, {"n": term}))))
            for zombie in zombies[-2:]:
                try:
                    found = zombie.write(batch(document("a", 2 * term - 1, {"n": "of a zombie"})))
                except FencedError:
                    refused += 1
                else:
                    assert found.refused == {"a": write_version(1, 2 * term)}
                    refused += 1
            assert rows(target) == {"a": [{"n": term}]}
            zombies.append(owner)
    assert refused == 2 * owners - 3
    print(f"{refused} writes of former owners, none accepted")


# --- PostgreSQL


def test_each_part_has_a_checkpoint_and_a_fence_of_its_own(database: PostgresDatabase) -> None:
    with ExitStack() as stack:
        old, other = (stack.enter_context(taken(database, part(number))) for number in (0, 1))
        old.write(batch(document("a", 1, {"n": 1}), checkpoint=at("7")))
        new = stack.enter_context(taken(database, part(0, "two"), seq="7"))
        assert str(new.state.checkpoint.seq) == "7"
        with pytest.raises(FencedError):
            old.write(batch(document("a", 2, {"n": 2})))
        assert_applied(other.write(batch(document("b", 1, {"n": 1}))))
        assert_applied(new.write(batch(document("a", 3, {"n": 3}))))
    assert rows(database) == {"a": [{"n": 3}], "b": [{"n": 1}]}


def test_the_whole_and_its_parts_take_the_fence_from_each_other(database: PostgresDatabase) -> None:
    with ExitStack() as stack:
        whole = stack.enter_context(opened(database, "docs"))
        first = stack.enter_context(taken(database, part(0)))
        with pytest.raises(FencedError):
            whole.write(batch(document("a", 1, {"n": 1})))
        assert_applied(first.write(batch(document("a", 2, {"n": 2}))))
        again = stack.enter_context(opened(database, "docs"))
        with pytest.raises(FencedError):
            first.write(batch(document("a", 3, {"n": 3})))
        assert again.write(batch(document("a", 1, {"n": 1}))).refused == {"a": write_version(1, 2)}


def test_a_part_refuses_rows_that_its_pillow_never_wrote(database: PostgresDatabase) -> None:
    with opened(database, "docs", key=OTHER_KEY) as other:
        other.write(batch(document("a", 1, {"n": 1})))
    transport = database.transport("docs")
    transport.take_part(part(0))
    with pytest.raises(StateLostError, match="none that it wrote") as refused:
        transport.open()
    transport.close()
    assert "checkpoint reset cases" in refused.value.remedy


# --- Elasticsearch


def test_a_part_refuses_an_index_that_readers_would_see_half_filled(
    elasticsearch_url: str, es_prefix: str
) -> None:
    node = Node(elasticsearch_url, es_prefix, ElasticsearchTransport)
    with opened(SearchTarget(node, deletes="tombstone"), "docs"):
        pass
    changed: Any = node.transport(
        {"docs": {"mapping": {"dynamic": "strict"}, "deletes": "tombstone"}}, key=KEY
    )
    changed.take_part(part(0))
    with pytest.raises(ConfigError, match="needs another index"):
        changed.open()
    changed.close()


# --- JSON lines


def test_each_owner_of_a_part_writes_files_of_its_own(tmp_path: Path) -> None:
    def start(which: Part) -> Any:
        files = {"docs": JsonlOutput(file="docs.jsonl")}
        transport: Any = JsonlTransport("files", KEY, JsonlConnection(folder=tmp_path), files)
        digest = transport.outputs_digest()
        transport.take_part(which)
        assert transport.outputs_digest() == digest
        assert not transport.remembers
        assert not transport.transactional, "the next owner may be elsewhere"
        transport.open()
        transport.acquire(at("0"))
        return transport

    old, new = start(part(3)), start(part(3, "two"))
    for number, transport in enumerate([old, new, old]):
        transport.write(batch(document(f"d{number}", 1, {"n": number})))
    old.close()
    new.close()
    found = {
        path.name: [msgspec.json.decode(line)["_id"] for line in path.read_bytes().splitlines()]
        for path in tmp_path.glob("*.jsonl")
    }
    assert found == {"docs.3-one.jsonl": ["d0", "d2"], "docs.3-two.jsonl": ["d1"]}


def test_few_transports_can_be_divided() -> None:
    divisible = {name for name in registry.transport_types() if registry.transport(name).divisible}
    assert {"postgres", "elasticsearch", "opensearch", "jsonl", "null"} <= divisible
    assert not divisible & {"sqlite", "webhook", "stdout", "couchdb"}

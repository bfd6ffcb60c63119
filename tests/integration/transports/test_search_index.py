"""What both products promise beyond the conformance suite: names, aliases, refusals, deletes."""

from __future__ import annotations

import random
import time
from typing import Any

import gevent
import pytest

from pillows.errors import ConfigError, FatalError
from pillows.models import Batch, write_version
from pillows.transports.common.search import transport as module
from pillows.transports.common.search import writer
from tests.conformance.steps import assert_applied
from tests.conformance.target import OTHER_KEY, at, batch, document, gone
from tests.integration.transports.search_index import ANYTHING, Node, aside, many, running
from tests.support.sizes import size


@pytest.fixture
def node(node_in_proof: Node) -> Node:
    """The server."""
    return node_in_proof


STRICT = {"mapping": {"dynamic": "strict", "properties": {"n": {"type": "integer"}}}}


# --- the alias and the index behind it


def test_the_first_index_is_searched_at_once_under_its_alias(each_node: Node) -> None:
    node = each_node
    with running(node) as one:
        assert_applied(one.write(batch(document("a", 1, {"n": 1}))))
    (index,) = node.indices("docs")
    assert node.behind("docs") == [index]
    settings = node.ask("GET", f"{index}/_settings?flat_settings=true")[index]["settings"]
    assert settings["index.gc_deletes"] == "1h"
    meta = node.ask("GET", f"{index}/_mapping")[index]["mappings"]["_meta"]["pillowd"]
    assert {name: meta[name] for name in ("format", "pillow", "source", "epoch", "generation")} == {
        "format": 1,
        "pillow": "cases",
        "source": "couch/cases",
        "epoch": 1,
        "generation": 0,
    }


def test_a_changed_mapping_fills_a_new_index_and_the_alias_moves_when_the_pass_is_complete(
    each_node: Node,
) -> None:
    node = each_node
    with running(node) as one:
        one.write(batch(document("a", 5, {"n": 1}), document("gone-meanwhile", 1, {"n": 2})))
    (old,) = node.indices("docs")
    changed = node.transport({"docs": STRICT})
    state = changed.open()
    assert (state.epoch, state.empty) == (1, True), "the epoch of the old index counts too"
    changed.acquire(at("0", epoch=2))
    assert_applied(changed.write(batch(document("a", 5, {"n": 3}), epoch=2, first_pass=True)))
    assert node.behind("docs") == [old]
    assert node.read("docs") == {"a": {"n": 1}, "gone-meanwhile": {"n": 2}}, "the old rows are still shown"
    assert changed.finish_pass(2) == 0
    (new,) = set(node.indices("docs")) - {old}
    assert node.behind("docs") == [new]
    assert node.read("docs") == {"a": {"n": 3}}
    changed.close()
    with running(node, epoch=2, docs=STRICT) as again:
        assert again.finish_pass(2) == 0
    assert node.behind("docs") == [new]


def test_the_build_that_the_alias_points_to_is_written(node: Node) -> None:
    """After the state directory was lost, only the alias knows the number of the build."""
    with running(node) as one:
        assert_applied(one.write(batch(document("a", 1, {"n": 1}))))
    (first,) = node.indices("docs")
    assert first.endswith("-1")
    second = f"{first.removesuffix('-1')}-2"
    mappings = node.ask("GET", f"{first}/_mapping")[first]["mappings"]
    node.ask("PUT", second, {"mappings": mappings})
    with running(node, epoch=2) as one:
        assert_applied(one.write(batch(document("a", 1, {"n": 2}), epoch=2)))
    assert node.read("docs") == {"a": {"n": 2}}
    alias = node.alias("docs")
    moves = [{"remove": {"index": first, "alias": alias}}, {"add": {"index": second, "alias": alias}}]
    node.ask("POST", "_aliases", {"actions": moves})
    with running(node, epoch=3) as one:
        assert_applied(one.write(batch(document("b", 1, {"n": 3}), epoch=3)))
    assert node.read("docs") == {"b": {"n": 3}}


def test_an_interrupted_rebuild_goes_on_in_the_same_index(node: Node) -> None:
    with running(node) as one:
        one.write(batch(document("a", 1, {"n": 1})))
    for _ in range(2):
        with running(node, epoch=2, docs=STRICT) as changed:
            changed.write(batch(document("b", 1, {"n": 1}), epoch=2))
    assert len(node.indices("docs")) == 2
    assert set(node.read("docs")) == {"a"}


def test_an_index_under_the_aliass_name_is_a_config_error_with_the_remedy(each_node: Node) -> None:
    node = each_node
    node.ask("PUT", node.alias("docs"))
    one = node.transport({"docs": ANYTHING})
    with pytest.raises(ConfigError, match=r"is an index.*Remedy: choose another name, or delete"):
        one.open()
    one.close()
    assert node.indices() == [node.alias("docs")]


def test_an_alias_on_somebody_elses_index_is_left_alone(node: Node) -> None:
    node.ask("PUT", f"{node.prefix}theirs", {"aliases": {node.alias("docs"): {}}})
    one = node.transport({"docs": ANYTHING})
    with pytest.raises(ConfigError, match="was not created by pillowd"):
        one.open()
    one.close()
    assert node.behind("docs") == [f"{node.prefix}theirs"]


def test_an_index_of_another_pillow_is_refused_and_both_are_named(node: Node) -> None:
    with running(node) as one:
        one.write(batch(document("a", 1, {"n": 1})))
    other = node.transport({"docs": ANYTHING}, key=OTHER_KEY)
    with pytest.raises(ConfigError, match=r"'cases' of 'couch/cases', so forms@couch/forms can't"):
        other.open()
    other.close()


@pytest.mark.parametrize(
    "options",
    [
        {"mapping": {"properties": {"n": {"type": "nope"}}}},
        {"settings": {"no_such": 1}},
        {"pipeline": "nope"},
    ],
    ids=["mapping", "settings", "pipeline"],
)
def test_what_the_server_refuses_about_an_index_is_a_config_error(each_node: Node, options: Any) -> None:
    node = each_node
    one = node.transport({"docs": options})
    with pytest.raises(ConfigError, match=r"nope|no_such"):
        one.open()
    one.close()
    assert node.indices() == []


def test_a_lost_alias_comes_back_at_the_next_start(node: Node) -> None:
    with running(node) as one:
        one.write(batch(document("a", 1, {"n": 1})))
    (index,) = node.indices("docs")
    node.ask("DELETE", f"{index}/_alias/{node.alias('docs')},{index}-write")
    with running(node) as one:
        one.write(batch(document("b", 1, {"n": 1})))
    assert set(node.read("docs")) == {"a", "b"}


def test_the_operators_meta_stays(each_node: Node) -> None:
    node = each_node
    with running(node, docs={"mapping": {"_meta": {"team": "search"}}}) as one:
        one.acquire(at("0", epoch=2, edits=7))
    (index,) = node.indices("docs")
    meta = node.ask("GET", f"{index}/_mapping")[index]["mappings"]["_meta"]
    assert meta["team"] == "search"
    assert (meta["pillowd"]["epoch"], meta["pillowd"]["generation"]) == (2, 7)


def test_an_index_deleted_under_a_running_pillow_is_fatal_and_not_created_by_guesswork(
    each_node: Node,
) -> None:
    node = each_node
    with running(node) as one:
        one.write(batch(document("a", 1, {"n": 1})))
        (index,) = node.indices("docs")
        node.ask("DELETE", index)
        with pytest.raises(FatalError, match=r"is gone.*checkpoint reset"):
            one.write(batch(document("b", 1, {"n": 1}), gone("a", 2)))
        with pytest.raises(FatalError, match="checkpoint reset"):
            one.acquire(at("0", epoch=2))
    assert node.indices() == []


# --- refused writes


def test_a_shuffled_stream_with_duplicates_and_races_converges(node: Node) -> None:
    """Every document's life, deletes among it, in any order and with 20 % sent twice."""
    lives = random.Random(35)
    changes = []
    newest: dict[str, Any] = {}
    for n in range(size(ci=300, proof=5000)):
        last = lives.randint(1, 6)
        for version in range(1, last + 1):
            deleted = lives.random() < 0.3
            changes.append(gone(f"d{n}", version) if deleted else document(f"d{n}", version, {"v": version}))
        newest[f"d{n}"] = None if deleted else {"v": last}
    changes += lives.sample(changes, len(changes) // 5)
    lives.shuffle(changes)
    with running(node) as one:
        for start in range(0, len(changes), 200):
            result = one.write(batch(*changes[start : start + 200]))
            assert not result.dead
            assert not result.retry
    assert node.read("docs") == {id: row for id, row in newest.items() if row}


def test_a_race_of_delete_and_older_version_ends_deleted_within_gc_deletes(node: Node) -> None:
    with running(node) as one, running(node) as late:
        one.write(batch(document("a", 1, {"v": 1})))
        writes = [gevent.spawn(one.write, batch(gone("a", 3)))]
        writes += [gevent.spawn(late.write, batch(document("a", 2, {"v": 2}))) for _ in range(5)]
        gevent.joinall(writes, raise_error=True, timeout=30)
        assert one.write(batch(document("a", 2, {"v": 2}))).refused == {"a": write_version(1, 3)}
    assert node.read("docs") == {}


def test_tombstones_refuse_an_older_version_after_gc_deletes(node: Node) -> None:
    """Without them, an index whose memory of deletes is over takes the older version."""
    forgetful = {**ANYTHING, "settings": {"gc_deletes": "0s"}}
    older = batch(document("a", 1, {"v": 1}))
    with running(node, docs=forgetful | {"deletes": "tombstone"}, hard=forgetful) as one:
        one.write(batch(gone("a", 2)))
        for output in ("docs", "hard"):  # what is in memory is dropped by a refresh
            node.ask("POST", f"{node.alias(output)}/_refresh")
        resurrected = batch(document("a", 1, {"v": 1}, output="hard"))
        assert one.write(older).refused == {"a": write_version(1, 2)}
        one.write(resurrected)
    assert node.read("docs") == {}


def test_a_partial_failure_says_which_documents_must_come_again(each_node: Node) -> None:
    node = each_node
    with running(node, docs=STRICT, other=STRICT) as one:
        one.write(batch(document("x", 1, {"n": 0}), document("y", 1, {"n": 0}, output="other")))
        mixed = batch(
            document("fine", 1, {"n": 1}),
            document("bad", 1, {"n": "text"}),
            document("both", 1, {"n": 1}, other=[{"n": 1}]),
            gone("x", 2),
        )
        with aside(node, "flood", "other"):
            result = one.write(mixed)
            assert set(result.retry) == {"fine", "bad", "both", "x"}, "each must be deleted there at least"
            assert not result.dead, "as long as an output is busy nothing is final"
        again = one.write(mixed)
        assert set(again.dead) == {"bad"}
        assert again.refused == {
            "fine": write_version(1, 1),
            "both": write_version(1, 1),
            "x": write_version(1, 2),
        }
    assert set(node.read("docs")) == {"fine", "both"}
    assert set(node.read("other")) == {"both", "y"}


@pytest.mark.parametrize("told", [True, False], ids=["told", "not-told"])
def test_a_refusal_by_a_deleted_document_is_never_taken_for_older(
    each_node: Node, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should the text of conflicts change, what is told instead leads to the same decisions."""
    node = each_node
    if not told:
        monkeypatch.setattr(writer, "parse_stored_version", lambda item: None)
    with running(node) as one:
        one.write(batch(gone("a", 5), gone("b", 5)))
        result = one.write(batch(document("a", 4, {"n": 1}), gone("b", 5), epoch=1))
        assert result.refused == {"a": write_version(1, 5), "b": write_version(1, 5)}
        one.acquire(at("0", epoch=3))
        one.write(batch(gone("a", 1), epoch=3))
        (stored,) = one.write(batch(document("a", 9, {"n": 1}), epoch=2)).refused.values()
        assert stored >> 40 == 3
        assert stored == write_version(3, 1) or not told


def test_a_document_that_was_purged_and_created_again_is_noticed(node: Node) -> None:
    """The refusal tells a higher version than the source has, so the pipeline raises the epoch."""
    with running(node) as one:
        one.write(batch(gone("deleted", 8), document("live", 8, {"n": 8})))
        again = batch(document("deleted", 1, {"n": 1}), document("live", 1, {"n": 1}))
        assert one.write(again).refused == {"deleted": write_version(1, 8), "live": write_version(1, 8)}
        one.acquire(at("0", epoch=2))
        assert_applied(one.write(Batch(documents=again.documents, epoch=2)))
    assert node.read("docs") == {"deleted": {"n": 1}, "live": {"n": 1}}


# --- deletes


def test_tombstones_are_hidden_and_removed_after_their_time(
    each_node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = each_node
    with running(node, docs={**ANYTHING} | {"deletes": "tombstone", "tombstone_ttl": "1h"}) as one:
        one.write(batch(document("a", 1, {"n": 1}), document("b", 1, {"n": 1})))
        one.write(batch(gone("a", 2), gone("never", 2)))
        assert set(node.read("docs")) == {"b"}
        (index,) = node.indices("docs")
        assert node.ask("GET", f"{index}/_count")["count"] == 3
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 3601)
        one.write(batch(document("c", 1, {"n": 1})))
        assert node.ask("GET", f"{index}/_doc/a")["found"], "expired ones are not looked for at every write"
        monkeypatch.setattr(module, "_PURGE_SECONDS", 0)
        one._purge_at = 0
        one.write(batch(document("d", 1, {"n": 1})))
        for id in ("a", "never"):
            assert not node.ask("GET", f"{index}/_doc/{id}", ok=False)["found"]
        assert one.write(batch(document("a", 1, {"n": 1}))).refused, "and still remembered for gc_deletes"
    assert set(node.read("docs")) == {"b", "c", "d"}


def test_a_pass_with_tombstones_ends_with_a_sweep_of_rows_only(each_node: Node) -> None:
    node = each_node
    with running(node, docs={**ANYTHING} | {"deletes": "tombstone"}) as one:
        one.write(batch(*many(5), gone("was", 3)))
        one.acquire(at("0", epoch=2))
        one.write(batch(document("d00000", 1, {"n": 1}), epoch=2))
        assert one.finish_pass(2) == 4
        assert one.finish_pass(2) == 0
        assert one.write(batch(document("was", 2, {"n": 1}))).refused == {"was": write_version(1, 3)}
        assert one.write(batch(document("d00001", 9, {"n": 1}))).refused == {"d00001": write_version(2, 0)}
    assert set(node.read("docs")) == {"d00000"}


def test_a_pass_without_tombstones_sweeps_documents_that_look_like_some(node: Node) -> None:
    with running(node) as one:
        one.write(batch(document("a", 1, {"pillowd_deleted_at": 1})))
        one.acquire(at("0", epoch=2))
        assert one.finish_pass(2) == 1
    assert node.read("docs") == {}


def test_a_pipeline_that_is_there_is_used_for_documents(node: Node) -> None:
    pipeline = f"{node.prefix}pipeline"
    node.ask("PUT", f"_ingest/pipeline/{pipeline}", {"processors": []})
    with running(node, docs={**ANYTHING} | {"pipeline": pipeline, "deletes": "tombstone"}) as one:
        assert_applied(one.write(batch(document("a", 1, {"n": 1}), gone("b", 1))))
        node.ask("DELETE", f"_ingest/pipeline/{pipeline}")
        result = one.write(batch(document("a", 2, {"n": 1}), gone("b", 2)))
    assert set(result.dead) == {"a"}, "a tombstone needs no pipeline"


def test_a_first_pass_asks_for_ids_of_any_length(node: Node) -> None:
    with running(node) as one:
        result = one.write(
            batch(gone("é" * 2000, 1), gone("b", 1), document("c", 1, {"n": 1}), first_pass=True)
        )
    assert_applied(result)


def test_a_sweep_takes_many_pages_and_leaves_what_is_new(each_node: Node) -> None:
    node = each_node
    count = size(ci=3500, proof=50_000)
    with running(node) as one:
        for start in range(0, count, 2000):
            one.write(batch(*many(count)[start : start + 2000]))
        one.acquire(at("0", epoch=2))
        kept = many(count)[::500]
        one.write(batch(*kept, epoch=2))
        assert one.finish_pass(2) == count - len(kept)
    assert set(node.read("docs")) == {d.id for d in kept}


def test_in_a_first_pass_over_an_index_that_was_there_late_writes_are_refused_still(node: Node) -> None:
    """A killed pillowd's last request may arrive after its successor has started."""
    with running(node):
        pass
    with running(node) as one, running(node) as late:
        assert_applied(one.write(batch(gone("a", 2), first_pass=True)))
        assert late.write(batch(document("a", 1, {"n": 1}), first_pass=True)).refused == {
            "a": write_version(1, 2)
        }
        one._settled_at = 0
        one.write(batch(gone("b", 2), first_pass=True))
        assert node.write_version("docs", "b") is None, (
            "once nothing can be on its way any more, none are written"
        )

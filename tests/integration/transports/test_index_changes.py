"""An index that follows a changed configuration, is loaded with settings of its own, and is removed."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from checkpoints import Checkpoint
from pillows.errors import ConfigError, RetryableError
from pillows.options import Build
from pillows.transports.common.search.index.old_indices import IndexUse
from pillows.transports.common.search.transport import SearchTransport
from tests.conformance.steps import assert_applied
from tests.conformance.target import OTHER_KEY, at, batch, document
from tests.integration.transports.search_index import ANYTHING, Node, running

STRICT = {"mapping": {"dynamic": "strict", "properties": {"n": {"type": "integer"}}}}


def first_pass(*, epoch: int = 1) -> Checkpoint:
    return replace(at("0", epoch=epoch), first_pass=True)


def get_settings(node: Node, index: str) -> dict[str, Any]:
    found: dict[str, Any] = node.ask("GET", f"{index}/_settings?flat_settings=true")[index]["settings"]
    return found


def get_mapping(node: Node, index: str) -> dict[str, Any]:
    found: dict[str, Any] = node.ask("GET", f"{index}/_mapping")[index]["mappings"]
    return found


def loads(node: Node, index: str) -> bool:
    settings = get_settings(node, index)
    return settings.get("index.refresh_interval") == "-1" and settings["index.number_of_replicas"] == "0"


def open_changed(node: Node, **options: Any) -> tuple[SearchTransport, Any]:
    """Open the output `docs` with another configuration."""
    one = node.transport({"docs": options})
    return one, one.open()


# --- in place


def test_new_fields_and_dynamic_settings_and_meta_are_applied_without_a_reload(each_node: Node) -> None:
    node = each_node
    mapping: dict[str, Any] = {"dynamic": False, "_meta": {"team": "a", "gone": 1}}
    with running(node, docs={"mapping": mapping, "settings": {"refresh_interval": "5s"}}) as one:
        one.write(batch(document("a", 1, {"n": 1, "m": "x"})))
        digest = one.outputs_digest()
    (index,) = node.indices("docs")
    node.ask("PUT", f"{index}/_mapping", {"_meta": {**get_mapping(node, index)["_meta"], "theirs": 1}})
    changed = {
        "mapping": {"dynamic": False, "_meta": {"team": "b"}, "properties": {"m": {"type": "keyword"}}},
        "settings": {"max_result_window": 20_000},
    }
    for attempt in range(2):
        one, state = open_changed(node, **changed)
        assert one.outputs_digest() == digest, "or the checkpoint would be refused"
        one.acquire(at("5-x"))
        one.write(batch(document("b", 1 + attempt, {"m": "y"})))
        one.close()
        said = f"{index}: fields added: m; settings changed: index.max_result_window, index.refresh_interval"
        assert state.changed == ([said] if attempt == 0 else [])
    assert node.indices("docs") == [index]
    settings, found = get_settings(node, index), get_mapping(node, index)
    assert settings["index.max_result_window"] == "20000"
    assert "index.refresh_interval" not in settings, "the server's default again"
    assert {name: each for name, each in found["_meta"].items() if name != "pillowd"} == {
        "team": "b",
        "theirs": 1,
    }
    query = {"query": {"term": {"m": "y"}}}
    node.ask("POST", f"{index}/_refresh")
    assert node.ask("POST", f"{node.alias('docs')}/_search", query)["hits"]["total"]["value"] == 1
    one, state = open_changed(node, mapping=mapping, settings={"refresh_interval": "5s"})
    one.close()
    assert state.changed == [f"{index}: settings changed: index.max_result_window, index.refresh_interval"]
    assert get_settings(node, index)["index.refresh_interval"] == "5s", "back to the first configuration"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"settings": {"number_of_shards": 1}}, {"settings": {"number_of_shards": 2}}),
        (
            {"mapping": {"properties": {"n": {"type": "long"}}}},
            {"mapping": {"properties": {"n": {"type": "text"}}}},
        ),
        ({"mapping": {}}, {"mapping": {"properties": {"n": {"type": "keyword"}}}}),
    ],
    ids=["static-setting", "type", "a-guessed-type"],
)
def test_what_rows_cannot_follow_is_another_index_as_before(
    each_node: Node, before: dict[str, Any], after: dict[str, Any]
) -> None:
    node = each_node
    with running(node, docs=before) as one:
        assert_applied(one.write(batch(document("a", 1, {"n": 1}))))
        digest = one.outputs_digest()
    (old,) = node.indices("docs")
    for _ in range(2):
        one, state = open_changed(node, **after)
        assert one.outputs_digest() != digest, "so the checkpoint is refused, with the remedy"
        one.close()
        assert state.changed == []
    assert len(node.indices("docs")) == 2
    assert node.behind("docs") == [old]
    one, _ = open_changed(node, **before)
    assert one.outputs_digest() == digest, "the old values are still right"
    one.close()


def test_settings_that_somebody_changed_on_the_server_are_left_alone(
    node_in_proof: Node,
) -> None:
    node = node_in_proof
    with running(node):
        node.settings("docs", index__number_of_replicas=0)
    with running(node):
        pass
    (index,) = node.indices("docs")
    assert get_settings(node, index)["index.number_of_replicas"] == "0"


# --- the first pass


def test_a_first_pass_runs_without_refreshes_and_copies(each_node: Node) -> None:
    node = each_node
    with running(node) as one:
        one.write(batch(document("old", 1, {"n": 0})))
    (old,) = node.indices("docs")
    options = {"docs": {**STRICT, "settings": {"number_of_replicas": 1, "refresh_interval": "7s"}}}
    for _ in range(2):  # the second time as after a kill
        one = node.transport(options)
        one.open()
        one.acquire(first_pass(epoch=2))
        assert not one.write(batch(document("a", 1, {"n": 1}), epoch=2, first_pass=True)).dead
        (new,) = set(node.indices("docs")) - {old}
        assert loads(node, new)
        assert node.behind("docs") == [old]
        if _ == 0:
            one.close()
    one.finish_pass(2)
    settings = get_settings(node, new)
    assert (settings["index.refresh_interval"], settings["index.number_of_replicas"]) == ("7s", "1")
    assert node.behind("docs") == [new]
    found = node.ask("POST", f"{node.alias('docs')}/_search")["hits"]["hits"]
    assert [hit["_id"] for hit in found] == ["a"], "refreshed before the alias moved"
    one.acquire(first_pass(epoch=2))  # killed before the checkpoint knew that the pass is done
    assert not loads(node, new), "the alias points to it"
    one.close()


def test_the_settings_come_back_before_the_alias_moves(
    node_in_proof: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at every request of the end of a pass: never is an index searched without its own settings."""
    node = node_in_proof
    with running(node):
        pass
    (old,) = node.indices("docs")
    for allowed in range(12):
        one = node.transport({"docs": STRICT})
        one.open()
        one.acquire(first_pass(epoch=2))
        one.write(batch(document("a", 1, {"n": 1}), epoch=2, first_pass=True))
        client = one._client
        assert client
        call, left = client.call, [allowed]

        def counted(*args: Any, call: Any = call, left: list[int] = left, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise RetryableError("killed")
            return call(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(client, "call", counted)
            done = False
            try:
                one.finish_pass(2)
                done = True
            except RetryableError:
                pass
        one.close()
        if node.behind("docs") != [old]:
            (new,) = node.behind("docs")
            assert not loads(node, new)
        if done:
            break
    assert done
    assert node.behind("docs") != [old]


def test_a_pass_that_is_no_first_pass_any_more_has_its_settings_back(
    node_in_proof: Node,
) -> None:
    node = node_in_proof
    one = node.transport({"docs": ANYTHING})
    one.open()
    one.acquire(first_pass())
    one.write(batch(document("a", 1, {"n": 1}), first_pass=True))
    (index,) = node.indices("docs")
    assert loads(node, index)
    one.close()
    with running(node, epoch=2, docs={**ANYTHING, "settings": {"number_of_replicas": 0}}):
        assert not loads(node, index)
    assert get_settings(node, index)["index.number_of_replicas"] == "0", "changed during the first pass"


def test_an_index_whose_first_pass_was_given_up_gets_its_settings_back(each_node: Node) -> None:
    node = each_node
    one = node.transport({"docs": {**ANYTHING, "settings": {"number_of_replicas": 1}}})
    one.open()
    one.acquire(first_pass())
    (given_up,) = node.indices("docs")
    one.close()
    building = node.transport({"docs": STRICT})
    build = Build(number=2, live=False)
    building.outputs = {name: each.of_build(build) for name, each in building.outputs.items()}
    building.open()
    building.acquire(first_pass(epoch=2))
    building.close()
    changed, state = open_changed(node, **STRICT)
    assert state.changed == [
        f"{given_up}: its first pass was given up, so it refreshes again and has its copies"
    ]
    listed = {each.name: each.loading for each in changed.find_old_indices("docs").list()}
    assert listed.pop(given_up) is False
    assert get_settings(node, given_up)["index.number_of_replicas"] == "1"
    assert sorted(listed.values()) == [False, True], "another build is left alone"
    changed.close()
    again, state = open_changed(node, **STRICT)
    assert not state.changed
    again.close()


# --- an alias that others made


def test_an_alias_on_a_foreign_index_is_taken_over_on_demand(each_node: Node) -> None:
    node = each_node
    theirs = f"{node.prefix}theirs"
    node.ask("PUT", theirs, {"aliases": {node.alias("docs"): {}}})
    node.ask("PUT", f"{theirs}/_doc/x?refresh=true", {"n": 0})
    refused = node.transport({"docs": ANYTHING})
    with pytest.raises(ConfigError, match=rf"not created by pillowd.*`replaces: {theirs}`"):
        refused.open()
    refused.close()
    one = node.transport({"docs": {**ANYTHING, "replaces": theirs}})
    state = one.open()
    assert (state.epoch, state.empty) == (None, True)
    one.acquire(first_pass())
    one.write(batch(document("a", 1, {"n": 1}), first_pass=True))
    assert node.behind("docs") == [theirs]
    one.finish_pass(1)
    (new,) = node.behind("docs")
    assert new != theirs
    assert set(node.read("docs")) == {"a"}
    one.close()
    with running(node, docs={**ANYTHING, "replaces": theirs}):
        assert node.behind("docs") == [new]
    assert node.ask("GET", f"{theirs}/_count")["count"] == 1, "kept until somebody removes it"


# --- old indices


def test_old_indices_are_listed_and_removed_and_those_in_use_are_not(
    node_in_proof: Node,
) -> None:
    node = node_in_proof
    with running(node) as one:
        one.write(batch(document("a", 1, {"n": 1})))
    (first,) = node.indices("docs")
    with running(node, epoch=2, docs=STRICT) as one:
        one.write(batch(document("a", 1, {"n": 1}), epoch=2))
        one.finish_pass(2)
    (second,) = node.behind("docs")
    with running(node, epoch=3, docs={"mapping": {"dynamic": True}}):
        (third,) = set(node.indices("docs")) - {first, second}
    other = node.transport({"docs": {**ANYTHING, "index": f"{node.alias('docs')}-more"}}, key=OTHER_KEY)
    other.open()
    other.close()
    node.ask("POST", f"{first}/_refresh")
    one = node.transport({"docs": STRICT})
    old = one.find_old_indices("docs")
    listed = {each.name: each for each in old.list()}
    assert list(listed) == [first, second, third], "the oldest first"
    assert {name: each.use for name, each in listed.items()} == {
        first: IndexUse.OLD,
        second: IndexUse.SEARCHED,
        third: IndexUse.WRITTEN,
    }
    assert (listed[first].documents, listed[first].size_bytes > 0) == (1, True)
    for name, said in (
        (second, "in use"),
        (third, "in use"),
        (f"{node.alias('docs')}-more", "not an index"),
    ):
        with pytest.raises(ConfigError, match=said):
            old.remove(name)
    one.close()
    one = node.transport({"docs": ANYTHING})
    with pytest.raises(ConfigError, match="in use"):
        one.find_old_indices("docs").remove(first)  # a reload may be about to fill it again
    one.close()
    one = node.transport({"docs": STRICT})
    one.find_old_indices("docs").remove(first)
    one.close()
    assert first not in node.indices("docs")
    assert set(node.read("docs")) == {"a"}

"""A configuration that changes between two runs: refused, gone on with, or filled anew, as designed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
import requests
import yaml

from tests.acceptance import stores
from tests.acceptance.process import Pillowd
from tests.acceptance.world import World, call, complete, live, statuses
from tests.servers.couch_client import CouchDatabase

TARGETS = ("postgres", "elasticsearch")
DOCUMENTS = 120


@pytest.fixture
def other(world: World, couch: Any) -> Iterator[CouchDatabase]:
    """Another database on the same server, with documents of its own."""
    database: CouchDatabase = couch.database(f"test-{uuid.uuid4().hex[:12]}").create()
    database.bulk([{"_id": f"other-{n}", "n": n} for n in range(30)])
    yield database
    database.drop()
    database.close()


def changed(daemon: Pillowd, **pillows: Any) -> None:
    """Writes the configuration with other pillows."""
    settings = yaml.safe_load(daemon.config.read_text())
    daemon.config.write_text(yaml.safe_dump(settings | {"pillows": pillows}))


def refused(daemon: Pillowd, *words: str) -> None:
    """The pillow fails for that reason, which a command shows as well."""
    daemon.start()
    daemon.wait_for(lambda: statuses(daemon).get("cases", {}).get("state") == "failed")
    reason = statuses(daemon)["cases"]["reason"]
    for word in (*words, "pillowd checkpoint reset cases"):
        assert word in reason, reason


def reset(daemon: Pillowd) -> None:
    """Takes the remedy, and waits until the pass that it begins is complete."""
    before = statuses(daemon)["cases"]["epoch"]
    call(daemon, "reset_checkpoint", key="cases", if_match="*")
    daemon.wait_for(lambda: statuses(daemon)["cases"]["epoch"] != before and complete(daemon))


def held(world: World) -> dict[str, stores.Rows]:
    """Returns the rows in each target."""
    return {target: world.read(target, "cases") for target in TARGETS}


def run_once(world: World, pillow: Mapping[str, Any]) -> Pillowd:
    """A daemon that has caught up with this pillow and was stopped."""
    world.fill(DOCUMENTS)
    daemon = world.pillowd({"cases": pillow}).start()
    daemon.wait_for(lambda: complete(daemon), seconds=60)
    assert daemon.stop() == 0
    return daemon


def test_a_changed_source_is_refused_until_it_is_reset_or_put_back(
    world: World, other: CouchDatabase
) -> None:
    pillow = world.pillow("cases", *TARGETS)
    daemon = run_once(world, pillow)
    before = held(world)

    moved = world.pillow("cases", *TARGETS, source={"database": other.name})
    changed(daemon, cases=moved)
    refused(daemon)
    assert held(world) == before, "nothing was written"
    assert daemon.stop() == 0

    changed(daemon, cases=pillow)
    world.couch.put("later", n=1)
    daemon.start()
    daemon.wait_for(lambda: complete(daemon))
    assert world.differences("cases", *TARGETS) == {}
    assert daemon.stop() == 0

    changed(daemon, cases=moved)
    refused(daemon)
    reset(daemon)
    expected = stores.couchdb(other)
    for target in TARGETS:
        assert stores.differences(expected, world.read(target, "cases")) == [], target
    assert daemon.stop() == 0


def test_a_changed_server_side_filter_is_a_changed_source(world: World) -> None:
    ignore = {"on_filtered": "ignore", "deletes": "ignore"}
    daemon = run_once(world, world.pillow("cases", *TARGETS, source=ignore))
    before = held(world)
    narrower = {**ignore, "selector": {"n": {"$lt": 10}}}
    changed(daemon, cases=world.pillow("cases", *TARGETS, source=narrower))
    refused(daemon, "source")
    assert held(world) == before
    assert daemon.stop() == 0


def test_an_index_gets_new_fields_and_settings_without_a_reload(world: World) -> None:
    pillow = world.pillow("cases", "elasticsearch")
    (entry,) = pillow["transport"]
    daemon = run_once(world, pillow)
    (index,) = _behind(world)
    entry["settings"] = {"refresh_interval": "3s"}
    changed(daemon, cases=pillow)
    daemon.start()
    daemon.wait_for(lambda: live(daemon))
    (event,) = daemon.events("output.changed")
    assert "refresh_interval" in event["change"]
    assert daemon.events("pipeline.changed") == [], "no row has another form"
    entry["mapping"] = {"dynamic": False, "properties": {"n": {"type": "integer"}}}
    changed(daemon, cases=pillow)
    assert daemon.command("reload").returncode == 0
    world.couch.put("later", n=41)
    daemon.wait_for(lambda: live(daemon) and _count(world, "n:[0 TO 500]") == 1)
    assert daemon.events("pipeline.changed"), "rows that are there are not indexed by the field yet"
    assert _indices(world) == [index]
    reset(daemon)
    assert _indices(world) == [index]
    assert _count(world, "n:[0 TO 500]") == DOCUMENTS + 1
    assert daemon.stop() == 0


def _count(world: World, query: str) -> int:
    return int(_ask(world, f"{world.alias('cases')}/_count?q={quote(query)}")["count"])


def test_a_changed_mapping_is_refused_and_fills_a_new_index_after_a_reset(world: World) -> None:
    """The alias stays where it is until the pass is complete, and moves in one step."""
    pillow = world.pillow("cases", "elasticsearch")
    pillow["transport"][0]["mapping"] = {"dynamic": False, "properties": {"n": {"type": "keyword"}}}
    daemon = run_once(world, pillow)
    (old,) = _behind(world)

    pillow["transport"][0]["mapping"] = {"dynamic": False, "properties": {"n": {"type": "integer"}}}
    changed(daemon, cases=pillow)
    refused(daemon, "outputs")
    assert _behind(world) == [old]
    assert daemon.stop() == 0

    world.couch.put("later", n=1)
    assert daemon.command("checkpoint", "reset", "cases").returncode == 0
    world.proxy.stall()
    daemon.start()
    daemon.wait_for(lambda: len(_indices(world)) == 2)
    assert _behind(world) == [old], "searches see the old index while the new one is filled"
    world.proxy.flow()
    daemon.wait_for(lambda: complete(daemon), seconds=60)
    (new,) = _behind(world)
    assert sorted([old, new]) == _indices(world)
    assert world.differences("cases", "elasticsearch") == {}
    mapping = _ask(world, f"{new}/_mapping")[new]["mappings"]["properties"]
    assert mapping["n"] == {"type": "integer"}
    assert _ask(world, f"{old}/_count")["count"] == DOCUMENTS, "the old index is left to its owner"
    assert daemon.stop() == 0


def _behind(world: World) -> list[str]:
    return sorted(_ask(world, f"_alias/{world.alias('cases')}"))


def _indices(world: World) -> list[str]:
    return sorted(_ask(world, f"{world.alias('cases')}*/_settings"))


def _ask(world: World, path: str) -> Any:
    answer = requests.get(f"{world.elasticsearch_url}/{path}", timeout=60)
    answer.raise_for_status()
    return answer.json()


def test_columns_that_can_be_added_are_and_others_are_refused_with_the_statement(world: World) -> None:
    pillow = world.pillow("cases", "postgres")
    (entry,) = pillow["transport"]
    entry["columns"] = {"n": "n integer"}
    daemon = run_once(world, pillow)

    entry["columns"]["text"] = "text text"
    changed(daemon, cases=pillow)
    daemon.start()
    world.couch.put("later", n=1, text="x")
    daemon.wait_for(lambda: live(daemon))  # the column is there from then on
    daemon.wait_for(lambda: (1, "x") in _rows(world, "n, text"))
    assert _rows(world, "count(*)", "text is null") == [(DOCUMENTS,)], "what was written keeps its form"
    assert daemon.events("pipeline.changed")
    reset(daemon)
    assert _rows(world, "count(*)", "text is null") == [(0,)]
    assert daemon.stop() == 0

    entry["columns"]["n"] = "n text"
    changed(daemon, cases=pillow)
    daemon.start()
    daemon.wait_for(lambda: statuses(daemon).get("cases", {}).get("state") == "failed")
    reason = statuses(daemon)["cases"]["reason"]
    statement = reason[reason.lower().index("alter table") :].split("`")[0].split(";")[0]
    assert daemon.stop() == 0
    with psycopg.connect(world.postgres_dsn, autocommit=True) as admin:
        admin.execute(statement.encode())
    daemon.start()
    daemon.wait_for(lambda: complete(daemon))
    assert daemon.stop() == 0


def _rows(world: World, what: str, where: str = "true") -> list[tuple[Any, ...]]:
    with psycopg.connect(world.postgres_dsn) as reader:
        return reader.execute(f"select {what} from cases where {where}".encode()).fetchall()


def test_a_changed_transform_goes_on_with_one_warning_until_a_reset_rewrites(world: World) -> None:
    daemon = run_once(world, world.pillow("cases", *TARGETS))
    ids = sorted(world.couch.documents())

    changed(daemon, cases=world.pillow("cases", *TARGETS, transform={"set": {"kind": "Case"}}))
    daemon.start()
    world.couch.put(ids[0], n="changed")
    daemon.wait_for(lambda: complete(daemon) and all(_kinds(world, t) == {ids[0]} for t in TARGETS))
    (warning,) = daemon.events("pipeline.changed")
    assert "checkpoint reset cases" in warning["detail"]
    assert statuses(daemon)["cases"]["pipeline_changed_at"]
    assert "made by an older filter or transform" in daemon.command("status").stdout
    assert daemon.stop() == 0

    daemon.start()
    daemon.wait_for(lambda: complete(daemon))
    assert len(daemon.events("pipeline.changed")) == 1, "told once, not at every start"
    assert statuses(daemon)["cases"]["pipeline_changed_at"], "but shown until it is mended"
    reset(daemon)
    assert [_kinds(world, target) for target in TARGETS] == [set(ids)] * len(TARGETS)
    assert not statuses(daemon)["cases"]["pipeline_changed_at"]
    assert call(daemon, "list_pillows")["pillows"][0]["state"] == "live"
    assert daemon.stop() == 0


def test_changed_code_of_a_transform_is_a_changed_transform(world: World) -> None:
    file = world.folder / "kind_rows.py"
    file.write_text("def row(doc):\n    return doc\n")
    pillow = world.pillow("cases", "sqlite", transform={"python": "kind_rows:row"})
    daemon = run_once(world, pillow)

    file.write_text("# the same\n\ndef row(doc):\n    return doc\n")
    daemon.start()
    daemon.wait_for(lambda: complete(daemon))
    assert daemon.events("pipeline.changed") == []
    assert daemon.stop() == 0

    file.write_text("def row(doc):\n    return doc | {'kind': 'Case'}\n")
    daemon.start()
    daemon.wait_for(lambda: complete(daemon))
    assert len(daemon.events("pipeline.changed")) == 1
    assert "made by an older filter or transform" in daemon.command("status").stdout
    reset(daemon)
    assert _kinds(world, "sqlite") == set(world.couch.documents())
    assert daemon.stop() == 0


def _kinds(world: World, target: str) -> set[str]:
    return {id for id, row in world.read(target, "cases").items() if row.body.get("kind") == "Case"}

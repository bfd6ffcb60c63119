"""`pillowd verify`: planted differences are found in every kind of target, and repaired."""

from __future__ import annotations

import itertools
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import pytest
import requests

from tests.acceptance.process import Pillowd
from tests.acceptance.world import TARGETS, World, live
from tests.chaos.lines import FEED, Interception, Line, answer_status
from tests.servers.couch_client import CouchDatabase

DOCUMENTS = 300
#: What is planted: id -> the kind of difference.
PLANTED = {"doc-000010": "missing", "doc-000020": "stale", "doc-000030": "stale", "nobody's": "phantom"}
NONE = {"missing": 0, "stale": 0, "phantom": 0}
OLDER, AHEAD = 1 << 40, (1 << 40) + 99


def plant_sql(execute: Callable[[str], Any], table: str) -> None:
    execute(f"delete from {table} where _id = 'doc-000010'")
    execute(f"update {table} set _version = {OLDER}, doc = '{{}}' where _id = 'doc-000020'")
    execute(f"update {table} set _version = {AHEAD}, doc = '{{}}' where _id = 'doc-000030'")
    execute(f"insert into {table} (_id, _rev, _version, doc) values ('nobody''s', '1-a', {AHEAD}, '{{}}')")


def plant_postgres(world: World) -> None:
    with psycopg.connect(world.postgres_dsn, autocommit=True) as connection:
        plant_sql(connection.execute, "cases")


def plant_sqlite(world: World) -> None:
    with closing(sqlite3.connect(world.sqlite_path, isolation_level=None)) as connection:
        plant_sql(connection.execute, "cases")


def plant_elasticsearch(world: World) -> None:
    url = f"{world.elasticsearch_url}/{world.alias('cases')}"
    requests.delete(f"{url}/_doc/doc-000010", timeout=30).raise_for_status()
    for id in ("doc-000020", "doc-000030", "nobody's"):  # an older version would be refused
        place = f"{url}/_doc/{id}?version={AHEAD}&version_type=external"
        requests.put(place, json={}, timeout=30).raise_for_status()


@pytest.fixture
def copy(couch_db: CouchDatabase) -> Iterator[CouchDatabase]:
    database = CouchDatabase(couch_db.server_url, f"{couch_db.name}-copy", auth=couch_db.auth)
    yield database
    if database.exists():
        database.drop()
    database.close()


def plant_couchdb(copy: CouchDatabase) -> None:
    copy.delete("doc-000010")
    copy.put("doc-000020", copy.get("doc-000020") | {"pillowd_version": OLDER})
    copy.put("doc-000030", copy.get("doc-000030") | {"pillowd_version": AHEAD})
    copy.put("nobody's", {"pillowd_version": AHEAD})
    copy.put("somebody else's", {"n": 1})


def verify(daemon: Pillowd, *options: str) -> tuple[int, dict[str, Any]]:
    done = daemon.command("verify", "cases", "--json", *options)
    assert done.returncode in (0, 3), done.stderr
    return done.returncode, json.loads(done.stdout)


def counts(facts: dict[str, Any]) -> dict[str, dict[str, int]]:
    return {found["target"].partition("/")[0]: found["counts"] for found in facts["targets"]}


def filled(world: World, *targets: str, **settings: Any) -> Pillowd:
    world.couch.fill(DOCUMENTS)
    for n in range(0, 60, 7):
        world.couch.put(f"doc-{n:06}", {"n": -n})
    world.couch.delete("doc-000001")
    world.couch.put("_design/views", {"views": {}})
    daemon = world.pillowd({"cases": world.pillow("cases", *targets, **settings)}).start()
    daemon.wait_for(lambda: live(daemon))
    return daemon


@pytest.mark.parametrize("running", [True, False])
def test_planted_differences_are_found_exactly_and_repaired(world: World, running: bool) -> None:
    daemon = filled(world)
    assert verify(daemon) == (0, verify(daemon)[1] | {"equal": True})
    if not running:
        assert daemon.stop() == 0
    plant_postgres(world)
    plant_sqlite(world)
    plant_elasticsearch(world)

    code, facts = verify(daemon)
    expected = {"missing": 1, "stale": 2, "phantom": 1}
    assert (code, counts(facts)) == (
        3,
        {"postgres": expected, "elasticsearch": expected, "sqlite": expected},
    )
    for found in facts["targets"]:
        planted = {id: kind for kind, ids in found["examples"].items() for id in ids}
        assert planted == PLANTED

    code, facts = verify(daemon, "--repair")
    assert (code, facts["equal"], facts["before_repair"]["equal"]) == (0, True, False)
    assert counts(facts) == {"postgres": NONE, "elasticsearch": NONE, "sqlite": NONE}
    if running:
        daemon.wait_for(lambda: live(daemon))
        world.couch.put("doc-000020", {"n": "later"})
        daemon.wait_for(lambda: not world.differences("cases"))
    assert world.differences("cases") == {}


def test_planted_differences_in_couchdb_are_found_and_repaired(world: World, copy: CouchDatabase) -> None:
    daemon = filled(world, transport=[{"connection": "couch", "database": copy.name}])
    assert verify(daemon)[0] == 0
    plant_couchdb(copy)

    code, facts = verify(daemon)
    assert (code, counts(facts)) == (3, {"couch": {"missing": 1, "stale": 2, "phantom": 1}})
    assert verify(daemon, "--repair")[0] == 0
    assert {id for id in copy.documents() if not id.startswith("_design/")} == {
        *(id for id in world.couch.documents() if not id.startswith("_design/")),
        "somebody else's",
    }


@pytest.mark.parametrize("skip_design", [True, False])
def test_a_replica_keeps_the_design_documents_that_the_source_does_not_tell_of(
    world: World, copy: CouchDatabase, skip_design: bool
) -> None:
    """It keeps its own and, with `skip_design`, those of the source that a replication left there."""
    world.couch.put("_design/views", {"views": {}})
    copy.create()
    copy.put("_design/own", {"views": {}})
    copy.bulk([world.couch.get("_design/views")], new_edits=False)
    replica = {"connection": "couch", "database": copy.name, "mode": "replicate"}
    daemon = filled(world, source={"skip_design": skip_design}, transport=[replica])
    copy.put("nobody's", {"n": 1})
    if not skip_design:
        copy.purge("_design/views")

    code, facts = verify(daemon, "--repair")
    differed = {"missing": int(not skip_design), "stale": 0, "phantom": 1}
    assert (code, counts(facts["before_repair"])) == (0, {"couch": differed})
    assert {"_design/own", "_design/views"} <= copy.documents().keys()
    assert "nobody's" not in copy.documents()


def test_rows_that_rightly_outlive_their_documents_are_counted_apart(world: World) -> None:
    daemon = filled(world, "sqlite", source={"deletes": "ignore", "on_filtered": "ignore"})
    world.couch.delete("doc-000002")
    world.couch.purge("doc-000003")
    code, facts = verify(daemon)
    assert (code, counts(facts)) == (0, {"sqlite": NONE})
    assert facts["targets"][0]["kept"] == 2
    assert "2 in sqlite/cases are kept" in daemon.command("verify", "cases").stdout


def test_what_left_a_server_s_selection_is_no_phantom(world: World) -> None:
    world.couch.put("leaves", {"n": 1, "kind": "a"})
    source = {"selector": {"kind": "a"}, "deletes": "ignore", "on_filtered": "ignore"}
    daemon = filled(world, "sqlite", source=source)
    world.couch.put("leaves", {"n": 2, "kind": "b"})
    code, facts = verify(daemon)
    assert (code, counts(facts), facts["targets"][0]["kept"]) == (0, {"sqlite": NONE}, 1)


def test_an_id_that_postgresql_stores_otherwise_is_no_difference(world: World) -> None:
    world.couch.bulk([{"_id": id, "n": 1} for id in ("a\u0001b", "a\u0000b")])
    daemon = filled(world, "postgres")
    code, facts = verify(daemon)
    assert (code, counts(facts)) == (0, {"postgres": NONE})


BROKEN = """
def rows(doc):
    if doc["n"] % 2:
        raise ValueError("the mill is broken")
    return doc
"""


def test_more_than_a_message_holds_is_verified_and_repaired_beside_the_daemon(world: World) -> None:
    """The ids of the dead letters take 1.1 MB, and so do those of the documents that are sent again."""
    (world.folder / "broken_mill.py").write_text(BROKEN)
    world.couch.bulk([{"_id": f"{n:05}-{'k' * 5500}", "n": n} for n in range(400)])
    pillow = world.pillow("cases", "sqlite", transform={"python": "broken_mill:rows"})
    daemon = world.pillowd({"cases": pillow}).start()
    daemon.wait_for(lambda: live(daemon))
    assert len(daemon.ask("dead-letter", "list", "cases")) == 200

    with closing(sqlite3.connect(world.sqlite_path, isolation_level=None)) as db:
        db.execute("delete from cases")
    code, facts = verify(daemon, "--repair")
    assert counts(facts["before_repair"]) == {"sqlite": NONE | {"missing": 200}}
    assert (code, facts["dead"], counts(facts)) == (0, 200, {"sqlite": NONE})


def test_a_source_that_stays_away_ends_it_as_what_cannot_be_connected_to(world: World) -> None:
    """After a good pass, the feed of the source answers 503 without end."""
    with Line(("127.0.0.1", world.proxy.port)) as line:
        world.connections["couch"]["url"] = line.url
        assert filled(world, "sqlite").stop() == 0
        line.interceptions.append(Interception(FEED, 10**9, answer=answer_status(503)))
        done = world.pillowd({"cases": world.pillow("cases", "sqlite")}).command(
            "verify", "cases", "--wait", "2"
        )
    assert done.returncode == 75, done.stderr
    assert "The source was away for" in done.stderr
    assert "503" in done.stderr
    assert "retrying in" in done.stderr


@pytest.mark.parametrize(
    ("connection", "away"),
    [
        ("couch", {"url": "http://127.0.0.1:9"}),
        ("postgres", {"dsn": "postgresql://nobody@127.0.0.1:9/nothing"}),
    ],
)
def test_a_server_that_is_away_cannot_be_connected_to(
    world: World, connection: str, away: dict[str, str]
) -> None:
    world.connections[connection] |= away
    done = world.pillowd({"cases": world.pillow("cases", "postgres")}).command("verify", "cases")
    assert done.returncode == 75, done.stderr


def test_what_a_filter_keeps_out_is_a_phantom_when_it_is_there(world: World) -> None:
    daemon = filled(world, "sqlite", filter={"jmespath": "doc.n < `0`"})
    assert verify(daemon)[0] == 0
    with closing(sqlite3.connect(world.sqlite_path, isolation_level=None)) as db:
        db.execute(f"insert into cases (_id, _rev, _version, doc) values ('doc-000100', '1-a', {OLDER}, '')")
    code, facts = verify(daemon, "--repair")
    assert (code, counts(facts["before_repair"])) == (0, {"sqlite": NONE | {"phantom": 1}})


def test_beside_a_live_pillow_what_is_written_meanwhile_is_no_difference(world: World) -> None:
    """While somebody creates, changes, deletes and revives without a pause, only what is planted is found."""
    daemon = filled(world)
    child = daemon.child
    with writing(world):
        code, facts = verify(daemon, "--wait", "5")
        assert (code, counts(facts)) == (0, dict.fromkeys(TARGETS, NONE))
        for plant in (plant_postgres, plant_sqlite, plant_elasticsearch):
            plant(world)
        code, facts = verify(daemon, "--wait", "5")
        expected = {"missing": 1, "stale": 2, "phantom": 1}
        assert (code, counts(facts)) == (3, dict.fromkeys(TARGETS, expected))
        code, facts = verify(daemon, "--repair", "--wait", "5")
        assert (code, counts(facts)) == (0, dict.fromkeys(TARGETS, NONE))
    daemon.wait_for(lambda: not world.differences("cases"))
    assert daemon.child is child


@contextmanager
def writing(world: World) -> Iterator[None]:
    """While open, somebody writes into the source without a pause; never what is planted."""
    enough = threading.Event()
    client = CouchDatabase(world.couch.server_url, world.couch.name, auth=world.couch.auth)

    def write() -> None:
        for n in itertools.count():
            client.put(f"doc-{100 + n % 150:06}", {"n": n})
            client.put(f"more-{n % 500}", {"n": n})
            if n % 3 == 0:
                client.delete(f"more-{n % 500}")
            if enough.wait(0.02):
                return

    with ThreadPoolExecutor(1) as pool, closing(client):
        done = pool.submit(write)
        try:
            yield
        finally:
            enough.set()
        done.result()


def test_what_a_stopped_pillow_has_not_passed_is_on_its_way_and_no_difference(world: World) -> None:
    daemon = filled(world, "sqlite")
    assert daemon.stop() == 0
    world.couch.put("later", {"n": 1})
    world.couch.put("doc-000002", {"n": 1})
    code, facts = verify(daemon)
    assert (code, facts["in_flight"], counts(facts)) == (0, 2, {"sqlite": NONE})


def test_a_pillow_that_never_ran_cannot_be_verified(world: World) -> None:
    daemon = world.pillowd({"cases": world.pillow("cases", "sqlite")})
    done = daemon.command("verify", "cases")
    assert done.returncode == 1
    assert "no checkpoint" in done.stderr or "unable to open" in done.stderr


def test_append_only_targets_cannot_be_verified(world: World) -> None:
    world.connections["files"] = {"type": "jsonl", "folder": str(world.folder)}
    daemon = world.pillowd(
        {"cases": world.pillow("cases", transport=[{"connection": "files", "file": "cases.jsonl"}])}
    )
    done = daemon.command("verify", "cases")
    assert done.returncode == 78
    assert "can't be verified (files)" in done.stderr

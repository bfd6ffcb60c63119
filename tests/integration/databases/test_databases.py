"""A pillow on several databases, into real targets."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gevent
import psycopg
import pytest
import requests
from gevent.event import Event

from checkpoints import Checkpoint
from pillows.databases.members import Members
from pillows.verify.repair import repair
from tests.support.databases import Databases, make_config, read_sqlite, running

Target = Callable[[], Mapping[str, Any]]


def sqlite_config(databases: Databases, folder: Path, source: str = "", more: str = "") -> str:
    return make_config(
        databases, f"type: sqlite, path: {folder}/t.sqlite", "table: docs", source=source, more=more
    )


def rows(folder: Path) -> dict[str, Any]:
    return {key: json.loads(doc) for key, doc in read_sqlite(folder / "t.sqlite").items()}


def test_documents_of_all_databases_arrive_under_their_own_keys(databases: Databases, tmp_path: Path) -> None:
    for name in "abc":
        databases.create(name, 3, owner=name)
    with running(sqlite_config(databases, tmp_path), tmp_path) as pillow:
        pillow.until_parked(3)
        databases["a"].put("doc-000001", n=99)
        databases["b"].delete("doc-000002")
        databases.create("d", 2)
        pillow.until(lambda: rows(tmp_path) == databases.documents())
        pillow.until_parked(4)
    assert len(databases.documents()) == 10


def test_a_restart_reads_only_what_has_changed(databases: Databases, tmp_path: Path) -> None:
    config = sqlite_config(databases, tmp_path)
    for number in range(30):
        databases.create(f"{number:02}", 2)
    with running(config, tmp_path) as pillow:
        pillow.until_parked(30)
        gevent.sleep(1.5)  # `_db_updates` reports what happened up to half a second ago
        pillow.until_parked(30)
    for number in (3, 17):
        databases[f"{number:02}"].put("new", n=number)
    with running(config, tmp_path) as pillow:
        pillow.until_parked(30)
        (client,) = [pillow.feeds.find_client(each.options) for each in _couch(pillow.config)]
        assert client is not None
        # The welcome, `_db_updates`, a page of the sweep, two for each database with changes, and the ones
        # that `_db_updates` repeats.
        assert sum(client.outcomes.values()) <= 12
    assert rows(tmp_path) == databases.documents()


def _couch(config: Any) -> list[Any]:
    return [each for each in config.connections.values() if each.type == "couchdb"]


def test_a_deleted_database_keeps_its_rows(
    databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pillows.databases.turn_queue.MISSING_SECONDS", 0.5)
    databases.create("a", 2)
    databases.create("b", 2)
    with running(sqlite_config(databases, tmp_path), tmp_path) as pillow:
        pillow.until_parked(2)
        databases["a"].drop()
        pillow.until(lambda: pillow.states() == {"parked": 1, "deleted": 1})
    assert len(rows(tmp_path)) == 4


def test_a_deleted_database_loses_its_rows_if_that_is_configured(
    databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pillows.databases.turn_queue.MISSING_SECONDS", 0.5)
    databases.create("a", 2)
    databases.create("b", 2)
    config = sqlite_config(databases, tmp_path, ", on_deleted: remove")
    with running(config, tmp_path) as pillow:
        pillow.until_parked(2)
        databases["a"].drop()
        pillow.until(lambda: rows(tmp_path) == databases.documents())
        databases.create("a", 1, again=True)
        pillow.until(lambda: rows(tmp_path) == databases.documents())
        pillow.until_parked(2)
    assert len(rows(tmp_path)) == 3


@pytest.mark.parametrize("on_recreated", ["reload", "fail"])
def test_a_recreated_database_is_read_again_or_fails_alone(
    databases: Databases, tmp_path: Path, on_recreated: str
) -> None:
    databases.create("a", 3)
    databases.create("b", 1)
    config = sqlite_config(databases, tmp_path, f", on_recreated: {on_recreated}")
    with running(config, tmp_path) as pillow:
        pillow.until_parked(2)
        databases["a"].recreate()
        databases["a"].put("other", n=1)
        if on_recreated == "reload":
            pillow.until(lambda: rows(tmp_path) == databases.documents())
            pillow.until_parked(2)
        else:
            pillow.until(lambda: pillow.states() == {"parked": 1, "failed": 1})
            assert "was recreated" in pillow.tail.status_of(f"{databases.prefix}a").reason
        databases["b"].put("more", n=1)
        pillow.until(lambda: f"{databases.prefix}b:more" in rows(tmp_path))


def test_a_reset_reads_every_database_again(databases: Databases, tmp_path: Path) -> None:
    databases.create("a", 2)
    databases.create("b", 2)
    with running(sqlite_config(databases, tmp_path), tmp_path) as pillow:
        pillow.until_parked(2)
        pillow.store.edit(pillow.key, Checkpoint.reset)
        name = f"{databases.prefix}a"
        pillow.until(lambda: (pillow.tail.status().epoch or 0) == 2)
        pillow.until_parked(2)
        assert pillow.tail.status_of(name).epoch == 2
    assert rows(tmp_path) == databases.documents()


def test_an_excluded_database_is_left_out(databases: Databases, tmp_path: Path) -> None:
    databases.create("a", 1)
    databases.create("test-1", 1)
    config = sqlite_config(databases, tmp_path, f', exclude: "{databases.prefix}test-*"')
    with running(config, tmp_path) as pillow:
        pillow.until_parked(1)
    assert list(rows(tmp_path)) == [f"{databases.prefix}a:doc-000000"]


@pytest.mark.parametrize(
    "filter", ["selector: { kind: wanted }", "filter_function: choose/wanted", "design: true"]
)
def test_the_server_may_filter_every_database(databases: Databases, tmp_path: Path, filter: str) -> None:
    design = {"filters": {"wanted": "function (doc) { return doc.kind === 'wanted'; }"}}
    for name in "ab":
        databases.create(name, 2, kind="wanted").fill(2, start=2, kind="other")
        databases[name].put("_design/choose", design)
    ignored = "on_filtered: ignore, deletes: ignore, skip_design: false"
    config = sqlite_config(databases, tmp_path, f", {filter}, {ignored}")
    with running(config, tmp_path) as pillow:
        pillow.until_parked(2)
        databases["a"].put("late", kind="wanted")
        databases["a"].put("other", kind="other")
        if filter != "design: true":
            pillow.until(lambda: f"{databases.prefix}a:late" in rows(tmp_path))
        pillow.until_parked(2)
    wanted = {
        key
        for key, doc in databases.documents().items()
        if (doc.get("kind") == "wanted" if filter != "design: true" else doc["_id"].startswith("_design/"))
    }
    assert rows(tmp_path).keys() == wanted


def test_names_that_need_escapes(databases: Databases, tmp_path: Path) -> None:
    long = "x" * (238 - len(databases.prefix))
    for name in ("a/b", "c+d", "e(f)", "g$h", long):
        databases.create(name, 1)
    with running(sqlite_config(databases, tmp_path), tmp_path) as pillow:
        pillow.until_parked(5)
    assert rows(tmp_path) == databases.documents()


def test_rows_of_many_databases_and_their_checkpoints_commit_together(
    databases: Databases, tmp_path: Path, postgres_dsn: str
) -> None:
    for number in range(40):
        databases.create(f"{number:02}", 3)
    config = make_config(databases, f'type: postgres, dsn: "{postgres_dsn}"', "table: docs")
    with running(config, tmp_path) as pillow:
        pillow.until_parked(40)
        databases["07"].put("doc-000001", n=99)
        databases["08"].delete("doc-000001")
        pillow.until(lambda: read_postgres(postgres_dsn) == databases.documents())
        pillow.until_parked(40)
    with psycopg.connect(postgres_dsn) as db:
        found = db.execute(
            "select count(*), count(distinct c.fence), count(distinct d._source) from docs d"
            " join pillowd_checkpoint c on c.source = d._source"
        ).fetchone()
    assert found == (119, 1, 40)


def read_postgres(dsn: str) -> dict[str, Any]:
    with psycopg.connect(dsn) as db:
        return dict(db.execute("select _id, doc from docs").fetchall())


def test_the_state_directory_may_be_lost_beside_postgresql(
    databases: Databases, tmp_path: Path, postgres_dsn: str
) -> None:
    for name in "abc":
        databases.create(name, 3)
    config = make_config(databases, f'type: postgres, dsn: "{postgres_dsn}"', "table: docs")
    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        with running(config, folder) as pillow:
            pillow.until_parked(3)
            assert pillow.tail.status_of(f"{databases.prefix}a").changes == 3
            assert pillow.tail.status().changes == 9
    assert read_postgres(postgres_dsn) == databases.documents()


def test_a_document_that_cannot_be_written_is_a_dead_letter_of_its_database(
    databases: Databases, tmp_path: Path, postgres_dsn: str
) -> None:
    databases.create("a", 2)
    databases["a"].put("wrong", n="many")
    databases.create("b", 2)
    config = make_config(
        databases, f'type: postgres, dsn: "{postgres_dsn}"', 'table: docs, columns: { n: "n integer" }'
    )
    with running(config, tmp_path) as pillow:
        pillow.until_parked(2)
        status = pillow.tail.status_of(f"{databases.prefix}a")
        assert (status.dead_letters, pillow.tail.status().dead_letters) == (1, 1)
        databases["a"].put("wrong", n=5)
        pillow.until(lambda: pillow.tail.status().dead_letters == 0)
        pillow.until_parked(2)


def read_index(url: str, alias: str) -> dict[str, Any]:
    requests.post(f"{url}/{alias}/_refresh", timeout=30).raise_for_status()
    found = requests.get(f"{url}/{alias}/_search?size=1000", timeout=30).json()["hits"]["hits"]
    return {each["_id"]: each["_source"] for each in found}


def test_an_index_holds_the_source_of_each_document(
    databases: Databases, tmp_path: Path, elasticsearch_url: str, es_prefix: str
) -> None:
    for name in "abc":
        databases.create(name, 3)
    alias = f"{es_prefix}users"
    config = make_config(
        databases,
        f'type: elasticsearch, hosts: ["{elasticsearch_url}"]',
        f"index: {alias}, mapping: {{ dynamic: false }}",
        source=", on_recreated: reload",
    )
    with running(config, tmp_path) as pillow:
        pillow.until_parked(3)
        databases["a"].recreate()
        databases["a"].put("other", n=1)
        pillow.until(lambda: read_index(elasticsearch_url, alias).keys() == databases.documents().keys())
        pillow.until_parked(3)
    for key, document in read_index(elasticsearch_url, alias).items():
        database = key.partition(":")[0]
        assert document.pop("pillowd_source") == f"couch/{database}"
        wanted = databases.documents()[key]
        del wanted["_id"]
        assert document == wanted


def test_each_database_may_have_a_table_of_its_own(
    databases: Databases, tmp_path: Path, postgres_dsn: str
) -> None:
    for name in ("a", "b/c"):
        databases.create(name, 2)
    config = make_config(databases, f'type: postgres, dsn: "{postgres_dsn}"', 'table: "{source}"')
    with running(config, tmp_path) as pillow:
        pillow.until_parked(2)
        databases["a"].put("more", n=1)
        pillow.until(lambda: pillow.tail.status_of(f"{databases.prefix}a").changes == 3)
        pillow.until_parked(2)
    with psycopg.connect(postgres_dsn) as db:
        tables = [
            name
            for (name,) in db.execute(
                "select tablename from pg_tables where tablename like 'user-%' order by 1"
            )
        ]
        counts = [db.execute(f'select count(*) from "{name}"').fetchone() for name in tables]
    assert counts == [(3,), (2,)]
    assert tables[0] == f"{databases.prefix}a"


def test_a_constant_may_hold_the_name_of_the_database(databases: Databases, tmp_path: Path) -> None:
    for name in "ab":
        databases.create(name, 1)
    more = '    transform: { set: { owner: "of {source}" } }\n'
    with running(sqlite_config(databases, tmp_path, more=more), tmp_path) as pillow:
        pillow.until_parked(2)
    for key, row in rows(tmp_path).items():
        assert row["owner"] == f"of {key.partition(':')[0]}"


@pytest.mark.parametrize("target", ["sqlite", "postgres", "elasticsearch"])
def test_a_pattern_may_be_changed(
    request: pytest.FixtureRequest,
    databases: Databases,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
) -> None:
    """More databases are found; the others go on; those that no longer match obey `on_deleted`."""
    for name in ("a1", "a2", "b1"):
        databases.create(name, 2)
    prefix = databases.prefix
    connection, output = f"type: sqlite, path: {tmp_path}/t.sqlite", "table: docs"
    read: Target = lambda: rows(tmp_path)  # noqa: E731
    if target == "postgres":
        dsn = request.getfixturevalue("postgres_dsn")
        connection, read = f'type: postgres, dsn: "{dsn}"', lambda: read_postgres(dsn)
    elif target == "elasticsearch":
        url, alias = request.getfixturevalue("elasticsearch_url"), f"{request.getfixturevalue('es_prefix')}u"
        connection, output = f'type: elasticsearch, hosts: ["{url}"]', f"index: {alias}"
        read = lambda: read_index(url, alias)  # noqa: E731
    config = make_config(databases, connection, output, source=", on_deleted: remove")
    read_names: list[str] = []
    end_turn = Members.end_turn

    def note(members: Members, name: str, result: Any) -> None:
        read_names.append(name.removeprefix(prefix))
        end_turn(members, name, result)

    monkeypatch.setattr(Members, "end_turn", note)

    def run(patterns: str, *wanted: str) -> None:
        with running(config.replace(f'"{prefix}*"', patterns), tmp_path) as pillow:
            documents = {key for key in databases.documents() if key.removeprefix(prefix)[:2] in wanted}
            pillow.until_parked(len(wanted))
            pillow.until(lambda: read().keys() == documents)
            gevent.sleep(1.5)  # `_db_updates` reports what happened up to half a second ago
            pillow.until_parked(len(wanted))

    run(f'"{prefix}a*"', "a1", "a2")
    read_names.clear()
    run(f'["{prefix}a*", "{prefix}b*"]', "a1", "a2", "b1")
    assert "a2" not in read_names, "it is not read again"
    databases["a2"].put("more", n=1)
    run(f'["{prefix}a2", "{prefix}b1"]', "a2", "b1")
    databases["b1"].put("more", n=1)
    read_names.clear()
    run(f'["{prefix}a2", "{prefix}b1"]', "a2", "b1")
    assert "a2" not in read_names
    databases["a1"].put("more", n=1)
    run(f'"{prefix}a*"', "a1", "a2")


@pytest.mark.parametrize("wish", ["pause", "resume"])
def test_a_repair_of_a_database_leaves_the_wishes_of_its_operator(
    databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wish: str
) -> None:
    databases.create("a", 2)
    name = f"{databases.prefix}a"
    with running(sqlite_config(databases, tmp_path), tmp_path) as pillow:
        pillow.until_parked(1)
        began, goes_on = Event(), Event()

        def wait_and_repair(*parts: Any, **more: Any) -> None:
            began.set()
            assert goes_on.wait(60)
            repair(*parts, **more)

        monkeypatch.setattr("pillows.databases.databases_run.repair", wait_and_repair)
        repairing = gevent.spawn(pillow.tail.repair, name, ["doc-000001"])
        assert began.wait(60)
        databases["a"].put("more", n=1)
        getattr(pillow.tail, wish)(name)
        gevent.sleep(0.5)
        runs_beside = pillow.tail.is_active(name)
        goes_on.set()
        repairing.get(timeout=60)
        if wish == "pause":
            assert pillow.states() == {"paused": 1}, "as the operator has asked"
            pillow.tail.resume(name)
        pillow.until(lambda: rows(tmp_path) == databases.documents())
    assert not runs_beside, "no turn runs while its database is repaired"

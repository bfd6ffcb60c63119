"""A pillow on several databases, as an operator sees it: the daemon, its commands and its API."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.acceptance.process import PILLOWD, Pillowd, couchdb
from tests.servers.process import free_port
from tests.support.databases import Databases, read_sqlite

Start = Callable[..., Pillowd]


@pytest.fixture
def start(databases: Databases, tmp_path: Path) -> Iterator[Start]:
    """Starts a daemon whose pillow `users` reads the databases into SQLite."""
    made: list[Pillowd] = []

    def make(
        daemon: dict[str, Any] | None = None, sections: dict[str, Any] | None = None, **source: Any
    ) -> Pillowd:
        server = databases.server
        pillow = {
            "source": {"connection": "couch", "databases": f"{databases.prefix}*", **source},
            "transport": [{"connection": "lite", "table": "docs"}],
        }
        connections = {
            "couch": couchdb(server.url, server.auth),
            "lite": {"type": "sqlite", "path": str(tmp_path / "t.sqlite")},
        }
        made.append(
            Pillowd(
                tmp_path,
                pillows={"users": pillow},
                connections=connections,
                daemon=daemon,
                sections=sections,
            )
        )
        return made[-1]

    yield make
    for each in made:
        each.__exit__()


def ask(daemon: Pillowd, *arguments: str, code: int = 0) -> Any:
    done = daemon.command_here(*arguments, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def states(daemon: Pillowd) -> dict[str, int]:
    counts: dict[str, int] = daemon.status("users")["databases"]
    return counts


def test_commands_show_and_steer_single_databases(start: Start, databases: Databases, tmp_path: Path) -> None:
    for name in "abc":
        databases.create(name, 3)
    daemon = start()
    a = f"users@couch/{databases.prefix}a"
    checked = daemon.command_here("check", "--connect").stdout
    assert "3 databases" in checked
    daemon.start()
    daemon.wait_for(lambda: states(daemon) == {"parked": 3})
    (pillow,) = ask(daemon, "status")["pillows"]
    assert (pillow["state"], pillow["databases"]) == ("live", {"parked": 3})
    assert "3 databases: 3 parked" in daemon.command_here("status").stdout
    assert [each["database"][-1] for each in ask(daemon, "databases", "users")["databases"]] == [
        "a",
        "b",
        "c",
    ]

    ask(daemon, "pause", a)
    databases["a"].put("late", n=1)
    databases["b"].put("late", n=1)
    daemon.wait_for(lambda: f"{databases.prefix}b:late" in read_sqlite(tmp_path / "t.sqlite"))
    assert states(daemon) == {"parked": 2, "paused": 1}
    assert f"{databases.prefix}a:late" not in read_sqlite(tmp_path / "t.sqlite")
    assert ask(daemon, "databases", "users", "--state", "paused")["databases"][0]["key"] == a
    ask(daemon, "resume", a)
    daemon.wait_for(lambda: f"{databases.prefix}a:late" in read_sqlite(tmp_path / "t.sqlite"))

    assert ask(daemon, "checkpoint", "get", a)["changes"] == 4
    ask(daemon, "checkpoint", "reset", a, "--yes")
    daemon.wait_for(lambda: ask(daemon, "checkpoint", "get", a)["epoch"] == 2)
    assert daemon.command_here("checkpoint", "rewind", "users", "--to", "beginning", "--yes").returncode != 0
    shown = daemon.command_here("preview", a, "--id", "late").stdout
    assert f"{databases.prefix}a:late" in shown
    assert "name one" in daemon.command_here("preview", "users").stderr
    assert "did you mean" in daemon.command_here("databases", "user").stderr


def test_the_status_counts_changes_before_they_are_saved(start: Start, databases: Databases) -> None:
    for name in "abc":
        databases.create(name, 3)
    daemon = start(sections={"checkpoints": {"interval": "5m"}})
    daemon.start()
    daemon.wait_for(lambda: daemon.status("users")["changes"] == 9)


def test_verify_goes_from_database_to_database_and_repairs_one(
    start: Start, databases: Databases, tmp_path: Path
) -> None:
    for name in "abc":
        databases.create(name, 20)
    daemon = start().start()
    daemon.wait_for(lambda: states(daemon) == {"parked": 3})
    assert ask(daemon, "verify", "users")["documents"] == 60
    b = f"{databases.prefix}b"
    with closing(sqlite3.connect(tmp_path / "t.sqlite", isolation_level=None)) as db:
        db.execute("delete from docs where _id = ?", (f"{b}:doc-000007",))
        db.execute("update docs set doc = '{}' where _id = ?", (f"{b}:doc-000008",))
    found = ask(daemon, "verify", "users", "--content", code=3)
    (target,) = found["targets"]
    assert target["examples"]["missing"] == [f"{b}:doc-000007"]
    assert target["examples"]["altered"] == [f"{b}:doc-000008"]
    assert ask(daemon, "verify", "users", "--after", b)["documents"] == 20
    assert ask(daemon, "verify", f"users@couch/{b}", "--content", "--repair")["equal"]
    assert ask(daemon, "verify", "users", "--content")["equal"]


def test_documents_of_one_database_are_sent_again(start: Start, databases: Databases, tmp_path: Path) -> None:
    for name in "ab":
        databases.create(name, 30)
    daemon = start().start()
    daemon.wait_for(lambda: states(daemon) == {"parked": 2})
    a = f"users@couch/{databases.prefix}a"
    gone = [f"{databases.prefix}{name}:doc-000007" for name in "ab"]
    with closing(sqlite3.connect(tmp_path / "t.sqlite", isolation_level=None)) as db:
        db.executemany("delete from docs where _id = ?", [(key,) for key in gone])
    done = ask(daemon, "backfill", a, "--prefix", "doc-", "--yes")
    assert (done["state"], done["documents"], done["done"]) == ("done", 30, 30)
    assert databases.documents().keys() - read_sqlite(tmp_path / "t.sqlite").keys() == {gone[1]}
    daemon.wait_for(lambda: states(daemon) == {"parked": 2})
    assert "name one" in daemon.command_here("backfill", "users", "--prefix", "doc-", "--yes").stderr
    assert daemon.stop() == 0
    refused = ask(daemon, "backfill", a, "--prefix", "doc-", "--yes", code=1)
    assert "start the daemon" in refused["reason"]


def test_dead_letters_of_all_databases_are_listed_and_retried_together(
    start: Start, databases: Databases
) -> None:
    for name in "ab":
        databases.create(name, 1)
    daemon = start()
    daemon.settings["pillows"]["users"]["transport"][0]["columns"] = {"n": "n integer"}
    daemon.config.write_text(json.dumps(daemon.settings))
    for name in "ab":
        databases[name].put("wrong", n="many")
    daemon.start()
    daemon.wait_for(lambda: states(daemon) == {"parked": 2})
    listed = ask(daemon, "dead-letter", "list", "users")
    assert {each["pillow"][-1] for each in listed} == {"a", "b"}
    assert len(ask(daemon, "dead-letter", "list", f"users@couch/{databases.prefix}a")) == 1
    assert ask(daemon, "dead-letter", "retry", "users", "--all")["retried"] == 2


def test_the_read_only_listener_serves_databases_and_counts(start: Start, databases: Databases) -> None:
    for name in "ab":
        databases.create(name, 1)
    port = free_port()
    daemon = start({"http": {"listen": f"127.0.0.1:{port}"}}).start()
    daemon.wait_for(lambda: states(daemon) == {"parked": 2})
    url = f"http://127.0.0.1:{port}"
    page = requests.get(f"{url}/v1/pillows/users/databases?limit=1", timeout=30).json()
    assert page["next"] == page["databases"][0]["database"] == f"{databases.prefix}a"
    rest = requests.get(
        f"{url}/v1/pillows/users/databases", params={"after": page["next"]}, timeout=30
    ).json()
    assert ([each["database"][-1] for each in rest["databases"]], rest["next"]) == (["b"], None)
    metrics = requests.get(f"{url}/metrics", timeout=30).text
    found = [line for line in metrics.splitlines() if line.startswith("pillowd_databases{")]
    assert found[0].startswith('pillowd_databases{pillow="users",state="parked"} 2'), found
    assert f"{databases.prefix}a" not in metrics
    assert requests.get(f"{url}/v1/pillows/users", timeout=30).json()["worst_databases"] == []


def test_a_mirror_copies_several_databases(databases: Databases, tmp_path: Path) -> None:
    for name in "ab":
        databases.create(name, 3)
    url = f"{databases.server.url}/{databases.prefix}*"
    if databases.server.auth:
        url = url.replace("://", f"://{':'.join(databases.server.auth)}@")
    command = [*PILLOWD, "mirror", url, f"sqlite:///{tmp_path}/t.sqlite", "--name", "users", "--once"]
    done = subprocess.run(
        [*command, "--state-dir", str(tmp_path / "state")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_sqlite(tmp_path / "t.sqlite", "users").keys() == databases.documents().keys()

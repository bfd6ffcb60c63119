"""Servers and proxies that lack a request: one warning with the remedy, and a way that still works."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.servers.couchdb.process import CouchDB
from tests.support.databases import Databases, make_config, read_sqlite, running
from tests.support.recorder import Recorder

#: The request and the answer that a server, or a proxy in between, gives to it.
Refused = tuple[str, str, int, str]

NO_DB_UPDATES: Refused = ("GET", "/_db_updates", 404, "Database does not exist.")
NO_GET_DBS_INFO: Refused = ("GET", "/_dbs_info", 405, "Only POST allowed")
NO_DBS_INFO: Refused = (".*", "/_dbs_info", 400, "Name: '_dbs_info'. Only lowercase characters")
HIDDEN_DBS_INFO: Refused = (".*", "/_dbs_info", 403, "Forbidden")
HIDDEN_DB_UPDATES: Refused = ("GET", "/_db_updates", 403, "Forbidden")
HIDDEN_ALL_DBS: Refused = ("GET", "/_all_dbs", 403, "Forbidden")
BROKEN_DB_UPDATES: Refused = ("GET", "/_db_updates", 502, "Bad Gateway")


@dataclass(frozen=True, slots=True)
class Odd:
    """A server that lacks something.

    Attributes:
        refused: what it refuses.
        said: what the warning names.
    """

    refused: Sequence[Refused]
    said: Sequence[str]


ODD = {
    "no _global_changes": Odd([NO_DB_UPDATES], ["create the database `_global_changes`", "every 1 s"]),
    "2.x": Odd([NO_GET_DBS_INFO], ["no `GET /_dbs_info`", "upgrade", "`POST /_dbs_info`"]),
    "1.x": Odd([NO_DBS_INFO, NO_DB_UPDATES], ["no `_dbs_info`", "`_db_updates`", "upgrade", "by itself"]),
    "a proxy that passes _all_dbs": Odd([HIDDEN_DBS_INFO, HIDDEN_DB_UPDATES], ["pass it", "by itself"]),
    "a proxy that breaks _db_updates": Odd([BROKEN_DB_UPDATES], ["again and again", "proxies"]),
}


@pytest.fixture(scope="module")
def server() -> Iterator[CouchDB]:
    with CouchDB(memory=True) as server:
        server_url, auth = server.url, server.auth
        requests.put(f"{server_url}/_global_changes", auth=auth, timeout=30).raise_for_status()
        yield server


@pytest.fixture
def odd(server: CouchDB) -> Iterator[Callable[..., Databases]]:
    """Makes the server odd; returns two of its databases."""
    made: list[Databases] = []

    def make(*refused: Refused) -> Databases:
        made.append(Databases(server, f"user-{uuid.uuid4().hex[:8]}-"))
        for name in "ab":
            made[-1].create(name, 2).request("PUT", "/_security", json={})  # for every user
        for method, path, status, reason in refused:
            answer = {"status": status, "error": "refused", "reason": reason, "times": 0}
            server.fail(does="answer", method=method, path=path, **answer)
        return made[-1]

    yield make
    server.heal()
    for each in made:
        each.drop()


def config_of(
    databases: Databases, folder: Path, source: str = "", auth: tuple[str, str] | None = None
) -> str:
    config = make_config(
        databases, f"type: sqlite, path: {folder}/t.sqlite", "table: docs", source=f", poll: 1s{source}"
    )
    if auth is not None:
        admin, password = databases.server.auth
        config = config.replace(f'"{admin}", password: "{password}"', f'"{auth[0]}", password: "{auth[1]}"')
    return config


def keys(folder: Path) -> set[str]:
    return set(read_sqlite(folder / "t.sqlite"))


def limits(recorder: Recorder) -> list[str]:
    """Return the texts of the warnings of what the server lacks."""
    warnings = [each for each in recorder.of("warning") if each["event"] == "source.limited"]
    return [f"{each['details']['error']} {each['details']['instead']}" for each in warnings]


@pytest.mark.parametrize("name", ODD)
def test_what_a_server_lacks_is_said_once_and_done_otherwise(
    odd: Callable[..., Databases], tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pillows.databases.watch.SWEEP_REQUESTS_PER_SECOND", 500.0)
    monkeypatch.setattr("pillows.databases.watch.FAILURES_IN_A_ROW", 1)
    databases, recorder = odd(*ODD[name].refused), Recorder()
    with running(config_of(databases, tmp_path), tmp_path, observer=recorder) as pillow:
        pillow.until_parked(2)
        databases["a"].put("late", n=1)
        databases.create("c", 1)
        pillow.until(lambda: keys(tmp_path) == databases.documents().keys())
        pillow.until_parked(3)
    (limit,) = limits(recorder)
    assert "Remedy: " in limit
    assert all(words in limit for words in ODD[name].said), limit


def test_a_server_that_lacks_nothing_is_not_warned_of(odd: Callable[..., Databases], tmp_path: Path) -> None:
    databases, recorder = odd(), Recorder()
    with running(config_of(databases, tmp_path), tmp_path, observer=recorder) as pillow:
        pillow.until_parked(2)
    assert limits(recorder) == []


def test_updates_that_hang_hold_up_no_sweep(
    odd: Callable[..., Databases], server: CouchDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pillows.databases.watch.BEGIN_SECONDS", 0.2)
    databases = odd()
    server.fail(does="silence", path="/_db_updates", seconds=60, times=0)
    with running(config_of(databases, tmp_path), tmp_path, ends_by_kill=True) as pillow:
        pillow.until_parked(2, seconds=20)
    assert keys(tmp_path) == databases.documents().keys()


# --- users without rights


@pytest.fixture
def member(server: CouchDB) -> tuple[str, str]:
    """A user who is no administrator."""
    user = {"_id": "org.couchdb.user:reader", "name": "reader", "password": "reads", "roles": []}
    answer = requests.put(
        f"{server.url}/_users/{user['_id']}", json={**user, "type": "user"}, auth=server.auth, timeout=30
    )
    assert answer.status_code in (201, 409)
    return "reader", "reads"


@pytest.fixture
def listing_for_all(server: CouchDB) -> Iterator[Callable[[], Any]]:
    """Lets the server list its databases for everybody."""
    url = f"{server.url}/_node/_local/_config/chttpd/admin_only_all_dbs"
    yield lambda: requests.put(url, json="false", auth=server.auth, timeout=30).raise_for_status()
    requests.delete(url, auth=server.auth, timeout=30)


def test_whoever_is_no_administrator_reads_what_is_written_out(
    odd: Callable[..., Databases], member: tuple[str, str], tmp_path: Path
) -> None:
    databases, recorder = odd(), Recorder()
    config = config_of(databases, tmp_path, auth=member)
    names = ", ".join(f'"{databases.prefix}{name}"' for name in "abc")
    config = config.replace(f'databases: "{databases.prefix}*"', f"databases: [{names}]")
    with running(config, tmp_path, observer=recorder) as pillow:
        pillow.until_parked(2)
        databases["a"].put("late", n=1)
        databases.create("c", 1).request("PUT", "/_security", json={})
        pillow.until(lambda: keys(tmp_path) == databases.documents().keys())
    (limit,) = limits(recorder)
    for words in ("make the user a server administrator", "admin_only_all_dbs", "known by name", "every 1 s"):
        assert words in limit


def test_a_pattern_without_the_right_to_list_waits_for_it(
    odd: Callable[..., Databases],
    member: tuple[str, str],
    listing_for_all: Callable[[], Any],
    tmp_path: Path,
) -> None:
    databases, recorder = odd(), Recorder()
    with running(config_of(databases, tmp_path, auth=member), tmp_path, observer=recorder) as pillow:
        pillow.until(lambda: "make the user a server administrator" in pillow.tail.status().reason)
        assert pillow.tail.status().state == "backing-off"
        listing_for_all()
        pillow.until_parked(2)
        databases.create("c", 1).request("PUT", "/_security", json={})
        pillow.until_parked(3)
    (limit,) = limits(recorder)
    assert "`_db_updates` to administrators only" in limit
    assert keys(tmp_path) == databases.documents().keys()


def test_a_proxy_that_lists_nothing_leaves_the_databases_that_are_known(
    odd: Callable[..., Databases], server: CouchDB, tmp_path: Path
) -> None:
    databases, recorder = odd(), Recorder()
    with running(config_of(databases, tmp_path), tmp_path) as pillow:
        pillow.until_parked(2)
    for method, path, status, reason in (HIDDEN_DBS_INFO, HIDDEN_ALL_DBS, HIDDEN_DB_UPDATES):
        server.fail(does="answer", method=method, path=path, status=status, reason=reason, times=0)
    with running(config_of(databases, tmp_path), tmp_path, observer=recorder) as pillow:
        databases["a"].put("late", n=1)
        pillow.until(lambda: f"{databases.prefix}a:late" in keys(tmp_path))
        pillow.until_parked(2)
    (limit,) = limits(recorder)
    assert "known by name" in limit


def test_a_wildcard_leaves_out_the_databases_of_couchdb_itself(
    odd: Callable[..., Databases], member: tuple[str, str], tmp_path: Path
) -> None:
    databases = odd()
    everything = config_of(databases, tmp_path).replace(f'"{databases.prefix}*"', '"*"')
    with running(everything, tmp_path) as pillow:
        pillow.until_parked(2)
        assert not [name for name, _ in pillow.tail.list_databases() if name.startswith("_")]
    assert keys(tmp_path) == databases.documents().keys()
    (tmp_path / "users").mkdir()
    written_out = config_of(databases, tmp_path / "users").replace(
        f'"{databases.prefix}*"', '["*", "_users"]'
    )
    with running(written_out, tmp_path / "users") as pillow:
        pillow.until_parked(3)
    assert f"_users:org.couchdb.user:{member[0]}" in keys(tmp_path / "users")

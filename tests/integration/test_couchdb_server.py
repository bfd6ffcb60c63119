"""The tests' CouchDB is like a cluster, fails when it is told to, and survives being killed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest
import requests

from tests.servers.couch_client import CouchDatabase
from tests.servers.couchdb.process import CouchDB

LARGEST_ROW_MICROSECONDS = 40
LARGEST_MIB = 200


@pytest.fixture(scope="module")
def server() -> Iterator[CouchDB]:
    with CouchDB(memory=True) as couch:
        yield couch


@pytest.fixture
def database(server: CouchDB) -> Iterator[CouchDatabase]:
    client = CouchDatabase(server.url, "cluster", auth=server.auth).create()
    yield client
    server.heal()
    client.drop()
    client.close()


def ids(answer: dict) -> list[str]:
    return [row["id"] for row in answer["results"]]


# --- like a cluster


def test_tokens_have_another_text_at_each_request(database: CouchDatabase) -> None:
    """Two tokens of one state are never equal. `update_seq` keeps one text while nothing is written."""
    database.fill(10)
    tokens = [database.changes()["last_seq"] for _ in range(20)]
    assert len(set(tokens)) == 20

    (update_seq,) = {database.info()["update_seq"] for _ in range(20)}
    assert update_seq not in tokens
    tokens.append(update_seq)
    assert all(database.changes(since=token)["results"] == [] for token in tokens)


def test_shards_are_merged_in_another_order_at_each_request(database: CouchDatabase) -> None:
    """Rows of two shards come in any order, and each shard keeps its own."""
    written = database.fill(40)
    orders = [tuple(ids(database.changes())) for _ in range(10)]

    assert len(set(orders)) > 1
    assert all(sorted(order) == written for order in orders)
    assert orders[0] != tuple(written)


def test_pages_give_every_document_once(database: CouchDatabase) -> None:
    """A token in the middle of a merge goes on exactly there, whatever the order of the next page."""
    written = database.fill(100)
    seen: list[str] = []
    page = database.changes(limit=7)
    while page["results"]:
        seen += ids(page)
        page = database.changes(limit=7, since=page["last_seq"])

    assert sorted(seen) == written


def test_token_of_any_row_goes_on_behind_it(database: CouchDatabase) -> None:
    """The token of a row stands for all rows before it and for no other."""
    database.fill(30)
    rows = database.changes()["results"]
    for number, row in enumerate(rows):
        rest = ids(database.changes(since=row["seq"]))
        assert sorted(rest) == sorted(one["id"] for one in rows[number + 1 :])


# --- faults


def test_lagging_copy_shows_documents_as_they_were(server: CouchDB, database: CouchDatabase) -> None:
    """A row of a copy that lags has the revision before the last one."""
    first = database.put("a", n=1)
    second = database.put("a", n=2)
    server.fail(does="lag", path="/cluster/_changes")
    (old,), (new,) = (database.changes(include_docs=True)["results"] for _ in range(2))

    assert (old["changes"][0]["rev"], old["doc"]["n"]) == (first, 1)
    assert (new["changes"][0]["rev"], new["doc"]["n"]) == (second, 2)


@pytest.mark.parametrize("shard", [None, 0, 1])
def test_feed_is_rewound(server: CouchDB, database: CouchDatabase, shard: int | None) -> None:
    """All rows come again, or those of one shard."""
    database.fill(40)
    token = database.changes()["last_seq"]
    server.fail(does="rewind", path="/cluster/_changes", shard=shard)
    again, nothing = (database.changes(since=token)["results"] for _ in range(2))

    assert nothing == []
    assert len(again) == 40 if shard is None else 0 < len(again) < 40


def test_second_head_comes_in_a_chunk(server: CouchDB, database: CouchDatabase) -> None:
    """A client sees a chunk without a length, and after it the server is silent."""
    database.fill(10)
    server.fail(does="second_head", path="/cluster/_changes", after=200)
    response = requests.get(f"{database.url}/_changes", auth=server.auth, stream=True, timeout=5)

    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        list(response.iter_content(1))
    assert response.status_code == 200


def test_feed_ends_without_a_last_chunk(server: CouchDB, database: CouchDatabase) -> None:
    """The connection closes in the middle of the body."""
    database.fill(10)
    server.fail(does="bare_end", path="/cluster/_changes", after=200)
    response = requests.get(f"{database.url}/_changes", auth=server.auth, stream=True, timeout=5)

    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        list(response.iter_content(1))


def test_feed_is_cut_cleanly(server: CouchDB, database: CouchDatabase) -> None:
    """The body ends in order, and half a row is in it."""
    database.fill(10)
    server.fail(does="clean_cut", path="/cluster/_changes", after=200)
    response = requests.get(f"{database.url}/_changes", auth=server.auth, timeout=5)

    assert len(response.content) == 200


def test_silence_comes_before_500(server: CouchDB, database: CouchDatabase) -> None:
    """No head comes for a while."""
    server.fail(does="silence", path="/cluster/_changes", seconds=0.3)
    began = time.monotonic()
    response = requests.get(f"{database.url}/_changes", auth=server.auth, timeout=5)

    assert time.monotonic() - began >= 0.3
    assert (response.status_code, response.json()) == (500, {"error": "error", "reason": "timeout"})


def test_requests_are_refused_as_often_as_ordered(server: CouchDB, database: CouchDatabase) -> None:
    """Two of three requests get the answer of a cluster whose node is down."""
    server.fail(does="answer", path="/cluster", times=2)
    answers = [requests.get(database.url, auth=server.auth, timeout=5) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [500, 500, 200]
    assert answers[0].json() == {"error": "nodedown", "reason": "progress not possible"}


def test_unknown_fault_is_refused(server: CouchDB) -> None:
    """A misspelt fault is an error of the test."""
    with pytest.raises(requests.HTTPError):
        server.fail(does="explode")


# --- the disk


def test_everything_survives_a_kill(couch_server: Callable[..., CouchDB]) -> None:
    """After SIGKILL the server still has all that it confirmed: revisions, conflicts, tokens, settings."""
    server = couch_server()
    database = CouchDatabase(server.url, "kept", auth=server.auth).create()
    database.fill(20)
    database.put("doc-000003", n="again")
    database.delete("doc-000004")
    database.leaf("doc-000005", "2-bb", "1-aa", v="conflict")
    database.purge("doc-000006")
    database.put("_local/checkpoint", seq="x")
    database.request("PUT", "/_revs_limit", data="7")
    token = database.changes()["last_seq"]
    before = [_state(database), ids_in_order(database)]
    server.kill()
    server.start()

    assert [_state(database), ids_in_order(database)] == before
    assert database.changes(since=token)["results"] == []
    database.put("later")
    assert ids(database.changes(since=token)) == ["later"]


def test_compaction_keeps_everything_but_old_bodies(couch_server: Callable[..., CouchDB]) -> None:
    """A compacted database is the same after a restart; the body of an old revision is not there."""
    server = couch_server()
    database = CouchDatabase(server.url, "kept", auth=server.auth).create()
    old = database.put("a", n=1)
    database.put("a", n=2)
    database.fill(5)
    before = _state(database)
    database.request("POST", "/_compact", json={})
    server.restart()

    assert _state(database) == before
    with pytest.raises(requests.HTTPError):
        database.get("a", rev=old)


def ids_in_order(database: CouchDatabase) -> list[str]:
    return [row["id"] for row in database.request("GET", "/_all_docs").json()["rows"]]


def _state(database: CouchDatabase) -> object:
    info = database.info()
    rows = sorted(
        json.dumps([row["id"], row["changes"], row["doc"]])
        for row in database.changes(style="all_docs", include_docs=True, conflicts=True)["results"]
    )
    counts = [info[name] for name in ("doc_count", "doc_del_count", "instance_start_time")]
    purged = database.request("GET", "/_purged_infos").json()
    limit = database.request("GET", "/_revs_limit").json()
    local = database.request("GET", "/_local_docs").json()["rows"]
    return [rows, counts, purged, limit, local, info["purge_seq"].partition("-")[0]]


def test_feed_sees_a_write_at_once(database: CouchDatabase) -> None:
    """A continuous feed wakes for each write and gives it once."""
    seen: list[str] = []

    def follow() -> None:
        seen.extend(line["id"] for line in database.stream(timeout=1000) if "id" in line)

    feed = gevent.spawn(follow)
    gevent.sleep(0.2)
    for number in range(20):
        CouchDatabase(database.server_url, database.name, auth=database.auth).put(f"live-{number:02}")
    feed.get(timeout=30)

    assert sorted(seen) == [f"live-{number:02}" for number in range(20)]


# --- figures


@pytest.mark.proof
def test_feed_of_200_000_documents_is_fast_and_small(couch_server: Callable[..., CouchDB]) -> None:
    """A row with a document of 500 bytes costs 40 us of CPU at most, and all of them 200 MiB of memory."""
    server = couch_server()
    database = CouchDatabase(server.url, "large", auth=server.auth).create()
    count = 200_000
    database.bulk({"_id": f"doc-{n:08}", "n": n, "text": "x" * 465} for n in range(count))
    before = _cpu_seconds(server)
    response = database.request("GET", "/_changes", params={"include_docs": "true"}, stream=True)
    size = sum(map(len, response.iter_content(2**20)))

    assert size > count * 500
    assert (_cpu_seconds(server) - before) / count * 1e6 <= LARGEST_ROW_MICROSECONDS
    assert _resident_mib(server) <= LARGEST_MIB


def _cpu_seconds(server: CouchDB) -> float:
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident_mib(server: CouchDB) -> float:
    pages = int(Path(f"/proc/{server.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

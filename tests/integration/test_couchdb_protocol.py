"""CouchDB does what its readers count on: that of the tests, and one that PILLOWD_TEST_COUCHDB_URL names.

`test_recordings.py` compares every byte of many answers; these are the promises behind them.
"""

from __future__ import annotations

import json
import time

import gevent
import pytest
import requests

from tests.servers.couch_client import CouchDatabase


def seqs(rows):
    return [n for n, row in enumerate(rows, start=1) if row["seq"] is not None]


def raw_changes(couch_db, **params):
    return couch_db.request("GET", "/_changes", params=params).content


# --- the bytes of a feed


def test_normal_feed_is_framed_as_by_couchdb(couch_db):
    couch_db.fill(3)
    body = raw_changes(couch_db)

    assert body.startswith(b'{"results":[\n{"seq":"')
    assert body.count(b",\r\n") == 2
    assert b'\n],\n"last_seq":"' in body
    assert body.endswith(b'","pending":0}\n\n')
    assert list(json.loads(body)["results"][0]) == ["seq", "id", "changes"]


def test_continuous_feed_ends_with_last_seq(couch_db):
    couch_db.fill(2)
    lines = raw_changes(couch_db, feed="continuous", timeout=50).split(b"\n")

    ids = [json.loads(line)["id"] for line in lines if b'"id"' in line]
    assert sorted(ids) == ["doc-000000", "doc-000001"]
    last, *blank = lines[-3:]
    assert list(json.loads(last)) == ["last_seq", "pending"]
    assert blank == [b"", b""]


def test_continuous_feed_ends_at_its_limit(couch_db):
    couch_db.fill(5)
    lines = list(couch_db.stream(limit=3))

    assert len({line["id"] for line in lines[:3]}) == 3
    assert "id" not in lines[3]
    assert lines[-1]["pending"] == 2


def test_longpoll_waits_for_a_write(couch_db):
    token = couch_db.changes()["last_seq"]
    waiting = gevent.spawn(couch_db.changes, feed="longpoll", since=token, timeout=10_000)
    gevent.sleep(0.1)
    assert not waiting.ready()
    couch_db.put("a")

    assert [row["id"] for row in waiting.get(timeout=60)["results"]] == ["a"]


def test_longpoll_times_out_with_nothing(couch_db):
    answer = couch_db.changes(feed="longpoll", timeout=50)

    assert answer["results"] == []
    assert answer["pending"] == 0


def test_heartbeats_switch_the_timeout_off(couch_db):
    with couch_db.request(
        "GET", "/_changes", params={"feed": "continuous", "heartbeat": 50, "timeout": 1}, stream=True
    ) as response:
        content = response.iter_content(1)
        beats = [next(content) for _ in range(5)]

    assert beats == [b"\n"] * 5


def test_eventsource_gives_ids(couch_db):
    couch_db.put("a")
    text = raw_changes(couch_db, feed="eventsource", timeout=50).decode()

    assert text.startswith('data: {"seq":"')
    assert '\nid: "' in text


def test_a_continuous_feed_sees_every_write(couch_db):
    seen = []

    def follow():
        seen.extend(line["id"] for line in couch_db.stream(limit=200, heartbeat=1000) if "id" in line)

    following = gevent.spawn(follow)
    for n in range(200):
        couch_db.bulk([{"_id": f"{n}"}])
    following.get(timeout=60)

    assert sorted(seen, key=int) == [f"{n}" for n in range(200)]


# --- rows


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"seq_interval": 3}, [2, 5, 8]),  # without a limit it counts down from 10^15
        ({"seq_interval": 10}, [1]),
        ({"seq_interval": 3, "limit": 9}, [1, 4, 7]),
        ({"seq_interval": 9, "limit": 9}, [1]),
        ({"seq_interval": 10, "limit": 7}, []),
        ({"limit": 3}, [1, 2, 3]),
    ],
)
def test_seq_interval_leaves_out_seqs(couch_db, params, expected):
    couch_db.fill(9)

    assert seqs(couch_db.changes(**params)["results"]) == expected


def test_seq_interval_counts_on_when_the_feed_wakes_up(couch_db):
    def write():
        for n in range(8):
            gevent.sleep(0.02)
            couch_db.put(f"{n}")

    writing = gevent.spawn(write)
    rows = list(couch_db.stream(seq_interval=3, timeout=2000))[:-1]
    writing.get()

    assert seqs(rows) == [2, 5, 8]


def test_all_docs_goes_beyond_latin_letters(couch_db):
    ids = ["a", "é", "Ж", "\uffee"]
    couch_db.bulk({"_id": id} for id in ids)
    rows = couch_db.request("POST", "/_all_docs", json={"startkey": "b"}).json()["rows"]
    assert [row["id"] for row in rows] == ids[1:]


def test_all_docs_style_lists_the_winner_first_and_deleted_leaves_too(couch_db):
    couch_db.leaf("x", "2-cc", "1-aa")
    couch_db.leaf("x", "4-ee", "3-dd", "2-bb", "1-aa")
    couch_db.leaf("x", "5-ff", "4-ee", "3-dd", "2-bb", "1-aa", deleted=True)
    (row,) = couch_db.changes(style="all_docs")["results"]

    assert [leaf["rev"] for leaf in row["changes"]] == ["2-cc", "5-ff"]
    assert "deleted" not in row


def test_all_docs_style_of_conflicts_and_of_all_deleted(couch_db):
    couch_db.leaf("x", "2-bb", "1-aa")
    couch_db.leaf("x", "2-cc", "1-aa")
    (conflict,) = couch_db.changes(style="all_docs", include_docs=True)["results"]
    couch_db.leaf("x", "3-11", "2-bb", "1-aa", deleted=True)
    couch_db.leaf("x", "3-22", "2-cc", "1-aa", deleted=True)
    (gone,) = couch_db.changes(style="all_docs")["results"]

    assert [leaf["rev"] for leaf in conflict["changes"]] == ["2-cc", "2-bb"]
    assert conflict["doc"]["_rev"] == "2-cc"
    assert [leaf["rev"] for leaf in gone["changes"]] == ["3-22", "3-11"]
    assert gone["deleted"] is True


def test_a_losing_leaf_emits_a_row_with_the_same_winner(couch_db):
    couch_db.leaf("x", "3-cc", "2-bb", "1-aa")
    token = couch_db.changes()["last_seq"]
    couch_db.leaf("x", "2-dd", "1-aa")
    (row,) = couch_db.changes(since=token, style="all_docs")["results"]

    assert [leaf["rev"] for leaf in row["changes"]] == ["3-cc", "2-dd"]


def test_a_document_is_in_the_feed_once_at_its_last_write(couch_db):
    couch_db.put("a")
    couch_db.put("b")
    couch_db.put("a", n=2)

    assert sorted(row["id"] for row in couch_db.changes()["results"]) == ["a", "b"]


def test_tombstones_keep_their_fields(couch_db):
    rev = couch_db.put("a", n=1)
    couch_db.bulk([{"_id": "a", "_rev": rev, "_deleted": True, "why": "left"}])
    couch_db.put("b")
    couch_db.delete("b")
    rows = {row["id"]: row for row in couch_db.changes(include_docs=True)["results"]}

    assert (rows["a"]["deleted"], rows["a"]["doc"]["_deleted"], rows["a"]["doc"]["why"]) == (
        True,
        True,
        "left",
    )
    assert sorted(rows["b"]["doc"]) == ["_deleted", "_id", "_rev"]


# --- positions


def test_tokens_are_opaque(couch_db):
    couch_db.fill(3)
    rows = couch_db.changes()["results"]
    opaque = rows[1]["seq"].partition("-")[2]

    for token in (f"999-{opaque}", f"0-{opaque}", opaque):
        assert [row["id"] for row in couch_db.changes(since=token)["results"]] == [rows[2]["id"]]


@pytest.mark.parametrize("token", ["garbage", "5", "3-", "0-", "", '"0"', "-1", "null", "1-g1AAAA"])
def test_malformed_tokens_are_refused(couch_db, token):
    response = requests.get(
        f"{couch_db.url}/_changes", params={"since": token}, auth=couch_db.auth, timeout=5
    )

    assert response.status_code == 400
    assert response.json()["reason"] == "Malformed sequence supplied in 'since' parameter."


def test_another_databases_token_begins_anew_without_a_word(couch, couch_db):
    couch_db.fill(3)
    token = couch_db.changes()["last_seq"]
    before = couch_db.info()["instance_start_time"]
    couch_db.recreate()
    couch_db.fill(2)

    assert len(couch_db.changes(since=token)["results"]) == 2
    assert couch_db.info()["instance_start_time"] != before


def test_limit_zero_tells_what_is_pending(couch_db):
    ids = couch_db.fill(5)
    page = couch_db.changes(limit=2)
    seen = {row["id"] for row in page["results"]}
    couch_db.put(min(set(ids) - seen), n=9)  # moves to the end: still three after the token
    couch_db.put(min(seen), n=9)  # one more
    probe = couch_db.changes(since=page["last_seq"], limit=0)

    assert probe["results"] == []
    assert probe["pending"] == 4
    assert len(couch_db.changes(since=probe["last_seq"])["results"]) == 4


def test_now_is_after_everything(couch_db):
    couch_db.fill(2)
    token = couch_db.changes(since="now", limit=0)["last_seq"]
    couch_db.put("a")

    assert [row["id"] for row in couch_db.changes(since=token)["results"]] == ["a"]


def test_pages_meet_without_gap_or_overlap(couch_db):
    ids = couch_db.fill(25)
    token, found, pendings = "0", [], []
    while True:
        page = couch_db.changes(since=token, limit=10, seq_interval=10)
        found += [row["id"] for row in page["results"]]
        pendings.append(page["pending"])
        token = page["last_seq"]
        if not page["results"]:
            break

    assert sorted(found) == ids
    assert pendings == [15, 5, 0, 0]


def test_shards_come_in_any_order_and_every_token_resumes_exactly(couch_server):
    server = couch_server(memory=True, shards=3, admin="etl:right")
    database = CouchDatabase(server.url, "sharded", auth=server.auth).create()
    ids = database.fill(60)
    feeds = [database.changes()["results"] for _ in range(3)]
    orders = [[row["id"] for row in rows] for rows in feeds]

    assert all(sorted(order) == ids for order in orders)
    assert orders[0] != orders[1] or orders[1] != orders[2]
    for n, row in enumerate(feeds[0]):
        rest = database.changes(since=row["seq"])
        assert {other["id"] for other in rest["results"]} == set(orders[0][n + 1 :])
        assert database.changes(since=row["seq"], limit=0)["pending"] == 59 - n
    token, found = "0", []
    while page := database.changes(since=token, limit=7)["results"]:
        found += [row["id"] for row in page]
        token = page[-1]["seq"]
    assert sorted(found) == ids


# --- filters


def test_selector_filter_says_nothing_of_a_document_that_leaves(couch_db):
    couch_db.put("a", type="x")
    couch_db.put("b", type="y")
    query, body = {"filter": "_selector"}, {"selector": {"type": "x"}}
    (row,) = couch_db.request("POST", "/_changes", params=query, json=body).json()["results"]
    couch_db.put("a", type="y")
    rows = couch_db.request("POST", "/_changes", params=query, json=body).json()["results"]

    assert row["id"] == "a"
    assert rows == []


def test_doc_ids_design_and_view_filters(couch_db):
    code = {"m": {"map": "function (doc) { if (doc.n) emit(doc.n); }"}}
    couch_db.put(
        "_design/d", views=code, filters={"f": "function (doc, req) { return doc.n == req.query.n; }"}
    )
    couch_db.bulk([{"_id": "a", "n": 1}, {"_id": "b", "n": 2}, {"_id": "c"}])

    def ids(**query):
        return sorted(row["id"] for row in couch_db.changes(**query)["results"])

    assert ids(filter="_doc_ids", doc_ids='["a","c"]') == ["a", "c"]
    assert ids(filter="_design") == ["_design/d"]
    assert ids(filter="_view", view="d/m") == ["a", "b"]
    assert ids(filter="d/f", n="2") == ["b"]


# --- documents


def test_bulk_get_gives_the_revision_asked_for_or_all_leaves(couch_db):
    couch_db.leaf("x", "2-bb", "1-aa", side="b")
    couch_db.leaf("x", "2-cc", "1-aa", deleted=True)
    wanted = {"docs": [{"id": "x", "rev": "2-bb"}, {"id": "x"}, {"id": "y"}, {"id": "x", "rev": "9-99"}]}
    one, leaves, unknown, other = couch_db.request("POST", "/_bulk_get", json=wanted).json()["results"]

    assert one == {"id": "x", "docs": [{"ok": {"_id": "x", "_rev": "2-bb", "side": "b"}}]}
    assert {doc["ok"]["_rev"]: doc["ok"].get("_deleted") for doc in leaves["docs"]} == {
        "2-bb": None,
        "2-cc": True,
    }
    assert unknown["docs"][0]["error"]["error"] == "not_found"
    assert other["docs"][0]["error"] == {
        "id": "x", "rev": "9-99", "error": "not_found", "reason": "missing"
    }  # fmt: skip


def test_equal_edits_have_the_same_revision_everywhere(couch_db):
    """The hash is that of Erlang's term format, so conflicts have the same winner on every server."""
    assert couch_db.put("a") == couch_db.put("b") == "1-967a00dff5e02add41819138abb3284d"


def test_bulk_docs_answers_row_by_row(couch_db):
    couch_db.put("a")
    rows = couch_db.bulk([{"_id": "a"}, {"_id": "b"}])

    assert rows[0] == {"id": "a", "error": "conflict", "reason": "Document update conflict."}
    assert rows[1]["ok"] is True
    assert couch_db.bulk([{"_id": "c", "_rev": "1-aa"}], new_edits=False) == []


def test_a_reserved_id_refuses_the_whole_request(couch_db):
    with pytest.raises(requests.HTTPError) as refused:
        couch_db.bulk([{"_id": "a"}, {"_id": "_bad"}])

    assert refused.value.response.json()["error"] == "illegal_docid"
    assert couch_db.changes()["results"] == []


@pytest.mark.parametrize("text", [r'"\ud800"', r'"a\uDC00\ud83d"', r'["\\\udfff"]', r'{"\ud800": 1}'])
def test_half_of_a_surrogate_pair_is_no_json(couch_db, text):
    for method, path, body in (("PUT", "/a", '{"t": %s}'), ("POST", "/_bulk_docs", '{"docs": [{"t": %s}]}')):
        answer = requests.request(
            method,
            couch_db.url + path,
            data=body % text,
            headers={"Content-Type": "application/json"},
            auth=couch_db.auth,
            timeout=60,
        )
        assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")
    assert couch_db.info()["doc_count"] == 0


def test_surrogate_pairs_and_their_spelling_are_json(couch_db):
    text = r'{"pair": "\ud83d\ude00", "spelt": "\\ud800"}'
    couch_db.request("PUT", "/a", data=text, headers={"Content-Type": "application/json"})
    assert couch_db.get("a") | {"pair": "\U0001f600", "spelt": r"\ud800"} == couch_db.get("a")


def test_deleted_and_missing_are_told_apart(couch_db):
    couch_db.put("a")
    couch_db.delete("a")
    answers = [couch_db.session.get(f"{couch_db.url}/{name}", timeout=60).json() for name in ("a", "b")]

    assert [answer["reason"] for answer in answers] == ["deleted", "missing"]


def test_local_documents_know_no_conflict_and_are_not_in_the_feed(couch_db):
    couch_db.request("PUT", "/_local/a", json={"n": 1})
    couch_db.request("PUT", "/_local/a", json={"n": 2})
    couch_db.request("PUT", "/_local/a", json={"n": 3, "_rev": "0-77"})

    assert couch_db.get("_local/a")["n"] == 3
    assert couch_db.changes()["results"] == []


def test_info_counts_living_and_dead(couch_db):
    couch_db.fill(3)
    couch_db.delete("doc-000001")
    info = couch_db.info()

    assert (info["doc_count"], info["doc_del_count"]) == (2, 1)
    assert info["db_name"] == couch_db.name


def test_a_purge_leaves_no_row(couch_db):
    couch_db.fill(3)
    token = couch_db.changes()["last_seq"]
    rev = couch_db.get("doc-000001")["_rev"]
    before = couch_db.info()["purge_seq"]
    couch_db.request("POST", "/_purge", json={"doc-000001": [rev]})

    assert couch_db.changes(since=token)["results"] == []
    assert sorted(row["id"] for row in couch_db.changes()["results"]) == ["doc-000000", "doc-000002"]
    assert couch_db.session.get(f"{couch_db.url}/doc-000001", timeout=60).json()["reason"] == "missing"
    assert couch_db.info()["purge_seq"] != before
    assert couch_db.info()["doc_count"] == 2
    assert couch_db.request("GET", "/_purged_infos").json()["purged_infos"] == [
        {"id": "doc-000001", "revs": [rev]}
    ]


def test_a_purge_that_is_asked_for_again_while_it_goes_on_is_made_once_and_answered_twice(couch_db):
    """A client that gave up and tries again sends such requests."""
    for n in range(20):
        rev = couch_db.put(f"doc-{n}", n=n)
        asked = [
            gevent.spawn(
                requests.post,
                f"{couch_db.url}/_purge",
                json={f"doc-{n}": [rev]},
                auth=couch_db.auth,
                timeout=60,
            )
            for _ in range(4)
        ]
        assert {one.get().status_code for one in asked} <= {201, 202}
    assert couch_db.documents() == {}


def test_documents_are_purged_while_a_feed_is_read(couch_db):
    couch_db.fill(300)
    revs = {row["id"]: row["changes"][0]["rev"] for row in couch_db.changes()["results"]}

    def purge():
        for id, rev in list(revs.items())[:100]:
            couch_db.request("POST", "/_purge", json={id: [rev]})

    purging = gevent.spawn(purge)
    with requests.Session() as reader:
        reader.auth = couch_db.auth
        while not purging.ready():
            answer = reader.get(f"{couch_db.url}/_changes", params={"include_docs": "true"}, timeout=60)
            assert len(answer.json()["results"]) >= 200
    purging.get()

    assert len(couch_db.changes()["results"]) == 200


def test_views_find_and_attachments_work(couch_db):
    couch_db.bulk([{"_id": "a", "n": 1}, {"_id": "b", "n": 2}])
    couch_db.put(
        "_design/d", views={"m": {"map": "function (doc) { emit(doc.n, null); }", "reduce": "_count"}}
    )
    rev = couch_db.get("a")["_rev"]
    couch_db.request(
        "PUT", "/a/note", params={"rev": rev}, data=b"hello", headers={"Content-Type": "text/plain"}
    )
    view = couch_db.request("GET", "/_design/d/_view/m", params={"reduce": "false", "startkey": "2"}).json()
    count = couch_db.request("GET", "/_design/d/_view/m").json()
    found = couch_db.request("POST", "/_find", json={"selector": {"n": {"$gt": 1}}}).json()

    assert [row["id"] for row in view["rows"]] == ["b"]
    assert count["rows"] == [{"key": None, "value": 2}]
    assert [doc["_id"] for doc in found["docs"]] == ["b"]
    assert couch_db.request("GET", "/a/note").content == b"hello"
    assert couch_db.get("a")["_attachments"]["note"]["stub"] is True
    (row,) = [row for row in couch_db.changes(include_docs=True)["results"] if row["id"] == "a"]
    assert row["doc"]["_attachments"]["note"]["stub"] is True


def test_ids_with_slashes_and_odd_characters(couch_db):
    ids = ["a/b", "ä+ö ü", "x?y#z%", "\u2028", "_design/d"]
    for doc_id in ids:
        couch_db.put(doc_id, n=1)

    assert [couch_db.get(doc_id)["_id"] for doc_id in ids] == ids
    assert {row["id"] for row in couch_db.changes()["results"]} == set(ids)


# --- the server


def test_a_deleted_database_ends_its_feeds_cleanly(couch_db):
    following = gevent.spawn(lambda: list(couch_db.stream(heartbeat=10_000)))
    gevent.sleep(0.2)
    couch_db.drop()

    assert "last_seq" in following.get(timeout=60)[-1]
    missing = couch_db.session.get(f"{couch_db.url}/_changes", timeout=60)
    assert (missing.status_code, missing.json()["reason"]) == (404, "Database does not exist.")


def test_restart_keeps_documents_tokens_and_identity(couch_server):
    server = couch_server(admin="etl:right")
    database = CouchDatabase(server.url, "kept/here", auth=server.auth).create()
    ids = database.fill(3)
    page = database.changes(limit=2)
    rest = set(ids) - {row["id"] for row in page["results"]}
    before, uuid = database.info(), requests.get(server.url, timeout=60).json()["uuid"]
    server.kill()
    server.start()
    after = database.info()

    assert {row["id"] for row in database.changes(since=page["last_seq"])["results"]} == rest
    assert after["instance_start_time"] == before["instance_start_time"]
    assert after["doc_count"] == 3
    assert requests.get(server.url, timeout=60).json()["uuid"] == uuid
    assert "kept/here" in requests.get(f"{server.url}/_all_dbs", auth=server.auth, timeout=60).json()
    assert requests.put(database.url, auth=server.auth, timeout=60).status_code == 412


def test_passwords_sessions_and_the_lock(couch_server):
    server = couch_server(admin="etl:right", memory=True, options=["--session-seconds", "5"])
    session = requests.Session()

    assert session.get(f"{server.url}/_all_dbs", timeout=60).status_code == 401
    entered = session.post(f"{server.url}/_session", json={"name": "etl", "password": "right"}, timeout=60)
    assert entered.json()["ok"] is True
    assert "Max-Age=5" in entered.headers["Set-Cookie"]
    cookie = {"Cookie": entered.headers["Set-Cookie"].partition(";")[0]}
    assert requests.get(f"{server.url}/_all_dbs", headers=cookie, timeout=60).ok
    assert (
        requests.get(f"{server.url}/_session", headers=cookie, timeout=60).json()["userCtx"]["name"] == "etl"
    )
    time.sleep(5.1)
    assert requests.get(f"{server.url}/_all_dbs", headers=cookie, timeout=60).status_code == 401
    for _ in range(5):
        assert requests.get(f"{server.url}/_all_dbs", auth=("etl", "wrong"), timeout=60).status_code == 401
    assert requests.get(f"{server.url}/_all_dbs", auth=("etl", "right"), timeout=60).status_code == 403

"""The servers that all other tests trust: each does what the real thing does, faults included."""

from __future__ import annotations

import psycopg
import pytest
import requests

from tests.servers.tcp_proxy import Fault


def test_couch_database_is_fresh_and_keeps_what_is_written(couch_db):
    couch_db.put("a", n=1)
    couch_db.put("a", n=2)
    couch_db.put("b")
    couch_db.delete("b")

    rows = couch_db.changes(include_docs=True)["results"]

    assert [(row["id"], row.get("deleted", False)) for row in rows] == [("a", False), ("b", True)]
    assert rows[0]["doc"]["n"] == 2


def test_postgres_database_is_fresh(postgres_dsn):
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute("create table t (a int)")
        found = connection.execute("select count(*) from pg_tables where schemaname = 'public'").fetchone()

    assert found == (1,)


def test_elasticsearch_says_its_version_and_keeps_external_versions(elasticsearch_url, es_prefix):
    assert requests.get(elasticsearch_url, timeout=5).json()["version"]["number"].startswith("9.")
    path = f"{elasticsearch_url}/{es_prefix}a/_doc/1"

    newer = requests.put(path, params={"version": 7, "version_type": "external"}, json={}, timeout=30)
    older = requests.put(path, params={"version": 6, "version_type": "external"}, json={}, timeout=30)

    assert (newer.status_code, older.status_code) == (201, 409)


def test_proxy_cuts_after_bytes_then_lets_pass(couch, couch_db, tcp_proxy):
    couch_db.fill(50)
    proxy = tcp_proxy(couch)
    proxy.fail(Fault(kind="cut", after_bytes=700))
    url = f"{proxy.url}/{couch_db.name}/_changes"

    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        requests.get(url, timeout=5)

    assert len(proxy.received()) == 700
    assert len(requests.get(url, timeout=5).json()["results"]) == 50
    assert len(proxy.connections) == 2
    assert len(proxy.connections[1].to_client.split(b'"seq":')) == 51


def test_proxy_resets(couch, couch_db, tcp_proxy):
    couch_db.fill(50)
    proxy = tcp_proxy(couch)
    proxy.fail(Fault(kind="reset", after_text=b'"doc-000010"'))

    with pytest.raises((requests.exceptions.ChunkedEncodingError, ConnectionError)) as failure:
        requests.get(f"{proxy.url}/{couch_db.name}/_changes", timeout=5)

    assert "reset" in str(failure.value).lower()
    assert proxy.received().endswith(b'"doc-000010"')


def test_proxy_stalls_and_flows_again(couch, couch_db, tcp_proxy):
    proxy = tcp_proxy(couch)
    proxy.stall()

    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.get(f"{proxy.url}/_up", timeout=0.2)
    proxy.flow()

    assert requests.get(f"{proxy.url}/_up", timeout=5).ok


def test_proxy_refuses(couch, tcp_proxy):
    proxy = tcp_proxy(couch)
    with proxy.refusing(), pytest.raises(requests.exceptions.ConnectionError):
        requests.get(f"{proxy.url}/_up", timeout=5)

    assert requests.get(f"{proxy.url}/_up", timeout=5).ok

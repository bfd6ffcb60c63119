"""The servers that all other tests trust: each does what the real thing does, faults included."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import Any

import gevent.event
import psutil
import psycopg
import pytest
import requests

from tests.conftest import start_for_tests
from tests.servers.couchdb.process import CouchDB
from tests.servers.process import ROOT, ServerUnavailable
from tests.servers.requirements import describe
from tests.servers.scripted import (
    CLOSE,
    HANG,
    LAST_CHUNK,
    RESET,
    Pause,
    chunk,
    chunked_reply,
    head,
    json_reply,
)
from tests.servers.tcp_proxy import Fault
from tests.support.sizes import size
from tests.support.waiting import wait_until


def test_couch_database_is_fresh_and_keeps_what_is_written(couch_db):
    couch_db.put("a", n=1)
    couch_db.put("a", n=2)
    couch_db.put("b")
    couch_db.delete("b")

    rows = sorted(couch_db.changes(include_docs=True)["results"], key=lambda row: row["id"])

    assert [(row["id"], row.get("deleted", False)) for row in rows] == [("a", False), ("b", True)]
    assert rows[0]["doc"]["n"] == 2


def test_postgres_database_is_fresh(postgres_dsn):
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute("create table t (a int)")
        found = connection.execute("select count(*) from pg_tables where schemaname = 'public'").fetchone()

    assert found == (1,)


@pytest.mark.parametrize(("server", "major"), [("elasticsearch", "9"), ("opensearch", "3")])
def test_a_search_server_says_its_version_and_keeps_external_versions(request, es_prefix, server, major):
    url = request.getfixturevalue(f"{server}_url")
    version = requests.get(url, timeout=60).json()["version"]
    assert version["number"].startswith(f"{major}.")
    assert (version.get("distribution") == "opensearch") == (server == "opensearch")
    path = f"{url}/{es_prefix}a/_doc/1"

    newer = requests.put(path, params={"version": "7", "version_type": "external"}, json={}, timeout=30)
    older = requests.put(path, params={"version": "6", "version_type": "external"}, json={}, timeout=30)

    assert (newer.status_code, older.status_code) == (201, 409)


def test_proxy_cuts_after_bytes_then_lets_pass(couch, couch_db, tcp_proxy):
    couch_db.fill(50)
    proxy = tcp_proxy(couch)
    proxy.fail(Fault(kind="cut", after_bytes=700))
    url = f"{proxy.url}/{couch_db.name}/_changes"

    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        requests.get(url, auth=couch.auth, timeout=60)

    assert len(proxy.received()) == 700
    assert len(requests.get(url, auth=couch.auth, timeout=60).json()["results"]) == 50
    assert len(proxy.connections) == 2
    assert len(proxy.connections[1].to_client.split(b'"seq":')) == 51


def test_proxy_resets(couch, couch_db, tcp_proxy):
    couch_db.fill(50)
    proxy = tcp_proxy(couch)
    proxy.fail(Fault(kind="reset", after_text=b'"doc-000010"'))

    with pytest.raises((requests.exceptions.ChunkedEncodingError, ConnectionError)) as failure:
        requests.get(f"{proxy.url}/{couch_db.name}/_changes", auth=couch.auth, timeout=60)

    assert "reset" in str(failure.value).lower()
    assert proxy.received().endswith(b'"doc-000010"')


def test_proxy_stalls_and_flows_again(couch, couch_db, tcp_proxy):
    proxy = tcp_proxy(couch)
    proxy.stall()

    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.get(f"{proxy.url}/_up", timeout=0.2)
    proxy.flow()

    assert requests.get(f"{proxy.url}/_up", timeout=60).ok


def test_proxy_refuses(couch, tcp_proxy):
    proxy = tcp_proxy(couch)
    with proxy.refusing(), pytest.raises(requests.exceptions.ConnectionError):
        requests.get(f"{proxy.url}/_up", timeout=60)

    assert requests.get(f"{proxy.url}/_up", timeout=60).ok


def test_proxy_stalls_in_the_middle_of_a_line(couch, couch_db, tcp_proxy):
    couch_db.fill(3)
    proxy = tcp_proxy(couch)
    proxy.fail(Fault(kind="stall", after_text=b'"doc-00000'))

    with pytest.raises(requests.exceptions.ConnectionError, match="Read timed out"):
        requests.get(f"{proxy.url}/{couch_db.name}/_changes", auth=couch.auth, timeout=0.3)

    assert proxy.received().endswith(b'"doc-00000')


def test_proxy_fails_a_request_before_the_server_sees_all_of_it(couch, couch_db, tcp_proxy):
    proxy = tcp_proxy(couch)
    proxy.fail(Fault(kind="reset", direction="to_server", after_bytes=20))

    with pytest.raises(requests.exceptions.ConnectionError):
        requests.put(f"{proxy.url}/{couch_db.name}/a", auth=couch.auth, json={"n": 1}, timeout=60)

    assert len(proxy.received("to_server")) == 20
    assert couch_db.changes()["results"] == []


def test_proxy_cuts_all_open_connections_now(couch, couch_db, tcp_proxy):
    proxy = tcp_proxy(couch)
    url = f"{proxy.url}/{couch_db.name}/_changes"
    query: dict[str, Any] = {"feed": "continuous", "heartbeat": 60_000}
    feed = requests.get(url, params=query, auth=couch.auth, stream=True, timeout=60)
    wait_until(lambda: proxy.count(b"200 OK"))
    proxy.cut()

    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        feed.content  # noqa: B018 - reading it is what fails


def test_proxy_slows_down(couch, couch_db, tcp_proxy):
    couch_db.put("a", pad="x" * 4000)
    proxy = tcp_proxy(couch)
    proxy.bytes_per_second = 20_000
    began = time.monotonic()

    assert requests.get(f"{proxy.url}/{couch_db.name}/a", auth=couch.auth, timeout=60).ok
    assert time.monotonic() - began > 0.15


def test_proxy_keeps_what_passed(couch, couch_db, tcp_proxy):
    couch_db.fill(20)
    proxy = tcp_proxy(couch)
    requests.get(f"{proxy.url}/{couch_db.name}/_changes", auth=couch.auth, timeout=60)

    assert proxy.count(b'"id":') == 20
    assert proxy.count(b"GET /", "to_server") == 1
    proxy.forget()
    assert proxy.received() == b""


# --- processes


def test_restart_kill_and_freeze(couch_server):
    server = couch_server(memory=True)
    first = server.pid
    server.restart()
    assert server.pid != first
    server.freeze()
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.get(server.url, timeout=0.2)
    server.thaw()
    assert requests.get(server.url, timeout=60).ok
    server.kill()
    with pytest.raises(requests.exceptions.ConnectionError):
        requests.get(server.url, timeout=60)


def test_postgres_keeps_what_was_committed_when_it_is_killed(postgres_server):
    server = postgres_server()
    with psycopg.connect(server.dsn) as connection:
        connection.execute("create table t as select 1 as a")
    server.kill()
    server.start()

    with psycopg.connect(server.dsn) as connection:
        assert connection.execute("select a from t").fetchone() == (1,)


def test_a_server_that_cannot_start_shows_its_log():
    server = CouchDB(options=["--no-such-option"])

    with pytest.raises(ServerUnavailable, match="no-such-option"):
        server.start()
    server.close()
    assert not server.data_dir.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")
def test_a_server_does_not_outlive_the_process_that_started_it():
    script = """
from tests.servers.couchdb.process import CouchDB
server = CouchDB(memory=True)
server.start()
print(server.pid, flush=True)
input()
"""
    starter = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with starter:
        pid = int(starter.stdout.readline())
        assert psutil.pid_exists(pid)
        starter.send_signal(signal.SIGKILL)

    wait_until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail), ("", pytest.skip)])
def test_a_missing_server_fails_in_ci_and_skips_on_a_laptop(monkeypatch, ci, outcome):
    class Missing(CouchDB):
        @classmethod
        def install(cls):
            msg = "no such thing here"
            raise ServerUnavailable(msg)

    monkeypatch.setenv("CI", ci)

    with ExitStack() as stack, pytest.raises(outcome.Exception, match="no such thing here"):
        start_for_tests(stack, Missing())


def test_what_is_missing_is_one_line():
    assert "\n" not in describe()


# --- scripts


def test_scripts_are_played_in_turn_and_the_last_one_again(scripted_server):
    server = scripted_server()
    server.on("GET", "/db", json_reply({"n": 1}), json_reply({"n": 2}, 503, Retry_After="3"))
    answers = [requests.get(f"{server.url}/db", params={"since": "7-g+/"}, timeout=60) for _ in range(3)]

    assert [(a.status_code, a.json()["n"]) for a in answers] == [(200, 1), (503, 2), (503, 2)]
    assert answers[1].headers["Retry-After"] == "3"
    assert [request.query["since"] for request in server.requests_of("GET", "/db")] == ["7-g+/"] * 3


def test_scripts_break_as_they_are_told(scripted_server):
    server = scripted_server()
    torn = [head(chunked=True), chunk(b"whole line\n"), chunk(b"half a li")]
    server.on("GET", "/close", [*torn, CLOSE])
    server.on("GET", "/reset", [*torn, RESET])
    server.on("GET", "/hang", [*torn, HANG])
    server.on("GET", "/clean", [*torn, LAST_CHUNK])

    for path in ("close", "reset"):
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            requests.get(f"{server.url}/{path}", timeout=60)
    with pytest.raises(requests.exceptions.ConnectionError, match="timed out"):
        requests.get(f"{server.url}/hang", timeout=0.2)
    assert requests.get(f"{server.url}/clean", timeout=60).content == b"whole line\nhalf a li"


def test_scripts_may_look_at_the_request_and_wait(scripted_server):
    server = scripted_server()
    gate = gevent.event.Event()
    server.on("POST", "/db/_bulk_get", lambda request: json_reply(request.json()))
    server.on("GET", "/slow", [Pause(gate), chunked_reply(b"a", b"b")])
    waiting = gevent.spawn(requests.get, f"{server.url}/slow", timeout=60)

    assert requests.post(f"{server.url}/db/_bulk_get", json={"docs": []}, timeout=60).json() == {"docs": []}
    assert not waiting.ready()
    gate.set()
    assert waiting.get(timeout=60).content == b"ab"


def test_a_request_without_a_script_is_noticed(scripted_server):
    server = scripted_server()

    assert requests.get(f"{server.url}/what", timeout=60).status_code == 500
    assert [request.path for request in server.unexpected] == ["/what"]


# --- sizes


def test_sizes_grow_only_when_asked(monkeypatch):
    monkeypatch.delenv("PILLOWD_PROOF", raising=False)
    monkeypatch.delenv("PILLOWD_SOAK", raising=False)
    assert size(ci=1, proof=2, soak=3) == 1
    monkeypatch.setenv("PILLOWD_PROOF", "1")
    assert size(ci=1, proof=2, soak=3) == 2
    assert size(ci=1) == 1
    monkeypatch.setenv("PILLOWD_SOAK", "1")
    assert size(ci=1, proof=2, soak=3) == 3


def test_proof_and_soak_are_deselected_unless_asked(tmp_path):
    case = tmp_path / "test_marks.py"
    case.write_text(
        "import pytest\n@pytest.mark.proof\ndef test_p(): pass\n@pytest.mark.soak\ndef test_s(): pass\n"
        "def test_always(): pass\n"
    )
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PILLOWD_")}
    for extra, passed in (({}, "1 passed, 2 deselected"), ({"PILLOWD_PROOF": "1"}, "2 passed, 1 deselected")):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider",
             f"--rootdir={ROOT}", "-c", str(ROOT / "pyproject.toml"), str(case)],
            cwd=ROOT, env={**plain, **extra}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert passed in done.stdout, done.stdout

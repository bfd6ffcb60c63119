"""The listeners of the real process: hostile clients, secrets, the audit, and what does not start."""

from __future__ import annotations

import base64
import json
import random
import re
import signal
import socket
import sqlite3
import ssl
import time
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from typing import Any

import gevent
import psutil
import pytest
import yaml

from daemon.http.contract import load_contract
from tests.acceptance.house import BEARER, TOKEN, House
from tests.servers.couch_client import CouchDatabase
from tests.support.http_listener import HttpListener
from tests.support.sizes import proving, size

MIB = 2**20
ATTACK_SECONDS = size(ci=0.3, proof=60.0)
CALLS = size(ci=50, proof=500)


def half_requests(house: House, listener: HttpListener) -> None:
    open_ones = []
    for _ in range(size(ci=120, proof=500)):
        with suppress(OSError):
            open_ones.append(listener.connect())
            open_ones[-1].sendall(b"POST /v1/pillows/cases/pause HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc")
    gevent.sleep(ATTACK_SECONDS)
    for each in open_ones:
        each.close()


def send(*texts: bytes) -> Callable[[House, HttpListener], None]:
    """Sends each text on a connection of its own, again and again."""

    def attack(house: House, listener: HttpListener) -> None:
        give_up_at = time.monotonic() + ATTACK_SECONDS
        while time.monotonic() < give_up_at:
            for text in texts:
                with suppress(OSError), listener.connect() as connection:
                    connection.sendall(text)
                    connection.recv(1000)
            gevent.sleep(0.01)

    return attack


def stream_that_is_never_read(house: House, listener: HttpListener) -> None:
    open_ones = []
    for _ in range(20):
        with suppress(OSError):
            open_ones.append(listener.connect())
            open_ones[-1].sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    gevent.sleep(ATTACK_SECONDS)
    for each in open_ones:
        each.close()


def wrong_tokens(house: House, listener: HttpListener) -> None:
    give_up_at = time.monotonic() + ATTACK_SECONDS
    for _ in range(size(ci=30, proof=10_000)):
        if time.monotonic() > give_up_at:
            break
        with suppress(OSError):
            house.tcp.get("/livez", Authorization=f"Bearer {'x' * 40}")


def old_tls(house: House, listener: HttpListener) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore"):  # that it is old is the point
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    plain = socket.create_connection(("127.0.0.1", house.ports[1]), timeout=30)
    with plain, pytest.raises((ssl.SSLError, OSError)):
        context.wrap_socket(plain)


HEAD = b"POST /v1/pillows/cases/pause HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
ATTACKS: dict[str, Callable[[House, HttpListener], None]] = {
    "half requests": half_requests,
    "1 MB of headers": send(HEAD + b"X: " + b"x" * MIB, HEAD + b"X: y\r\n" * 200_000),
    "100 MB body": send(HEAD + b"Content-Length: 100000000\r\n\r\n" + b"x" * MIB),
    "broken chunks": send(CHUNKED + b"z\r\n", CHUNKED + b"5\r\nab"),
    "HTTP/2": send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"),
    "another host": send(b"GET /v1/pillows HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
    "another site": send(HEAD + b"Origin: https://evil.example\r\nContent-Length: 0\r\n\r\n"),
    "stream that is never read": stream_that_is_never_read,
    "wrong tokens": wrong_tokens,
    "TLS 1.1": old_tls,
}
#: The others' answers are tested in tests/unit/daemon/http/test_server.py.
IN_CI = ("half requests", "1 MB of headers", "stream that is never read", "TLS 1.1")
#: Attacks of one daemon, one after the other: each of its own at full size.
ROUNDS = [(name,) for name in ATTACKS] if proving() else [IN_CI]


class Arrivals:
    """Writes documents, and looks in the target for them.

    Args:
        source: where they are written.
        target: the database whose table `copy` they arrive in.
    """

    def __init__(self, source: CouchDatabase, target: Path) -> None:
        self._source, self._target = source, target
        self._numbers = count()
        self._written: dict[str, float] = {}

    def write(self) -> None:
        """Write one document."""
        id = f"written{next(self._numbers)}"
        self._source.put(id, {})
        self._written[id] = time.monotonic()

    def lag_seconds(self) -> float:
        """Return since when the target lacks a document; 0 if it has all of them."""
        now = time.monotonic()
        with closing(sqlite3.connect(self._target)) as target:
            for (id,) in target.execute("select _id from copy"):
                self._written.pop(id, None)
        return now - min(self._written.values(), default=now)


@pytest.mark.parametrize("names", ROUNDS, ids=", ".join)
def test_hostile_clients_harm_nobody_else(
    house: Callable[..., House], couch_db: CouchDatabase, tmp_path: Path, names: tuple[str, ...]
) -> None:
    # A database of its own: pillows of one gather once for 5 s, and then share its feed.
    own = CouchDatabase(couch_db.url.rpartition("/")[0], f"{couch_db.name}-own", auth=couch_db.auth)
    own.create()
    source = {"connection": "couch", "database": own.name}
    made = house(
        connections={"file": {"type": "sqlite", "path": str(tmp_path / "copy.sqlite")}},
        pillows={"copy": {"source": source, "transport": [{"connection": "file", "table": "copy"}]}},
    )
    daemon = made.daemon.start()
    arrivals = Arrivals(own, tmp_path / "copy.sqlite")
    for _ in range(20):
        arrivals.write()
    daemon.wait_for(lambda: daemon.state("copy") == "live" and not arrivals.lag_seconds())
    process = psutil.Process(daemon.child.pid)
    for listener in (made.read, made.admin):
        listener.get("/livez")
    before = process.memory_info().rss
    worst: dict[str, float] = {}

    def note(what: str, value: float) -> None:
        worst[what] = max(worst.get(what, 0.0), value)

    for name in names:
        for listener in (made.read, made.admin) if proving() else (made.read,):
            attacking = gevent.spawn(ATTACKS[name], made, listener)
            while not attacking.ready():
                arrivals.write()
                began = time.monotonic()
                facts = listener.get("/v1/pillows/copy").json
                note("answer_seconds", time.monotonic() - began)
                note("told_lag_seconds", facts["lag_seconds"])
                note("lag_seconds", arrivals.lag_seconds())
                note("more_mib", (process.memory_info().rss - before) / MIB)
                assert facts["state"] in {"live", "catching-up"}, name
                gevent.sleep(0.05)
            attacking.get()
    print(f"\n{', '.join(names)}: {json.dumps({what: round(value, 3) for what, value in worst.items()})}")
    daemon.wait_for(lambda: not arrivals.lag_seconds())
    assert worst["answer_seconds"] < 1.0
    assert worst["more_mib"] < 20
    if proving():  # elsewhere others use the machine
        assert worst["lag_seconds"] < 1.0
        assert worst["told_lag_seconds"] < 1.0
    log = daemon.log.read_text()
    assert "Traceback" not in log
    assert "request.crashed" not in log
    assert daemon.stop() == 0
    own.drop()
    own.close()


#: Twelve secrets where a configuration may have them.
SECRETS = {f"planted-secret-{name}-9f8e7d" for name in "abcdefghijk"}
CANARY = "canary-value-of-a-document"


def login(kind: str, password: str) -> dict[str, Any]:
    """A CouchDB server that is away."""
    auth = {"type": kind, "username": "u", "password": password}
    return {"type": "couchdb", "url": "http://127.0.0.1:1", "auth": auth}


def listen(listener: HttpListener, path: str, until: Callable[[str], bool], write: Callable[[], None]) -> str:
    """Return what a stream says until it has said enough, while documents are written."""
    said = b""
    with listener.connect() as connection:
        connection.settimeout(0.2)
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())  # 1.0: without chunks
        while not until(said.decode(errors="replace")):
            write()
            with suppress(TimeoutError):
                more = connection.recv(65_536)
                assert more, said
                said += more
    return said.decode()


def plant(couch_db: CouchDatabase) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return connections with a secret each, and a pillow for each of them."""
    a, b, c, d, e, f, g, h, i, j, k = sorted(SECRETS)
    away = "127.0.0.1:1"
    search = {"type": "elasticsearch", "hosts": [f"http://{away}"]}
    connections = {
        "basic": login("basic", a),
        "session": login("session", b),
        "dsn": {"type": "postgres", "dsn": f"postgresql://u:{c}@{away}/x"},
        "words": {"type": "postgres", "dsn": f"host=127.0.0.1 port=1 dbname=x password={d}"},
        "own": {"type": "postgres", "dsn": f"postgresql://u@{away}/x", "password": e},
        "key": {**search, "auth": {"api_key": base64.b64encode(f"id:{f}".encode()).decode()}},
        "name": {**search, "auth": {"username": "u", "password": g}},
        "hook": {
            "type": "webhook",
            "url": f"http://{away}/{h}",
            "headers": {"Authorization": f"Bearer {i}"},
            "secret": j,
        },
        "query": {"type": "webhook", "url": f"http://{away}/x?token={k}"},
    }
    here = {"connection": "couch", "database": couch_db.name}
    pillows: dict[str, Any] = {}
    for name, each in connections.items():
        outputs: dict[str, dict[str, Any]] = {
            "postgres": {"table": name},
            "elasticsearch": {"index": name, "mapping": {"dynamic": False}},
        }
        entry = {"connection": name, **outputs.get(str(each["type"]), {})}
        pillows[name] = {"source": here, "transport": [entry]}
    for name in ("basic", "session"):
        pillows[name] = {
            "source": {"connection": name, "database": "x"},
            "transport": [{"connection": "nowhere"}],
        }
    return connections, pillows


def ask_all(made: House) -> list[str]:
    """Return the answers of every operation that is not a stream, on every listener."""
    said = []
    for operation in load_contract().operations.values():
        if operation.is_stream:
            continue
        for name in ("hook", "cases", "dsn")[: size(ci=1, proof=3)]:
            path = re.sub(r"\{\w+\}", name, operation.path)
            body = {} if operation.body is not None else None
            for listener in (made.read, made.admin, made.tcp):
                seen = listener.ask(operation.method, path, body, If_Match="*", **BEARER)
                assert seen.status not in (500, 501), (operation.id, seen.text)
                said.append(f"{seen.text}{seen.headers}")
    return said


def listen_to_all(made: House, couch_db: CouchDatabase) -> tuple[list[str], str]:
    """Return what the streams say, and what a tap says that is to show documents."""
    numbers = count()

    def write() -> None:
        couch_db.put(f"canary{next(numbers)}", {"value": CANARY})

    def has_enough(told: str) -> bool:
        return told.count("event: ") > 3

    taps = [f"/v1/pillows/cases/tap?rate=50&stage={stage}" for stage in ("change", "rows")]
    said = [listen(listener, "/v1/events", has_enough, write) for listener in (made.read, made.admin)]
    said += [listen(made.admin, tap, has_enough, write) for tap in taps]
    return said, listen(made.admin, f"{taps[0]}&values=true", lambda told: CANARY in told, write)


def test_no_answer_stream_log_or_audit_line_holds_a_secret_or_a_document(
    house: Callable[..., House], couch_db: CouchDatabase
) -> None:
    connections, pillows = plant(couch_db)
    couch_db.put("one", {"value": CANARY})
    made = house(connections=connections, pillows=pillows, sections={"logging": {"level": "debug"}})
    daemon = made.daemon.start()
    daemon.wait_for(lambda: all(daemon.status(name)["reason"] for name in pillows), seconds=90)
    said = ask_all(made)
    assert made.admin.put("/v1/pillows/cases/resume?wait=60s").status == 200, "it was stopped among all else"
    streams, shown = listen_to_all(made, couch_db)
    said += streams
    said += [daemon.command_here("status", "--json").stdout, daemon.command_here("config", "show").stdout]
    said += [daemon.log.read_text(), json.dumps(made.audit())]
    key = (daemon.folder / "key.pem").read_text().splitlines()[1]
    planted = [*SECRETS, connections["key"]["auth"]["api_key"], TOKEN, key]
    if couch_db.auth:
        planted.append(couch_db.auth[1])
    assert [secret for secret in [*planted, CANARY] if any(secret in text for text in said)] == []
    assert [secret for secret in planted if secret in shown] == [], "that shows documents only"
    assert len(made.audit()) > 20
    assert daemon.stop() == 0


def test_each_of_many_acts_has_one_intent_and_one_end(house: Callable[..., House]) -> None:
    made = house()
    daemon = made.daemon.start()
    draw = random.Random(7)
    calls: list[tuple[str, str, Any]] = [
        ("PUT", "/v1/pillows/{}/pause", None),
        ("PUT", "/v1/pillows/{}/resume", None),
        ("PUT", "/v1/pillows/{}/stop", None),
        ("POST", "/v1/pillows/{}/restart", None),
        ("PATCH", "/v1/pillows/{}/checkpoint", {"to": "beginning"}),
        ("DELETE", "/v1/pillows/{}/checkpoint", None),
        ("POST", "/v1/pillows/{}/dead-letters/retry", {"all": True}),
        ("POST", "/v1/pillows/{}/dead-letters/discard", {"ids": ["x"]}),
        ("POST", "/v1/pillows/{}/repair", {"ids": ["x"]}),
        ("POST", "/v1/pillows/restart", None),
    ]
    made_calls, signals = 0, 0
    for _ in range(CALLS):
        if draw.random() < 0.05:
            daemon.signal(signal.SIGHUP)
            signals += 1
            wanted = 2 * signals
            daemon.wait_for(lambda: len(reloads(made)) == wanted)  # noqa: B023  it is waited for here
            continue
        method, path, body = draw.choice(calls)
        listener = draw.choice([made.admin, made.tcp])
        headers = {"If_Match": draw.choice(["*", '"0"'])} if draw.random() < 0.8 else {}
        path = path.format(draw.choice(["cases", "visits", "nobody"]))
        seen = listener.ask(method, path, body, **headers, **BEARER)
        assert seen.status < 500, seen.text
        made_calls += 1
    daemon.wait_for(lambda: all(each["state"] != "running" for each in operations(made)))
    assert daemon.stop() == 0
    lines = made.audit()
    phases = Counter((line["id"], line["phase"] == "intent") for line in lines)
    assert set(phases.values()) == {1}
    assert len(lines) == 2 * (made_calls + signals)
    assert {line["by"]["via"] for line in lines if line["phase"] == "intent"} >= {"unix", "tcp"}
    assert {line["phase"] for line in lines} >= {"intent", "done", "refused"}


def operations(made: House) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = made.admin.get("/v1/operations").json["operations"]
    return found


def reloads(made: House) -> list[dict[str, Any]]:
    lines = made.audit() if (made.daemon.folder / "state" / "audit").exists() else []
    return [line for line in lines if line["act"] == "reload_config"]


def test_an_act_that_a_crash_cut_short_is_shown(house: Callable[..., House], couch_db: CouchDatabase) -> None:
    silent = socket.socket()  # takes the message, and never answers
    silent.bind(("127.0.0.1", 0))
    silent.listen()
    couch_db.put("one", {})
    with silent:
        made = house(
            connections={"hook": {"type": "webhook", "url": f"http://127.0.0.1:{silent.getsockname()[1]}/"}},
            pillows={
                "slow": {
                    "source": {"connection": "couch", "database": couch_db.name},
                    "transport": [{"connection": "hook"}],
                }
            },
        )
        daemon = made.daemon.start()
        assert made.admin.put("/v1/pillows/cases/pause?wait=30s").json["state"] == "paused"
        made.admin.put("/v1/pillows/slow/pause")
        assert made.admin.ask("POST", "/v1/pillows/slow/repair", {"ids": ["one"]}).status == 202
        assert [line["phase"] for line in made.audit() if line["act"] == "repair_documents"] == ["intent"]
        daemon.child.kill()
        daemon.ended()

        offline = daemon.ask_here("status")
        assert [act["act"] for act in offline["unfinished_acts"]] == ["repair_documents"]
        daemon.start()
        shown = daemon.command_here("status").stdout
        assert "repair_documents of slow" in shown
        assert daemon.events("audit.unfinished")
        assert daemon.state("cases") == "paused", "a pause outlives the process"
        assert made.read.get("/v1/pillows").json["unfinished_acts"] == []
    daemon.child.kill()


def test_an_open_door_does_not_start(house: Callable[..., House]) -> None:
    """tests/unit/daemon/config/test_listeners.py tests each kind of open door."""
    daemon = house().daemon
    settings = yaml.safe_load(daemon.config.read_text())
    settings["daemon"]["http"] = {"listen": "0.0.0.0:19148"}
    daemon.config.write_text(yaml.safe_dump(settings))
    done = daemon.command("run")
    assert done.returncode == 78
    assert "write `allow_remote: true`" in done.stderr


def test_a_taken_address_is_refused_where_it_is_configured(house: Callable[..., House]) -> None:
    made = house()
    with socket.create_server(("127.0.0.1", made.ports[0])):
        done = made.daemon.command("run")
    assert done.returncode == 78
    assert "another process listens there" in done.stderr

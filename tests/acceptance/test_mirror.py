"""`pillowd mirror` as it is typed: interrupted, killed, resumed, and equal to the source in the end."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
import yaml

from checkpoints import StoreError
from daemon.http.client import HttpClient
from tests.acceptance import stores
from tests.acceptance.process import PILLOWD
from tests.servers.couch_client import CouchDatabase
from tests.support.sizes import size

#: Slow enough that both interruptions come while it is at work.
BYTES_PER_SECOND = 800_000


class Typed:
    """One command line, run again and again in one folder.

    Args:
        folder: where it is typed.
        arguments: what is typed behind `pillowd mirror`.
    """

    def __init__(self, folder: Path, *arguments: str, environ: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.command = [*PILLOWD, "mirror", *arguments]
        self.environ = os.environ | (environ or {})

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command,
            cwd=self.folder,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def to_the_end(self, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.command, *more],
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def changes(self) -> int:
        """How many changes the running command has taken."""
        (config,) = self.folder.glob("pillowd-state/*/pillowd.yaml")
        socket = yaml.safe_load(config.read_text())["daemon"]["admin"]["listen"].removeprefix("unix:")
        return int(HttpClient(Path(socket)).call("list_pillows")["pillows"][0]["changes"])

    def interrupted(self, number: signal.Signals, *, after: int) -> tuple[int, str]:
        """Starts it, interrupts it when it has taken so many changes; its exit code and what it said."""
        child = self.start()
        try:
            self._until(child, after)
            child.send_signal(number)
            said, _ = child.communicate(timeout=60)
        finally:
            child.kill()
        return child.returncode, said

    def _until(self, child: subprocess.Popen[str], changes: int) -> None:
        give_up_at = time.monotonic() + size(ci=60, proof=300)
        taken = 0
        while taken < changes:
            assert child.poll() is None, child.stderr and child.stderr.read()
            assert time.monotonic() < give_up_at, f"has taken {taken} changes"
            time.sleep(0.05)
            with suppress(StoreError, ValueError):  # it is still starting
                taken = self.changes()


Target = tuple[str, Callable[[], stores.Rows]]


def _name(couch_db: CouchDatabase) -> str:
    return couch_db.name.replace("-", "_")


def _lines(path: Path) -> stores.Rows:
    """Returns the newest line of every document."""
    newest = {value["_id"]: value for value in map(json.loads, path.read_text().splitlines())}
    return {
        id: stores.row(value["_version"], value["doc"], value["_rev"])
        for id, value in newest.items()
        if "_deleted" not in value
    }


@pytest.fixture(
    params=[
        "sqlite",
        "postgresql",
        "elasticsearch",
        pytest.param("opensearch", marks=pytest.mark.proof),
        pytest.param("kafka", marks=pytest.mark.proof),
        "jsonl",
    ]
)
def target(request: Any, tmp_path: Path, couch_db: CouchDatabase) -> Target:
    """A target as it is typed, and what reads it."""
    name = _name(couch_db)
    if request.param == "sqlite":
        return "sqlite:///out.sqlite", lambda: stores.sqlite(tmp_path / "out.sqlite", name)
    if request.param == "kafka":
        server = request.getfixturevalue("kafka")
        return f"kafka://{server}", lambda: stores.kafka(server, name)
    if request.param == "jsonl":
        return "jsonl:lines", lambda: _lines(tmp_path / "lines" / f"{name}.jsonl")
    if request.param == "postgresql":
        dsn = request.getfixturevalue("postgres_dsn")
        return dsn, lambda: stores.postgres(dsn, name)
    url = request.getfixturevalue(f"{request.param}_url")
    return f"{request.param}+{url}", lambda: stores.elasticsearch(url, name)


@pytest.fixture
def source(couch: Any, couch_db: CouchDatabase, tcp_proxy: Callable[[Any], Any]) -> str:
    """The URL of a filled database, behind a slow line."""
    proxy = tcp_proxy(couch)
    proxy.bytes_per_second = BYTES_PER_SECOND * size(ci=1, proof=10)
    login = f"{couch.auth[0]}:{couch.auth[1]}@" if couch.auth else ""
    return f"{proxy.url.replace('://', f'://{login}')}/{couch_db.name}"


def _fill(couch_db: CouchDatabase, count: int) -> None:
    couch_db.bulk(
        {"_id": f"{n:06}", "n": n, "name": f"name {n}", "tags": [n, None], "text": "x" * 300}
        for n in range(count)
    )
    for n in range(20):
        couch_db.delete(f"{n:06}")


@pytest.mark.timeout(size(ci=300, proof=1200))
def test_interrupted_twice_it_goes_on_and_ends_equal_to_the_source(target, source, couch_db, tmp_path):
    """Ctrl-C, then kill -9, then to the end."""
    count = size(ci=2000, proof=50_000)
    _fill(couch_db, count)
    text, rows = target
    typed = Typed(tmp_path, source, text)

    code, said = typed.interrupted(signal.SIGINT, after=count // 20)
    assert code == 0
    assert "Run the same command again to continue" in said
    killed, _ = typed.interrupted(signal.SIGKILL, after=count // 4)
    assert killed == -signal.SIGKILL
    done = typed.to_the_end("--once", "--json")

    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["caught_up"]
    assert summary["dead_letters"] == 0
    assert stores.differences(stores.couchdb(couch_db), rows()) == []


@pytest.mark.proof  # fewer than 10,000 changes start no workers
@pytest.mark.timeout(1800)
def test_with_workers_interrupted_and_killed_it_ends_equal_to_the_source(couch, couch_db, tmp_path):
    """More than 10,000 changes behind, so that workers are started; none outlives its mirror."""
    count = 200_000
    _fill(couch_db, count)
    login = f"{couch.auth[0]}:{couch.auth[1]}@" if couch.auth else ""
    url = f"{couch.url.replace('://', f'://{login}')}/{couch_db.name}"
    typed = Typed(tmp_path, url, "sqlite:///out.sqlite", "--workers", "2")
    for number, after in ((signal.SIGINT, 500), (signal.SIGKILL, 2000), (signal.SIGKILL, 60_000)):
        code, _ = typed.interrupted(number, after=after)
        assert code == (0 if number == signal.SIGINT else -number)
    done = typed.to_the_end("--once", "--json")
    assert json.loads(done.stdout)["caught_up"], done.stderr
    wanted, found = stores.couchdb(couch_db), stores.sqlite(tmp_path / "out.sqlite", _name(couch_db))
    assert stores.differences(wanted, found) == []
    assert [each for each in psutil.process_iter() if _cwd(each) == str(tmp_path)] == []


def _cwd(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return process.cwd()
    return ""


def test_what_it_writes_as_yaml_does_the_same_from_the_same_place(couch_db, source, tmp_path):
    """The configuration has passwords as variables, and the columns that the mirror chose."""
    couch_db.fill(30, kind="x")
    typed = Typed(tmp_path, source, "sqlite:///out.sqlite")
    typed.to_the_end("--once")

    written = typed.to_the_end("--write-config", "mine.yaml")

    settings = yaml.safe_load((tmp_path / "mine.yaml").read_text())
    (pillow,) = settings["pillows"].values()
    assert pillow["transport"][0]["columns"]["kind"] == "kind text"
    assert "pillowd run --config mine.yaml" in written.stdout
    check = subprocess.run(
        [*PILLOWD, "status", "--json", "--config", "mine.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env=typed.environ | {"COUCHDB_PASSWORD": "unused"},
    )
    assert json.loads(check.stdout)["pillows"][0]["changes"] == 30


def test_columns_come_from_the_documents_beside_the_whole_document(couch_db, source, tmp_path):
    couch_db.put("a", {"name": "Ada", "age": 36, "nested": {"x": 1}})
    Typed(tmp_path, source, "sqlite:///out.sqlite").to_the_end("--once")

    with closing(sqlite3.connect(tmp_path / "out.sqlite")) as database:
        (row,) = database.execute(f"select name, age, doc from {_name(couch_db)}")

    assert row[:2] == ("Ada", 36)
    assert json.loads(row[2])["nested"] == {"x": 1}


def test_columns_that_were_chosen_once_stay(couch_db, source, tmp_path):
    """A later `--columns none` is refused and changes nothing, so the first command still works."""
    couch_db.put("a", {"name": "Ada"})
    typed = Typed(tmp_path, source, "sqlite:///out.sqlite")
    typed.to_the_end("--once")

    refused = typed.to_the_end("--once", "--columns", "none")
    couch_db.put("b", {"name": "Bob"})
    done = typed.to_the_end("--once")

    assert refused.returncode == 78
    assert "remove `--columns none`" in refused.stderr
    assert done.returncode == 0, done.stderr
    with closing(sqlite3.connect(tmp_path / "out.sqlite")) as database:
        assert database.execute(f"select name from {_name(couch_db)} order by _id").fetchall() == [
            ("Ada",),
            ("Bob",),
        ]


@pytest.fixture(params=["sqlite", "postgresql"])
def tables(request: Any, tmp_path: Path, couch_db: CouchDatabase) -> tuple[str, Any]:
    """An SQL target as it is typed, and what asks it."""
    if request.param == "sqlite":

        def ask(query: str) -> list[Any]:
            with closing(sqlite3.connect(tmp_path / "out.sqlite")) as database:
                return database.execute(query.format(_name(couch_db))).fetchall()

        return "sqlite:///out.sqlite", ask
    dsn = request.getfixturevalue("postgres_dsn")

    def ask_postgres(query: str) -> list[Any]:
        with psycopg.connect(dsn) as connection:
            return connection.execute(query.format(_name(couch_db)).encode()).fetchall()

    return dsn, ask_postgres


def test_no_document_is_left_out_for_what_the_sample_did_not_show(couch_db, source, tables, tmp_path):
    """Between the first and the newest 500: another number, and what is no number at all."""
    target, ask = tables
    couch_db.drop()
    couch_db.create(shards=1)  # of several the sample might show some of these
    odd = {"0600": 9.99, "0601": 2**53 - 1, "0602": "ten", "0603": [10], "0604": True, "0605": 2**80}
    couch_db.bulk({"_id": f"{n:04}", "price": odd.get(f"{n:04}", 10), "xmin": "x"} for n in range(1200))

    done = Typed(tmp_path, source, target).to_the_end("--once", "--json")

    assert (done.returncode, json.loads(done.stdout)["dead_letters"]) == (0, 0), done.stderr
    found = dict(ask("select _id, price from {} where _id between '0600' and '0606'"))
    assert (found["0601"], found["0606"]) == (2**53 - 1, 10)
    assert float(found["0600"]) == 9.99
    assert [found[id] for id in ("0602", "0603", "0604")] == [None] * 3
    whole = dict(ask("select _id, doc from {}"))
    assert len(whole) == 1200
    documents = {id: doc if isinstance(doc, dict) else json.loads(doc) for id, doc in whole.items()}
    assert {id: documents[id]["price"] for id in ("0602", "0603")} == {"0602": "ten", "0603": [10]}


def test_a_mirror_that_lost_its_state_keeps_the_columns_of_its_table(couch_db, source, tables, tmp_path):
    """Inferred anew they would be others: half of the rows would have nothing in them."""
    target, ask = tables
    couch_db.put("a", {"name": "Ada", "age": 36, "ok": True})
    Typed(tmp_path, source, target).to_the_end("--once")
    couch_db.put("a", {"name": 1, "other": "x"})
    couch_db.put("b", {"name": 2, "age": 0.5})

    done = Typed(tmp_path, source, target, "--state-dir", "elsewhere").to_the_end("--once")

    assert done.returncode == 0, done.stderr
    assert "columns" not in done.stdout + done.stderr
    rows = ask("select name, age, ok from {} order by _id")
    assert [(name, age and float(age), ok) for name, age, ok in rows] == [
        (None, None, None),
        (None, 0.5, None),
    ]


def test_where_documents_are_missing_it_fails_and_the_way_out_works(couch_db, source, tmp_path):
    """The columns are those that an earlier version chose, which refuse values that do not fit."""
    couch_db.put("a", {"price": 10})
    typed = Typed(tmp_path, source, "sqlite:///out.sqlite")
    typed.to_the_end("--write-config", "unused.yaml")
    (path,) = tmp_path.glob("pillowd-state/*/pillowd.yaml")
    settings = yaml.safe_load(path.read_text())
    (pillow,) = settings["pillows"].values()
    del pillow["transform"]
    pillow["transport"][0]["columns"] = {"price": "price bigint", "doc": "@ jsonb"}
    path.write_text(yaml.safe_dump(settings))
    couch_db.put("b", {"price": 9.99})

    done = typed.to_the_end("--once")

    assert done.returncode == 3
    assert "1 could not be written" in done.stdout
    assert "`--columns none --name OTHER`" in done.stdout
    other = typed.to_the_end("--once", "--columns", "none", "--name", "other")
    assert other.returncode == 0, other.stdout
    with closing(sqlite3.connect(tmp_path / "out.sqlite")) as database:
        assert database.execute("select count(*) from other").fetchone() == (2,)


def test_a_failed_mirror_s_remedy_can_be_pasted(couch_db, source, tmp_path):
    couch_db.put("a", {"price": 10})
    environ = {"COUCHDB_PASSWORD": couch_db.auth[1]}
    typed = Typed(tmp_path, source, "sqlite:///out.sqlite", environ=environ)
    typed.to_the_end("--once")
    with closing(sqlite3.connect(tmp_path / "out.sqlite")) as database:
        database.execute(f"drop table {_name(couch_db)}")

    failed = typed.to_the_end("--once")
    (remedy,) = set(re.findall(r"`(pillowd checkpoint reset [^`]*)`", failed.stderr))
    mended = subprocess.run(
        [*PILLOWD, *shlex.split(remedy)[1:]],
        cwd=tmp_path,
        env=typed.environ,
        capture_output=True,
        check=False,
    )

    assert failed.returncode == 1
    assert mended.returncode == 0, mended.stderr
    assert typed.to_the_end("--once").returncode == 0
    with closing(sqlite3.connect(tmp_path / "out.sqlite")) as database:
        assert database.execute(f"select price from {_name(couch_db)}").fetchall() == [(10,)]


@pytest.mark.parametrize("way", ["reset", "option"])
def test_i5_both_remedies_of_a_recreated_database_work_as_they_are_printed(
    couch_db: CouchDatabase, source: str, tmp_path: Path, way: str
) -> None:
    """`checkpoint reset` lacked its KEY, and `mirror` had no option `on_recreated`."""
    couch_db.put("old", {"price": 10})
    environ = {"COUCHDB_PASSWORD": couch_db.auth[1]} if couch_db.auth else {}
    typed = Typed(tmp_path, source, "sqlite:///out.sqlite", environ=environ)
    assert typed.to_the_end("--once").returncode == 0
    created = couch_db.info()["instance_start_time"]
    if created in (None, "0"):
        pytest.skip("this server does not tell when a database was created")
    while int(time.time()) <= int(created):
        time.sleep(0.05)
    couch_db.recreate()
    couch_db.put("new", {"price": 20})

    failed = typed.to_the_end("--once")
    assert failed.returncode == 1
    (reset,) = set(re.findall(r"`(pillowd checkpoint reset [^`]*)`", failed.stderr))
    (option,) = set(re.findall(r"`(--on-recreated [^`]*)`", failed.stderr))
    if way == "reset":
        command = [*PILLOWD, *shlex.split(reset)[1:]]
        done = subprocess.run(command, cwd=tmp_path, env=typed.environ, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
    mended = typed.to_the_end("--once", *(shlex.split(option) if way == "option" else ()))
    assert mended.returncode == 0, mended.stderr
    with closing(sqlite3.connect(tmp_path / "out.sqlite")) as database:
        assert database.execute(f"select _id, price from {_name(couch_db)}").fetchall() == [("new", 20)]


def test_a_password_that_the_warning_moved_into_the_environment_serves_and_nothing_is_forgotten(
    couch_db: CouchDatabase, source: str, postgres_dsn: str, tmp_path: Path
) -> None:
    """The password is in the URL at first, then where the warning advises; the same mirror continues."""
    parts = urlsplit(postgres_dsn)
    assert parts.password, "the test's server wants a password"
    couch_db.put("a", {"price": 10})
    first = Typed(tmp_path, source, postgres_dsn).to_the_end("--once")
    moved = postgres_dsn.replace(f":{parts.password}@", "@", 1)
    couch_db.put("b", {"price": 0.5, "other": "x"})

    done = Typed(tmp_path, source, moved, environ={"TARGET_PASSWORD": parts.password}).to_the_end("--once")

    assert "$TARGET_PASSWORD" in first.stderr
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("pillowd-state/*"))) == 1
    assert stores.postgres_count(postgres_dsn, _name(couch_db)) == 2


def test_a_pipe_gets_lines_instead_of_a_bar(couch_db, source, tmp_path):
    couch_db.fill(5)
    done = Typed(tmp_path, source, "jsonl:lines").to_the_end("--once")

    assert done.returncode == 0
    assert "5 changes" in done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize(
    ("source_url", "code", "why"),
    [
        ("http://127.0.0.1:9/nothing", 75, "refused"),
        ("http://u:s3cret-x@127.0.0.1:9", 78, "not the URL of a database"),
    ],
)
def test_what_cannot_work_is_said_at_once(source_url, code, why, tmp_path):
    done = Typed(tmp_path, source_url, "jsonl:lines").to_the_end()

    assert done.returncode == code
    assert why in done.stderr
    assert "s3cret-x" not in done.stderr + done.stdout


def test_a_database_that_is_not_there_is_said_at_once(couch, tmp_path):
    login = f"{couch.auth[0]}:{couch.auth[1]}@" if couch.auth else ""
    url = f"{couch.url.replace('://', f'://{login}')}/no-such-database"

    done = Typed(tmp_path, url, "sqlite:///x.sqlite").to_the_end()

    assert done.returncode == 1
    assert "create the database" in done.stderr

"""A load with worker processes: a pillow of a configuration, a real source, and workers that are killed."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from textwrap import dedent
from typing import Any

import gevent
import psutil
import pytest
from gevent.event import Event

from checkpoints import Checkpoint
from daemon.assembly.services import Services
from daemon.assembly.tails import build_tails
from daemon.config.load import load
from daemon.state_dir import open_state_dir
from pillows.clock import SystemClock
from pillows.errors import ConfigError
from pillows.parallel import pipeline
from pillows.runtime.status import State
from pillows.runtime.tail import Tail
from tests.servers.couch_client import CouchDatabase
from tests.support.recorder import Recorder
from tests.support.sizes import size
from tests.support.waiting import wait_until

DOCUMENTS = size(ci=1_500, proof=200_000)

FUNCTIONS = """
    import os, signal, time

    def rows(doc):
        return {"n": doc["n"], "pid": os.getpid()}

    def many(docs):
        return [rows(doc) for doc in docs]

    def crash(doc):
        if doc["n"] == 77:
            os.kill(os.getpid(), signal.SIGSEGV)
        return rows(doc)

    def refuse(doc):
        if doc["n"] == 77:
            raise ValueError("no 77")
        return rows(doc)

    def slow(doc):
        time.sleep(0.002)
        return rows(doc)
"""


class Load:
    """One pillow into SQLite, run in this process.

    Attributes:
        recorder: everything that was observed.
        tail: the tail that runs.
    """

    def __init__(
        self,
        folder: Path,
        couch: CouchDatabase,
        pillow: str,
        *,
        documents: str = "bulk_get",
        change_code: bool = False,
    ) -> None:
        (folder / "plugins").mkdir(exist_ok=True)
        self.module = f"worker_functions_{os.getpid()}_{abs(hash(str(folder)))}"
        self.code = folder / "plugins" / f"{self.module}.py"
        self.code.write_text(dedent(FUNCTIONS))
        self.path = folder / "copy.sqlite"
        auth = couch.auth
        login = f", auth: {{ type: basic, username: {auth[0]}, password: '{auth[1]}' }}" if auth else ""
        text = f"""
            version: 1
            daemon: {{ state_dir: {folder}/state, plugins_path: [{folder}/plugins] }}
            connections:
              couch: {{ type: couchdb, url: "{couch.server_url}"{login} }}
              copy: {{ type: sqlite, path: {self.path} }}
            pillows:
              cases:
                source: {{ connection: couch, database: "{couch.name}", documents: {documents} }}
                transport: [{{ connection: copy, table: cases, columns: {{ n: n int, pid: pid int }} }}]
                errors: {{ exception_text: true }}
        """
        more = dedent(pillow).replace("FUNCTIONS", self.module).replace("\n", "\n    ")
        (folder / "pillowd.yaml").write_text(dedent(text).rstrip() + "\n" + "    " + more.strip() + "\n")
        self.config = load(folder / "pillowd.yaml")
        self.recorder = Recorder()
        self.stop = Event()
        clock = SystemClock()
        self.state = open_state_dir(self.config.daemon.state_dir, clock)
        self._opened = self.state.__enter__()
        self.services = Services(
            store=self._opened.store,
            dead_letters=self._opened.dead_letters,
            clock=clock,
            observer=self.recorder,
        )
        ((self.key, self._factory),) = build_tails(self.config, self.services).items()
        if change_code:
            self.code.write_text(self.code.read_text() + "x = 1\n")
        self.tail: Tail = self._factory()
        self.greenlet = gevent.spawn(self.tail.run, self.stop)

    def until(self, condition: Callable[[], Any], seconds: float = 120.0) -> None:
        wait_until(condition, worker=self.greenlet, seconds=seconds)

    def until_live(self) -> None:
        self.until(lambda: self.tail.state is State.LIVE)

    def finish(self) -> Checkpoint | None:
        self.stop.set()
        self.greenlet.get(timeout=60)
        return self.services.store.get(self.key)

    def close(self) -> None:
        self.greenlet.kill()
        self.state.__exit__(None, None, None)

    @property
    def rows(self) -> dict[str, tuple[int, int]]:
        """Id -> number and process."""
        with closing(sqlite3.connect(self.path)) as db, suppress(sqlite3.OperationalError):
            return {id: (n, pid) for id, n, pid in db.execute("SELECT _id, n, pid FROM cases")}
        return {}  # no table yet

    @property
    def workers(self) -> list[int]:
        """The process ids of the workers that run now."""
        found = []
        for each in psutil.Process().children():
            with suppress(psutil.Error):  # it has ended meanwhile
                if "daemon.workers" in each.cmdline():
                    found.append(each.pid)
        return found


@pytest.fixture
def start(
    tmp_path: Path, couch_db: CouchDatabase, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Load]]:
    """Starts the load of a database with documents 0 to 2,999; workers start at 100 changes behind."""
    monkeypatch.setattr(pipeline, "FAR_BEHIND", 100)
    couch_db.bulk({"_id": f"d{n:06}", "n": n} for n in range(DOCUMENTS))
    made: list[Load] = []

    def start(pillow: str, **more: Any) -> Load:
        for former in made:
            former.close()
        made[:] = [Load(tmp_path, couch_db, pillow, **more)]
        return made[-1]

    yield start
    for each in made:
        each.close()
    assert each.workers == []


COMPLETE = {f"d{n:06}": n for n in range(DOCUMENTS)}


def numbers(load: Load) -> dict[str, int]:
    return {id: n for id, (n, _) in load.rows.items()}


@pytest.mark.parametrize("documents", ["include_docs", "bulk_get"])
def test_workers_carry_the_load_and_end_at_the_head(start, documents):
    load = start(
        """
        load: { workers: 2 }
        transform: { python: "FUNCTIONS:slow" }
        """,
        documents=documents,
    )
    load.until_live()
    assert numbers(load) == COMPLETE
    assert len({pid for _, pid in load.rows.values()}) >= 2
    load.until(lambda: not load.workers)
    assert load.finish().changes == DOCUMENTS


@pytest.mark.parametrize(
    ("steps", "kept"),
    [
        ("filter: { jmespath: \"id < 'd001000'\" }", lambda n: n < 1000),
        ('transform: { python: "FUNCTIONS:many", chunk: 50 }', lambda n: True),
    ],
    ids=["a filter of the change", "chunks"],
)
def test_other_pipelines_give_the_same_rows_in_workers(start, steps, kept):
    load = start(f"load: {{ workers: 2 }}\n{steps}")
    load.until_live()
    assert numbers(load) == {id: n for id, n in COMPLETE.items() if kept(n)}
    assert not load.recorder.of("dead_letter")
    taken = load.recorder.of("change")
    assert sum(each["count"] for each in taken) == DOCUMENTS
    assert sum(each["kept"] for each in taken) == len(numbers(load))


def test_a_document_that_fails_in_a_worker_is_the_same_dead_letter(start):
    load = start("""
        load: { workers: 1 }
        transform: { python: "FUNCTIONS:refuse" }
    """)
    load.until_live()
    (letter,) = load.recorder.of("dead_letter")
    assert (letter["id"], letter["stage"]) == ("d000077", "transform")
    assert "ValueError: no 77" in letter["error"]
    assert numbers(load) == {id: n for id, n in COMPLETE.items() if n != 77}


def test_a_document_that_crashes_workers_becomes_a_dead_letter(start):
    """At most 15 workers die of it, the daemon does not, and a retry has a worker of its own."""
    load = start("""
        load: { workers: 1 }
        transform: { python: "FUNCTIONS:crash" }
    """)
    load.until_live()
    assert numbers(load) == {id: n for id, n in COMPLETE.items() if n != 77}
    (letter,) = load.recorder.of("dead_letter")
    assert letter["id"] == "d000077"
    assert "killed the worker: crashed (SIGSEGV)" in letter["error"]
    ends = load.recorder.of("worker_ended")
    assert {each["cause"] for each in ends} == {"crashed"}
    assert len(ends) <= 15
    load.services.dead_letters.retry(load.key, [("-", "d000077")])
    load.until(lambda: len(load.recorder.of("dead_letter")) == 2)
    assert len(load.recorder.of("worker_ended")) > len(ends)


def test_workers_killed_from_outside_lose_nothing_and_make_no_dead_letter(start):
    load = start("""
        load: { workers: 2 }
        transform: { python: "FUNCTIONS:slow" }
    """)
    kills = size(ci=3, proof=300)
    for n in range(kills):
        load.until(lambda: load.workers or load.tail.state is State.LIVE)
        for pid in load.workers[:1]:
            os.kill(pid, signal.SIGSTOP if n == kills - 1 else signal.SIGKILL)
        gevent.sleep(0.3)
    for pid in load.workers:
        os.kill(pid, signal.SIGCONT)
    load.until_live()
    assert numbers(load) == COMPLETE
    assert not load.recorder.of("dead_letter")
    assert {each["cause"] for each in load.recorder.of("worker_ended")} == {"killed"}


def test_a_stop_ends_the_workers_and_the_next_run_goes_on(start):
    load = start("""
        load: { workers: 2 }
        transform: { python: "FUNCTIONS:slow" }
    """)
    load.until(lambda: len(load.rows) > 100)
    checkpoint = load.finish()
    assert load.workers == []
    assert checkpoint.changes == len(load.rows)
    again = start("""
        load: { workers: 2 }
        transform: { python: "FUNCTIONS:slow" }
    """)
    again.until_live()
    assert numbers(again) == COMPLETE


def test_an_isolated_pillow_keeps_one_worker_at_the_head(start, couch_db):
    load = start("""
        isolate: true
        transform: { python: "FUNCTIONS:rows" }
    """)
    load.until_live()
    (worker,) = load.workers
    couch_db.put("late", {"n": 1_000_000})
    load.until(lambda: "late" in load.rows)
    assert {pid for _, pid in load.rows.values()} == {worker}
    os.kill(worker, signal.SIGKILL)
    couch_db.put("later", {"n": 1_000_001})
    load.until(lambda: "later" in load.rows)
    assert load.rows["later"][1] not in {worker, os.getpid()}


def test_a_function_that_was_changed_meanwhile_is_not_called_in_workers(start, couch_db):
    """The daemon goes on alone, with the functions that it has."""
    load = start(
        """
        load: { workers: 2 }
        transform: { python: "FUNCTIONS:rows" }
        """,
        change_code=True,
    )
    load.until_live()
    assert numbers(load) == COMPLETE
    assert {pid for _, pid in load.rows.values()} == {os.getpid()}
    assert load.recorder.events() == ["workers.refused"]


def test_an_isolated_pillow_stops_when_its_function_was_changed(start):
    load = start(
        """
        isolate: true
        transform: { python: "FUNCTIONS:rows" }
        """,
        change_code=True,
    )
    with pytest.raises(ConfigError, match=r"changed since they were imported\. Remedy: `pillowd reload`"):
        load.greenlet.get(timeout=60)

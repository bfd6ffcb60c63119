"""Faults that strike the running daemon: on the lines, in the source, in each target, in the machine."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal

import gevent
import psycopg

from tests.chaos.lines import BULK, FEED, Interception, Line, answer_busy_items, answer_status, rewind_feed
from tests.chaos.stage import Stage, find_faketime, make_clock_environ
from tests.servers.process import Server
from tests.servers.tcp_proxy import Fault as LineFault

#: The steps of a fault. The first yields the environment to start the daemon with; the second lets the
#: fault strike; the third ends it, and yields whether it took effect.
Course = Iterator[dict[str, str] | bool | None]


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault.

    Attributes:
        name: the place and the fault there.
        course: see `Course`.
        rare: whether it takes long, and is drawn less often.
        rereads: whether changes are rightly read again, because the feed starts over or the disk keeps
            nothing; replays are not counted then.
        at_start: whether it also strikes while the daemon starts.
        on_line: whether it takes effect only when data passes a line.
        is_possible: returns whether this machine can have it.
    """

    name: str
    course: Callable[[Stage, random.Random], Course]
    rare: bool = False
    rereads: bool = False
    at_start: bool = False
    on_line: bool = False
    is_possible: Callable[[Stage], bool] = lambda _: True


def do_nothing(_stage: Stage, _random: random.Random) -> Course:
    yield {}
    yield None
    yield True


# --- on the lines


def _choose_line(stage: Stage, name: str, chance: random.Random) -> Line:
    return stage.lines[name if name == "elasticsearch" else chance.choice([name, f"{name} alone"])]


def reset_connections(name: str, stage: Stage, chance: random.Random) -> Course:
    yield {}
    line = _choose_line(stage, name, chance)
    line.fail(LineFault(kind="reset", after_bytes=chance.randint(0, 4000), times=3))
    line.reset()
    yield None
    yield line.faults_left() < 3


def stall(name: str, stage: Stage, chance: random.Random) -> Course:
    yield {}
    line = _choose_line(stage, name, chance)
    line.hits = 0
    line.stall()
    yield None
    yield line.hits > 0


def slow_down(name: str, stage: Stage, chance: random.Random) -> Course:
    yield {}
    line = _choose_line(stage, name, chance)
    line.hits = 0
    line.bytes_per_second = chance.choice([2_000, 20_000])
    yield None
    yield line.hits > 0


def refuse_connections(name: str, stage: Stage, chance: random.Random) -> Course:
    yield {}
    line = _choose_line(stage, name, chance)
    used = line.is_used()
    line.refuse()
    line.cut()
    yield None
    yield used


def cut_response(where: Literal["line", "chunk"], stage: Stage, chance: random.Random) -> Course:
    """Cut responses in the middle: three from the start of the daemon, and one when the fault strikes."""
    line = _choose_line(stage, "couch", chance)
    text = b'"changes":[{"rev":"' if where == "line" else b""
    before = [chance.randint(1_500, 30_000) for _ in range(3)]
    for after_bytes in before:
        line.fail(LineFault(kind="cut", after_bytes=after_bytes, after_text=text))
    yield {}
    line.fail(LineFault(kind="cut", after_bytes=chance.randint(300, 9_000), after_text=text))
    line.cut()
    yield None
    yield line.faults_left() < 4


def cut_both_ways(name: str, stage: Stage, chance: random.Random) -> Course:
    """Cut requests and answers in the middle."""
    yield {}
    line = _choose_line(stage, name, chance)
    line.hits = 0
    for _ in range(2):
        line.fail(LineFault(kind="cut", direction="to_server", after_bytes=chance.randint(300, 30_000)))
        line.fail(LineFault(kind="cut", after_bytes=chance.randint(100, 3_000)))
    line.cut()
    yield None
    yield line.hits > 0


# --- in the source


def answer_with_status(code: int, stage: Stage, chance: random.Random) -> Course:
    """Cut the open response of the feed, and answer its next requests with an error."""
    yield {}
    line = _choose_line(stage, "couch", chance)
    headers = {"Retry-After": "1"} if code == 429 else {}
    times = 1 if code == 401 else chance.randint(1, 3)
    line.hits = 0
    line.interceptions.append(Interception(FEED, times, answer=answer_status(code, **headers)))
    line.cut()
    yield None
    yield line.hits > 0


def rewind_source(stage: Stage, chance: random.Random) -> Course:
    yield {}
    line = _choose_line(stage, "couch", chance)
    line.hits = 0
    line.interceptions.append(Interception(FEED, 1, rewrite=rewind_feed))
    line.cut()
    yield None
    yield line.hits > 0


def recreate_database(stage: Stage, _: random.Random) -> Course:
    yield {}
    stage.writers["again"].recreate()
    yield None
    yield True


# --- in the targets


def fail_bulk(how: Literal["413", "items busy", "some items busy"], stage: Stage, _: random.Random) -> Course:
    yield {}
    line = stage.lines["elasticsearch"]
    line.hits = 0
    shares = {"items busy": 1.0, "some items busy": 0.5}
    answer = answer_status(413) if how == "413" else answer_busy_items(stage.elasticsearch.url, shares[how])
    line.interceptions.append(Interception(BULK, 3, answer=answer))
    line.cut()
    yield None
    yield line.hits > 0


_TRIGGER = """
create sequence if not exists chaos_seen;
create or replace function chaos() returns trigger language plpgsql as $$
begin
  if nextval('chaos_seen') <= {times} then raise exception 'chaos' using errcode = '{code}'; end if;
  return null;
end $$;
alter sequence chaos_seen restart;
create or replace trigger chaos after insert or update on {table} for each statement execute function chaos();
"""


def roll_back(code: str, stage: Stage, chance: random.Random) -> Course:
    """Let transactions fail, as PostgreSQL does on a deadlock (40P01) or a serialization failure (40001)."""
    yield {}
    table = chance.choice(["everything", "alone"])
    with psycopg.connect(stage.dsn(), autocommit=True) as connection:
        connection.execute("set lock_timeout = '2s'")
        with suppress(psycopg.errors.UndefinedTable, psycopg.errors.LockNotAvailable):
            connection.execute(_TRIGGER.format(times=3, code=code, table=table))
        yield None
        seen = connection.execute("select to_regclass('chaos_seen') is not null").fetchone()
        took_effect = seen == (True,) and connection.execute(
            "select is_called from chaos_seen"
        ).fetchone() == (True,)
        with suppress(psycopg.errors.UndefinedTable, psycopg.errors.LockNotAvailable):
            connection.execute(f"drop trigger if exists chaos on {table}")
        yield took_effect


def terminate_sessions(stage: Stage, _: random.Random) -> Course:
    yield {}
    with psycopg.connect(stage.dsn(), autocommit=True) as connection:
        found = connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and application_name like 'pillowd%'"
        ).fetchall()
    yield None
    yield bool(found)


def lock_sqlite(stage: Stage, _: random.Random) -> Course:
    """Hold SQLite's write lock for a while."""
    yield {}
    with closing(sqlite3.connect(stage.sqlite_path, isolation_level=None, check_same_thread=False)) as db:
        with suppress(sqlite3.OperationalError):
            db.execute("begin immediate")
        held = db.in_transaction
        yield None
        if db.in_transaction:
            db.execute("rollback")
        yield held


def kill_server(server: str, stage: Stage, _: random.Random) -> Course:
    yield {}
    process: Server = getattr(stage, server)
    process.kill()
    restart = gevent.spawn_later(0.3, process.start)
    yield None
    restart.get()
    yield True


# --- in the machine


def fail_disk(error: str, stage: Stage, chance: random.Random) -> Course:
    """Let writes to the state directory fail for a while."""
    place = chance.choice(["checkpoint-write", "checkpoint-rename", "checkpoint-fsync"])
    setting = f"{place}:{chance.randint(8, 16)}:{error}:{chance.randint(4, 40)}"
    yield {"PILLOWD_FAILPOINT": setting, "PILLOWD_TESTING": "1"}
    yield None
    log = stage.daemon.log.read_text(errors="replace")
    yield f"failpoint {place}" in log[stage.log_from :]


def fill_disk(stage: Stage, _: random.Random) -> Course:
    """Fill the small disk that holds the state directory."""
    yield {}
    filler = stage.disk_path / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    yield None
    log = stage.daemon.log.read_text(errors="replace")
    filler.unlink()
    yield "No space left" in log[stage.log_from :]


def move_clock(offset: str, stage: Stage, _: random.Random) -> Course:
    file = stage.folder / "faketime"
    environ = make_clock_environ("+0", file)
    yield environ
    if environ:
        file.write_text(offset)
    yield None
    yield bool(environ)


def _make_line_faults(pair: str) -> list[Fault]:
    kinds = {"reset": reset_connections, "half-open": stall, "slow": slow_down, "refused": refuse_connections}
    return [
        Fault(
            f"{pair}: {name}",
            partial(course, pair),
            on_line=name in ("half-open", "slow"),
        )
        for name, course in kinds.items()
    ]


def _make_disk_fault(error: str) -> Fault:
    return Fault(f"state: {error}", partial(fail_disk, error), rereads=True, at_start=True)


def _make_clock_fault(name: str, offset: str) -> Fault:
    return Fault(
        f"clock: {name}",
        partial(move_clock, offset),
        at_start=True,
        is_possible=lambda _: find_faketime() is not None,
    )


FAULTS = {
    fault.name: fault
    for fault in [
        Fault("none", do_nothing),
        *_make_line_faults("couch"),
        *_make_line_faults("postgres"),
        *_make_line_faults("elasticsearch"),
        *(
            Fault(f"{target}: cut mid-message", partial(cut_both_ways, target), on_line=True)
            for target in ("postgres", "elasticsearch")
        ),
        Fault("couch: cut mid-line", partial(cut_response, "line"), at_start=True, on_line=True),
        Fault("couch: cut mid-chunk", partial(cut_response, "chunk"), at_start=True, on_line=True),
        *(
            Fault(f"couch: {code}", partial(answer_with_status, code), on_line=True)
            for code in (401, 429, 500, 503)
        ),
        Fault("couch: rewound feed", rewind_source, rereads=True, on_line=True),
        Fault("couch: database recreated", recreate_database),
        Fault("couch: killed", partial(kill_server, "couch"), rare=True),
        *(
            Fault(f"elasticsearch: {how}", partial(fail_bulk, how), on_line=True)
            for how in ("413", "items busy", "some items busy")
        ),
        Fault("elasticsearch: killed", partial(kill_server, "elasticsearch"), rare=True),
        Fault("postgres: deadlock", partial(roll_back, "40P01")),
        Fault("postgres: serialization failure", partial(roll_back, "40001")),
        Fault("postgres: session terminated", terminate_sessions),
        Fault("postgres: killed", partial(kill_server, "postgres"), rare=True),
        Fault("sqlite: locked", lock_sqlite),
        _make_disk_fault("ENOSPC"),
        _make_disk_fault("EIO"),
        Fault("state: disk full", fill_disk, rereads=True, is_possible=lambda stage: stage.small_disk),
        _make_clock_fault("an hour back", "-1h"),
        _make_clock_fault("a day forward", "+1d"),
    ]
}

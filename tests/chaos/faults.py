"""What goes wrong while the daemon runs: on the lines, in the source, in each target, in the machine."""

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

from tests.chaos.lines import BULK, FEED, Interception, Line, busy_items, rewound, status
from tests.chaos.stage import Stage, clock, library
from tests.servers.process import Server
from tests.servers.tcp_proxy import Fault as LineFault

#: Gives the environment that the daemon is to start with, then strikes, then ends and gives whether it
#: was felt.
Course = Iterator[dict[str, str] | bool | None]


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault.

    Attributes:
        name: of the place and of what is wrong there.
        course: see `Course`.
        rare: it takes long, so it is drawn less often.
        rereads: the feed gives what it gave before, or the disk does not keep it: replays are no measure.
        at_start: it strikes a daemon that is started with it.
        on_line: it is felt when something passes a line.
        possible: whether this machine can have it.
    """

    name: str
    course: Callable[[Stage, random.Random], Course]
    rare: bool = False
    rereads: bool = False
    at_start: bool = False
    on_line: bool = False
    possible: Callable[[Stage], bool] = lambda _: True


def nothing(_stage: Stage, _random: random.Random) -> Course:
    yield {}
    yield None
    yield True


# --- on the lines


def _line(stage: Stage, name: str, chance: random.Random) -> Line:
    return stage.lines[name if name == "elasticsearch" else chance.choice([name, f"{name} alone"])]


def reset(name: str, stage: Stage, chance: random.Random) -> Course:
    yield {}
    line = _line(stage, name, chance)
    line.fail(LineFault(kind="reset", after_bytes=chance.randint(0, 4000), times=3))
    line.reset()
    yield None
    yield line.faults_left() < 3


def half_open(name: str, stage: Stage, chance: random.Random) -> Course:
    yield {}
    line = _line(stage, name, chance)
    line.felt = 0
    line.stall()
    yield None
    yield line.felt > 0


def slow(name: str, stage: Stage, chance: random.Random) -> Course:
    yield {}
    line = _line(stage, name, chance)
    line.felt = 0
    line.bytes_per_second = chance.choice([2_000, 20_000])
    yield None
    yield line.felt > 0


def refused(name: str, stage: Stage, chance: random.Random) -> Course:
    yield {}
    line = _line(stage, name, chance)
    used = line.is_used()
    line.refuse()
    line.cut()
    yield None
    yield used


def cut(where: Literal["line", "chunk"], stage: Stage, chance: random.Random) -> Course:
    """From the start, when there is something to catch up with, and again when it strikes."""
    line = _line(stage, "couch", chance)
    text = b'"changes":[{"rev":"' if where == "line" else b""
    before = [chance.randint(1_500, 30_000) for _ in range(3)]
    for after_bytes in before:
        line.fail(LineFault(kind="cut", after_bytes=after_bytes, after_text=text))
    yield {}
    line.fail(LineFault(kind="cut", after_bytes=chance.randint(300, 9_000), after_text=text))
    line.cut()
    yield None
    yield line.faults_left() < 4


def halved(name: str, stage: Stage, chance: random.Random) -> Course:
    """Requests that arrive in part, and answers."""
    yield {}
    line = _line(stage, name, chance)
    line.felt = 0
    for _ in range(2):
        line.fail(LineFault(kind="cut", direction="to_server", after_bytes=chance.randint(300, 30_000)))
        line.fail(LineFault(kind="cut", after_bytes=chance.randint(100, 3_000)))
    line.cut()
    yield None
    yield line.felt > 0


# --- in the source


def answers(code: int, stage: Stage, chance: random.Random) -> Course:
    """In mid-feed: the response that is open ends, and the next ones are refused."""
    yield {}
    line = _line(stage, "couch", chance)
    headers = {"Retry-After": "1"} if code == 429 else {}
    times = 1 if code == 401 else chance.randint(1, 3)
    line.felt = 0
    line.interceptions.append(Interception(FEED, times, answer=status(code, **headers)))
    line.cut()
    yield None
    yield line.felt > 0


def rewind(stage: Stage, chance: random.Random) -> Course:
    yield {}
    line = _line(stage, "couch", chance)
    line.felt = 0
    line.interceptions.append(Interception(FEED, 1, rewrite=rewound))
    line.cut()
    yield None
    yield line.felt > 0


def recreated(stage: Stage, _: random.Random) -> Course:
    yield {}
    stage.writers["again"].recreate()
    yield None
    yield True


# --- in the targets


def bulk(how: Literal["413", "items busy", "some items busy"], stage: Stage, _: random.Random) -> Course:
    yield {}
    line = stage.lines["elasticsearch"]
    line.felt = 0
    shares = {"items busy": 1.0, "some items busy": 0.5}
    answer = status(413) if how == "413" else busy_items(stage.elasticsearch.url, shares[how])
    line.interceptions.append(Interception(BULK, 3, answer=answer))
    line.cut()
    yield None
    yield line.felt > 0


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


def rollback(code: str, stage: Stage, chance: random.Random) -> Course:
    """As PostgreSQL ends a transaction: deadlock_detected, serialization_failure."""
    yield {}
    table = chance.choice(["everything", "alone"])
    with psycopg.connect(stage.dsn(), autocommit=True) as connection:
        connection.execute("set lock_timeout = '2s'")
        with suppress(psycopg.errors.UndefinedTable, psycopg.errors.LockNotAvailable):
            connection.execute(_TRIGGER.format(times=3, code=code, table=table))
        yield None
        seen = connection.execute("select to_regclass('chaos_seen') is not null").fetchone()
        felt = seen == (True,) and connection.execute("select is_called from chaos_seen").fetchone() == (
            True,
        )
        with suppress(psycopg.errors.UndefinedTable, psycopg.errors.LockNotAvailable):
            connection.execute(f"drop trigger if exists chaos on {table}")
        yield felt


def terminated(stage: Stage, _: random.Random) -> Course:
    yield {}
    with psycopg.connect(stage.dsn(), autocommit=True) as connection:
        found = connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and application_name like 'pillowd%'"
        ).fetchall()
    yield None
    yield bool(found)


def locked(stage: Stage, _: random.Random) -> Course:
    """Somebody else holds SQLite's write lock for a while."""
    yield {}
    with closing(sqlite3.connect(stage.sqlite_path, isolation_level=None, check_same_thread=False)) as db:
        with suppress(sqlite3.OperationalError):
            db.execute("begin immediate")
        held = db.in_transaction
        yield None
        if db.in_transaction:
            db.execute("rollback")
        yield held


def killed(server: str, stage: Stage, _: random.Random) -> Course:
    yield {}
    process: Server = getattr(stage, server)
    process.kill()
    restart = gevent.spawn_later(0.3, process.start)
    yield None
    restart.get()
    yield True


# --- in the machine


def disk(error: str, stage: Stage, chance: random.Random) -> Course:
    """The state directory takes nothing for a while."""
    place = chance.choice(["checkpoint-write", "checkpoint-rename", "checkpoint-fsync"])
    setting = f"{place}:{chance.randint(8, 16)}:{error}:{chance.randint(4, 40)}"
    yield {"PILLOWD_FAILPOINT": setting, "PILLOWD_TESTING": "1"}
    yield None
    log = stage.daemon.log.read_text(errors="replace")
    yield f"failpoint {place}" in log[stage.log_from :]


def full(stage: Stage, _: random.Random) -> Course:
    """The small disk of the state directory is full, for real."""
    yield {}
    filler = stage.disk_path / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    yield None
    log = stage.daemon.log.read_text(errors="replace")
    filler.unlink()
    yield "No space left" in log[stage.log_from :]


def clock_jump(offset: str, stage: Stage, _: random.Random) -> Course:
    file = stage.folder / "faketime"
    environ = clock("+0", file)
    yield environ
    if environ:
        file.write_text(offset)
    yield None
    yield bool(environ)


def _on(pair: str) -> list[Fault]:
    kinds = {"reset": reset, "half-open": half_open, "slow": slow, "refused": refused}
    return [
        Fault(
            f"{pair}: {name}",
            partial(course, pair),
            on_line=name in ("half-open", "slow"),
        )
        for name, course in kinds.items()
    ]


def _on_disk(error: str) -> Fault:
    return Fault(f"state: {error}", partial(disk, error), rereads=True, at_start=True)


def _of_clock(name: str, offset: str) -> Fault:
    return Fault(
        f"clock: {name}",
        partial(clock_jump, offset),
        at_start=True,
        possible=lambda _: library() is not None,
    )


FAULTS = {
    fault.name: fault
    for fault in [
        Fault("none", nothing),
        *_on("couch"),
        *_on("postgres"),
        *_on("elasticsearch"),
        *(
            Fault(f"{target}: cut mid-message", partial(halved, target), on_line=True)
            for target in ("postgres", "elasticsearch")
        ),
        Fault("couch: cut mid-line", partial(cut, "line"), at_start=True, on_line=True),
        Fault("couch: cut mid-chunk", partial(cut, "chunk"), at_start=True, on_line=True),
        *(Fault(f"couch: {code}", partial(answers, code), on_line=True) for code in (401, 429, 500, 503)),
        Fault("couch: rewound feed", rewind, rereads=True, on_line=True),
        Fault("couch: database recreated", recreated),
        Fault("couch: killed", partial(killed, "couch"), rare=True),
        *(
            Fault(f"elasticsearch: {how}", partial(bulk, how), on_line=True)
            for how in ("413", "items busy", "some items busy")
        ),
        Fault("elasticsearch: killed", partial(killed, "elasticsearch"), rare=True),
        Fault("postgres: deadlock", partial(rollback, "40P01")),
        Fault("postgres: serialization failure", partial(rollback, "40001")),
        Fault("postgres: session terminated", terminated),
        Fault("postgres: killed", partial(killed, "postgres"), rare=True),
        Fault("sqlite: locked", locked),
        _on_disk("ENOSPC"),
        _on_disk("EIO"),
        Fault("state: disk full", full, rereads=True, possible=lambda stage: stage.small_disk),
        _of_clock("an hour back", "-1h"),
        _of_clock("a day forward", "+1d"),
    ]
}

"""What writing into PostgreSQL costs: the transport against plain COPY of the same bytes.

    python -m bench.postgres_write [--documents 100000] [--batch 1000] [--profile first-pass]

Starts a server of its own, or takes PILLOWD_BENCH_POSTGRES_DSN (whose CPU is only seen when it runs on
this machine). Prints documents per second, and microseconds per document: on the clock, of this process's
CPU, and of the server process's.
"""

from __future__ import annotations

from typing import Any, cast

from gevent import monkey

monkey.patch_all()

import argparse
import cProfile
import os
import pstats
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import msgspec
import psutil
import psycopg
from msgspec.structs import replace

from checkpoints import Checkpoint, Seq, TailKey
from pillows.models import Batch, DocumentRows
from pillows.transports.postgres.options import PostgresConnection, PostgresOutput
from pillows.transports.postgres.transport import PostgresTransport
from tests.servers.postgres import Postgres

KEY = TailKey("bench", "couch/bench")
MAPPED = {
    "name": "name text",
    "opened_on": "opened_on timestamptz",
    "amount": "amount numeric",
    "city": "address.city text",
    "tags": "tags jsonb",
}


def documents(count: int, version: int = 1) -> list[DocumentRows]:
    """Documents of about 500 bytes, as the feed brings them: ids in random order, JSON as bytes."""
    seeded = random.Random(7)
    made = []
    for n in range(count):
        id = f"{seeded.getrandbits(128):032x}"
        rev = f"{version}-{seeded.getrandbits(128):032x}"
        body = {
            "_id": id,
            "_rev": rev,
            "type": "case",
            "name": f'Name "{n}" é',
            "opened_on": "2024-01-02T03:04:05Z",
            "amount": round(seeded.random() * 1000, 2),
            "address": {"street": f"{n} Some Street", "city": "Springfield"},
            "tags": ["a", "b", "c"],
        }
        raw = msgspec.json.encode(body | {"pad": "x" * max(0, 490 - len(msgspec.json.encode(body)))})
        made.append(
            DocumentRows(
                id=id, rev=rev, leaf_version=version, rows={"docs": [msgspec.Raw(raw)]}, size_bytes=len(raw)
            )
        )
    return made


class Meter:
    """Clock and CPU of a stretch of work."""

    def __init__(self, count: int, server: psutil.Process | None) -> None:
        self._count = count
        self._server = server

    @contextmanager
    def measured(self, name: str) -> Iterator[None]:
        before = self._now()
        yield
        wall, mine, theirs = (
            (after - start) / self._count * 1e6 for after, start in zip(self._now(), before, strict=True)
        )
        print(f"{name:34} {1e6 / wall:9.0f} {wall:9.2f} {mine:9.2f} {theirs:9.2f}", flush=True)

    def _now(self) -> tuple[float, float, float]:
        theirs = self._server.cpu_times() if self._server else None
        return time.monotonic(), time.process_time(), theirs.user + theirs.system if theirs else 0.0


def process_of(pid: int) -> psutil.Process | None:
    """The server's process, if it runs here."""
    return psutil.Process(pid) if psutil.pid_exists(pid) and os.path.exists(f"/proc/{pid}") else None


def copy_lines(batch: list[DocumentRows]) -> bytes:
    """The bytes that the simplest client of COPY would send."""
    return b"".join(
        [
            b"%b\t%b\t%d\t%b\n"
            % (
                d.id.encode(),
                d.rev.encode(),
                1,
                bytes(cast("msgspec.Raw", d.rows["docs"][0])).replace(b"\\", b"\\\\"),
            )
            for d in batch
        ]
    )


def plain_copy(dsn: str, batches: list[list[DocumentRows]], count: int) -> None:
    """COPY alone, each batch committed."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("drop table if exists plain")
        connection.execute(
            'create table plain (_id text collate "C" primary key, _rev text, _version bigint, doc jsonb)'
        )
        connection.execute("checkpoint")
        meter = Meter(count, process_of(connection.info.backend_pid))
        with meter.measured("plain COPY, sorted batches"), connection.cursor() as cursor:
            for batch in batches:
                with cursor.copy("copy plain from stdin") as copy:
                    copy.write(copy_lines(sorted(batch, key=lambda d: d.id)))


def backend_of(dsn: str) -> int:
    """The server's process id for the transport's session."""
    with psycopg.connect(dsn) as connection:
        found = connection.execute(
            "select pid from pg_stat_activity where application_name = %s", (f"pillowd {KEY}",)
        )
        return int(found.fetchall()[0][0])


@contextmanager
def opened(dsn: str, **outputs: PostgresOutput) -> Iterator[tuple[PostgresTransport, psutil.Process | None]]:
    """An open transport, and the server's process for it."""
    transport = PostgresTransport("bench", KEY, PostgresConnection(dsn=dsn), outputs)
    try:
        transport.open()
        transport.acquire(Checkpoint(seq=Seq.BEGINNING))
        yield transport, process_of(backend_of(dsn))
    finally:
        transport.close()


def write_all(
    transport: PostgresTransport,
    batches: list[list[DocumentRows]],
    *,
    epoch: int = 1,
    first_pass: bool = False,
) -> None:
    """Writes all batches, each with its checkpoint."""
    for number, batch in enumerate(batches):
        seq = replace(Checkpoint(seq=Seq.of(f"{number}-{'g1AAAA' * 20}")), epoch=epoch)
        transport.write(Batch(documents=batch, epoch=epoch, first_pass=first_pass, checkpoint=seq))


def spoilt(batches: list[list[DocumentRows]]) -> list[list[DocumentRows]]:
    """The same with one document in a hundred that the table refuses for good."""
    bad = msgspec.Raw(b'{"amount": "no number"}')
    return [
        [
            msgspec.structs.replace(d, rows={"docs": [bad]}) if n % 100 == 50 else d
            for n, d in enumerate(batch)
        ]
        for batch in batches
    ]


def scenarios(
    dsn: str, batches: list[list[DocumentRows]], count: int
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Name and work of what is measured, in this order on the same tables."""
    later = [[msgspec.structs.replace(d, leaf_version=2) for d in batch] for batch in batches]

    def run(name: str, output: PostgresOutput, batches: list[list[DocumentRows]], **more: Any) -> None:
        with opened(dsn, docs=output) as (transport, process), Meter(count, process).measured(name):
            write_all(transport, batches, **more)

    docs, staged = PostgresOutput(table="docs"), PostgresOutput(table="staged")
    mapped, typed = (PostgresOutput(table=t, columns=MAPPED) for t in ("mapped", "typed"))
    yield "first-pass", lambda: run("documents, first pass", docs, batches, first_pass=True)
    yield "replay", lambda: run("documents, replayed (all refused)", docs, batches)
    yield "update", lambda: run("documents, each updated", docs, later)
    yield "staged", lambda: run("documents, new, not a first pass", staged, batches)
    yield "mapped", lambda: run("five columns, first pass", mapped, batches, first_pass=True)
    yield "mapped-bad", lambda: run("five columns, 1 % bad", typed, spoilt(batches))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--only", action="append", help="only these scenarios")
    parser.add_argument("--profile", action="store_true", help="profile our side of each scenario")
    asked = parser.parse_args()
    with ExitStack() as stack:
        dsn = os.environ.get("PILLOWD_BENCH_POSTGRES_DSN")
        if not dsn:
            dsn = stack.enter_context(Postgres(settings={"fsync": "on", "max_wal_size": "4GB"})).dsn
        made = documents(asked.documents)
        batches = [made[n : n + asked.batch] for n in range(0, len(made), asked.batch)]
        print(f"{'':34} {'docs/s':>9} {'us':>9} {'us ours':>9} {'us server':>9}")
        plain_copy(dsn, batches, len(made))
        for name, work in scenarios(dsn, batches, len(made)):
            if asked.only and name not in asked.only:
                continue
            profile = cProfile.Profile()
            if asked.profile:
                profile.enable()
            work()
            if asked.profile:
                profile.disable()
                pstats.Stats(profile).sort_stats("tottime").print_stats(18)


if __name__ == "__main__":
    main()

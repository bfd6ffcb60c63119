"""`verify` on many documents: exactly what was planted is found, in bounded memory."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from tests.acceptance.process import ROOT
from tests.sizes import size

DOCUMENTS = size(ci=5_000, proof=1_000_000)
MAX_MIB = 150

#: Ids whose order in bytes is not that of a language: the source counts down, targets sort as they do.
PROGRAM = """
from gevent import monkey; monkey.patch_all()
import json, resource, sys, time
from checkpoints import Checkpoint, Seq, TailKey
from pillows.clock import SystemClock
from pillows.feed_contract import Identity
from pillows.filters import KeepAll
from pillows.models import Change, ChangeBatch
from pillows.pillow import Pillow
from pillows.registry import transport
from pillows.transforms import PassThrough
from pillows.verify import Subject, Verifier
from pillows.verify_scratch import Scratch

count, sqlite_path, dsn = int(sys.argv[1]), sys.argv[2], sys.argv[3]

class Feed:
    def identify(self):
        return Identity()
    def batches(self, since, identity, stop):
        if since == Seq.BEGINNING:
            for end in range(count, 0, -1000):
                ids = [f"{'Zzaé'[n % 4]}-{n}" for n in range(end, max(0, end - 1000), -1)]
                changes = [Change(id, ("2-aa",), 2) for id in ids]
                yield ChangeBatch(changes=changes, seq=Seq.of(count - end + 1))
        yield ChangeBatch(changes=(), seq=Seq.of(count), caught_up=True)
    def fetch(self, change):
        raise AssertionError("no document is needed")

def made(type, options):
    kind = transport(type)
    connection = kind.Connection.model_validate(options)
    outputs = {"documents": kind.Output.model_validate({"table": "documents"})}
    return kind(type, TailKey("p", "c/d"), connection, outputs)

transports = [made("sqlite", {"path": sqlite_path}), made("postgres", {"dsn": dsn})]
subject = Subject(
    pillow=Pillow(name="p", outputs=["documents"], filter=KeepAll(), transform=PassThrough(["documents"])),
    feed=Feed(), transports=transports, checkpoint=lambda: Checkpoint(seq=Seq.of(count)), dead=lambda: [],
    clock=SystemClock(), wait_seconds=0.0,
)
began = time.monotonic()
with Scratch() as scratch:
    report = Verifier(subject, scratch).verify()
print(json.dumps({
    "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    "seconds": round(time.monotonic() - began, 1),
    "documents": report.documents,
    "found": {found.target: found.counts for found in report.targets},
}))
"""

#: In each table: every document but three, one of them too old, one too much, in an epoch of its own.
ROWS = "'1-aa', 2199023255554"
PLANT = (
    "delete from documents where _id in ('Z-4', 'z-5', 'é-7')",
    "update documents set _version = _version - 1 where _id = 'a-6'",
    f"insert into documents (_id, _rev, _version) values ('nobody', {ROWS})",
)


def fill_sqlite(path: Path) -> None:
    ids = ((f"{'Zzaé'[n % 4]}-{n}",) for n in range(1, DOCUMENTS + 1))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("create table documents (_id text primary key, _rev text, _version integer)")
        db.executemany(f"insert into documents values (?, '2-aa', {2**41 + 2})", ids)
        for statement in PLANT:
            db.execute(statement)


def fill_postgres(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("create table documents (_id text primary key, _rev text, _version bigint)")
        connection.execute(
            "insert into documents select substr('Zzaé', n %% 4 + 1, 1) || '-' || n, '2-aa', %s"
            " from generate_series(1, %s) n",
            [2**41 + 2, DOCUMENTS],
        )
        for statement in PLANT:
            connection.execute(statement)


@pytest.mark.timeout(size(ci=60, proof=900))
def test_exactly_what_was_planted_is_found_among_a_million_in_150_mib(
    tmp_path: Path, postgres_dsn: str
) -> None:
    path = tmp_path / "target.sqlite"
    fill_sqlite(path)
    fill_postgres(postgres_dsn)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(DOCUMENTS), str(path), postgres_dsn],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    print(f"\nverify: {facts}")
    expected = {"missing": 3, "stale": 1, "phantom": 1}
    assert facts["found"] == {"sqlite/documents": expected, "postgres/documents": expected}
    assert facts["documents"] == DOCUMENTS
    assert facts["mib"] < MAX_MIB

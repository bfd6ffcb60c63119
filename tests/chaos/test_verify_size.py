"""`verify` on many documents: exactly what was planted is found and repaired, in bounded memory."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pillows.models import leaf_version_of, write_version
from tests.acceptance.process import PILLOWD, Pillowd
from tests.chaos.filled_targets import (
    FilledCouchdb,
    FilledElasticsearch,
    FilledPostgres,
    FilledSqlite,
    FilledTarget,
    StoredVersion,
    cut_parts,
)
from tests.conftest import CouchServer
from tests.servers.couch_client import CouchDatabase
from tests.support.sizes import size

DOCUMENTS = size(ci=3_000, proof=1_000_000)
MAX_MIB = 150
REV, VERSION = "2-" + "a" * 32, 2
#: What ids begin with: their order in bytes is not a language's.
FIRST = "Zzaé\uffee"


def id_of(number: int) -> str:
    return f"{FIRST[number % len(FIRST)]}-{number}"


class Planted:
    """The planted differences of one target; each target has others.

    Args:
        number: the target's.
    """

    def __init__(self, number: int) -> None:
        first = 100 * number
        self.missing = [id_of(first + 3), id_of(first + 4), id_of(DOCUMENTS - first)]
        self.older, self.newer = id_of(first + 10), id_of(first + 11)
        self.phantoms = [f"{FIRST[number]}-nobody", f"{FIRST[-1]}\n-nobody"]

    def rows(self) -> Iterator[StoredVersion]:
        """Yield the documents of the target."""
        missing = set(self.missing)
        for id in map(id_of, range(1, DOCUMENTS + 1)):
            if id not in missing:
                yield id, write_version(1, VERSION - (id == self.older) + (id == self.newer))
        for id in self.phantoms:
            yield id, write_version(1, VERSION)

    def found(self) -> dict[str, set[str]]:
        """Return kind -> ids of the differences that must be found."""
        stale = {self.older, self.newer}
        return {"missing": set(self.missing), "stale": stale, "phantom": set(self.phantoms)}

    def ids(self) -> list[str]:
        return [*self.missing, self.older, self.newer, *self.phantoms]


@pytest.fixture
def copy(couch: CouchServer, couch_db: CouchDatabase) -> Iterator[CouchDatabase]:
    """The target in CouchDB."""
    database = couch.database(f"{couch_db.name}-copy").create()
    yield database
    database.drop()
    database.close()


@pytest.fixture
def pillowd(
    tmp_path: Path,
    couch_db: CouchDatabase,
    copy: CouchDatabase,
    postgres_dsn: str,
    elasticsearch_url: str,
    es_prefix: str,
) -> Iterator[Pillowd]:
    """A pillow with one target of each kind, all created and empty, after it has stopped."""
    login = dict(zip(("username", "password"), couch_db.auth or (), strict=False))
    auth = {"auth": {"type": "basic", **login}} if login else {}
    connections: dict[str, Any] = {
        "couch": {"type": "couchdb", "url": couch_db.server_url, **auth},
        "postgres": {"type": "postgres", "dsn": postgres_dsn},
        "elasticsearch": {"type": "elasticsearch", "hosts": [elasticsearch_url]},
        "sqlite": {"type": "sqlite", "path": str(tmp_path / "target.sqlite")},
    }
    transport = [
        {"connection": "postgres", "table": "cases"},
        {"connection": "sqlite", "table": "cases"},
        {"connection": "elasticsearch", "index": f"{es_prefix}cases", "mapping": {"dynamic": False}},
        {"connection": "couch", "database": copy.name},
    ]
    pillow = {"source": {"connection": "couch", "database": couch_db.name}, "transport": transport}
    folder = tmp_path / "pillowd"
    folder.mkdir()
    with Pillowd(folder, pillows={"cases": pillow}, connections=connections) as daemon:
        daemon.start()
        daemon.wait_for(lambda: daemon.state("cases") == "live", seconds=60)
        assert daemon.stop() == 0
        yield daemon


def fill(database: CouchDatabase) -> None:
    for numbers in cut_parts(range(DOCUMENTS, 0, -1)):
        database.bulk(({"_id": id_of(number), "_rev": REV} for number in numbers), new_edits=False)


def verify(daemon: Pillowd, folder: Path, *options: str) -> tuple[int, Any, dict[str, float]]:
    """Run `pillowd verify`; return exit code, facts, and time and memory used."""
    printed, complaints = folder / "stdout", folder / "stderr"
    began = time.monotonic()
    with printed.open("wb") as stdout, complaints.open("wb") as stderr:
        child = subprocess.Popen(
            [*PILLOWD, "verify", "cases", "--json", "--config", str(daemon.config), *options],
            stdout=stdout,
            stderr=stderr,
        )
        most_mib = 0.0
        while child.poll() is None:
            most_mib = _peak_mib(child.pid) or most_mib
            time.sleep(0.02)
    assert child.returncode in (0, 3), complaints.read_text()
    took = {"mib": round(most_mib, 1), "seconds": round(time.monotonic() - began, 1)}
    return child.returncode, json.loads(printed.read_text()), took


def _peak_mib(pid: int) -> float:
    """Return the peak resident memory. Unlike `ru_maxrss`, it leaves out the parent's before `exec`."""
    try:
        found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except (FileNotFoundError, ProcessLookupError):  # it ends just now
        return 0.0
    return int(found[1]) / 1024 if found else 0.0


def examples(facts: Any) -> dict[str, dict[str, set[str]]]:
    return {
        found["target"].partition("/")[0]: {kind: set(ids) for kind, ids in found["examples"].items()}
        for found in facts["targets"]
    }


@pytest.mark.timeout(size(ci=180, proof=3600))
def test_exactly_what_was_planted_among_a_million_is_found_and_repaired_in_150_mib(
    pillowd: Pillowd,
    couch_db: CouchDatabase,
    copy: CouchDatabase,
    tmp_path: Path,
    postgres_dsn: str,
    elasticsearch_url: str,
    es_prefix: str,
) -> None:
    holders: Sequence[FilledTarget] = [
        FilledPostgres(postgres_dsn),
        FilledSqlite(tmp_path / "target.sqlite"),
        FilledElasticsearch(elasticsearch_url, f"{es_prefix}cases"),
        FilledCouchdb(copy),
    ]
    planted = {holder.name: Planted(number) for number, holder in enumerate(holders)}
    fill(couch_db)
    for holder in holders:
        holder.fill(planted[holder.name].rows(), REV)
    head = couch_db.info()["update_seq"]
    pillowd.ask("checkpoint", "set", "cases", str(head))

    code, facts, took = verify(pillowd, tmp_path, "--repair")
    print(f"\nverify, repair: {DOCUMENTS:,} documents in {len(holders)} targets: {took}")
    before = facts["before_repair"]
    assert (before["documents"], before["in_flight"]) == (DOCUMENTS, 0)
    assert examples(before) == {name: each.found() for name, each in planted.items()}
    assert [found["counts"] for found in before["targets"]] == [
        {"missing": 3, "stale": 2, "phantom": 2}
    ] * len(holders)

    assert (code, facts["equal"]) == (0, True)
    for holder in holders:
        wrong = planted[holder.name]
        right = dict.fromkeys([*wrong.missing, wrong.older, wrong.newer], VERSION)
        stored = holder.get_versions(wrong.ids())
        assert {id: leaf_version_of(each) for id, each in stored.items()} == right
        assert holder.count() == DOCUMENTS
    assert took["mib"] < MAX_MIB

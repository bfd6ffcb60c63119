"""`pillowd verify --content`: rows that were edited in a target, past pillowd, are found and repaired."""

from __future__ import annotations

import json
import random
import re
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import psycopg
import requests

from tests.acceptance.process import PILLOWD, Pillowd
from tests.acceptance.world import World, live
from tests.support.sizes import size

DOCUMENTS = size(ci=500, proof=100_000)
EDITS = size(ci=12, proof=100)
MAX_MIB = 150

#: Columns of every kind that a target may store otherwise than it was sent.
COLUMNS = {
    "n": "n bigint",
    "price": "price numeric(10,2)",
    "at": "at timestamp(3)",
    "moment": "at timestamptz",
    "tags": "tags text[]",
    "tag_text": "tags text",
    "raw": "nested json",
    "nested": "nested jsonb",
    "ratio": "ratio real",
    "short": "short char(5)",
    "ok": "ok boolean",
}
SQLITE_COLUMNS = {"n": "n integer", "price": "price real", "tag_text": "tags text", "nested": "nested json"}
LINE_COLUMNS = {"sku": "sku text", "count": "count integer"}


def documents(count: int, seed: int = 1) -> Iterator[dict[str, Any]]:
    drawn = random.Random(seed)
    for number in range(count):
        yield {
            "_id": f"case-{number:06}",
            "n": number,
            "price": round(drawn.uniform(0, 1000), 4),
            "at": f"2024-02-{1 + number % 28:02}T10:11:12.{drawn.randrange(10**6):06}",
            "tags": [drawn.choice(["a", 'b"', "ü,", ""]) for _ in range(number % 4)],
            "nested": {"b": drawn.random(), "a": {"z": None, "y": [1, 1.5, True]}},
            "ratio": drawn.random(),
            "short": "abc"[: number % 4],
            "ok": number % 2 == 0,
            "lines": [{"sku": f"s{k}", "count": k} for k in range(number % 5)],
        }


def build(world: World, *, count: int = DOCUMENTS) -> Pillowd:
    """A daemon that has copied the documents, whole and into columns with child rows."""
    drawn = documents(count)
    while part := list(islice(drawn, 5_000)):
        world.couch.bulk(part)
    lines = {"table": "lines", "many": True, "columns": LINE_COLUMNS}
    mapped = {
        "source": {"connection": "couch", "database": world.couch.name},
        "outputs": ["mapped", "lines"],
        "transform": {"rows": {"lines": {"each": "lines"}}},
        "transport": [
            {
                "connection": "postgres",
                "outputs": {"mapped": {"table": "mapped", "columns": COLUMNS}, "lines": lines},
            },
            {
                "connection": "sqlite",
                "outputs": {"mapped": {"table": "mapped", "columns": SQLITE_COLUMNS}, "lines": lines},
            },
        ],
    }
    daemon = world.pillowd({"cases": world.pillow("cases"), "mapped": mapped}).start()
    daemon.wait_for(lambda: live(daemon), seconds=600)
    return daemon


def verify(daemon: Pillowd, pillow: str, *options: str) -> tuple[int, dict[str, Any]]:
    done = daemon.command_here("verify", pillow, "--content", "--json", *options)
    assert done.returncode in (0, 3), done.stderr
    return done.returncode, json.loads(done.stdout)


def counts(facts: dict[str, Any]) -> dict[str, dict[str, int]]:
    return {found["target"]: found["counts"] for found in facts["targets"]}


Execute = Callable[[str], Any]

#: Edits of a row of `cases`, and of `mapped` and its child rows, in SQL that both databases take.
CASE_EDITS = ["update cases set doc = '{{}}' where _id = '{id}'"]
MAPPED_EDITS = [
    "update mapped set n = n + 1 where _id = '{id}'",
    "update mapped set price = price + 1 where _id = '{id}'",
    "update mapped set tag_text = null where _id = '{id}'",
    "update lines set count = count + 1 where _id = '{id}' and _row = 0",
    "insert into lines (_id, _row, sku, count) values ('{id}', 9, 'more', 1)",
    "delete from lines where _id = '{id}' and _row = 1",
]


def edit_sql(execute: Execute, statements: Sequence[str], ids: Sequence[str]) -> None:
    for number, id in enumerate(ids):
        execute(statements[number % len(statements)].format(id=id))


def edit_elasticsearch(world: World, ids: Sequence[str]) -> None:
    """Edit documents; half of them keep the version, as no client does by accident."""
    url = f"{world.elasticsearch_url}/{world.alias('cases')}"
    for number, id in enumerate(ids):
        if number % 2:
            held = requests.get(f"{url}/_doc/{id}", timeout=30).json()
            place = f"{url}/_doc/{id}?version={held['_version']}&version_type=external_gte"
            requests.put(place, json=held["_source"] | {"n": "edited"}, timeout=30).raise_for_status()
        else:
            body = {"doc": {"n": "edited"}}
            requests.post(f"{url}/_update/{id}", json=body, timeout=30).raise_for_status()


def test_i6_random_edits_are_found_and_repaired_in_bounded_memory(world: World) -> None:
    """`verify` finds no difference before the edits, nor after `--repair`."""
    daemon = build(world)
    for pillow in ("cases", "mapped"):
        code, facts = verify(daemon, pillow)
        assert (code, facts["equal"], facts["compared"]) == (0, True, DOCUMENTS), facts

    drawn = random.Random(6)
    # With two child rows at least, so that every edit changes something.
    ids = [f"case-{n:06}" for n in drawn.sample([n for n in range(DOCUMENTS) if n % 5 >= 2], EDITS)]
    with psycopg.connect(world.postgres_dsn, autocommit=True) as postgres:
        edit_sql(postgres.execute, CASE_EDITS, ids)
        edit_sql(postgres.execute, MAPPED_EDITS, ids)
    with closing(sqlite3.connect(world.sqlite_path, isolation_level=None, timeout=30)) as sqlite:
        edit_sql(sqlite.execute, CASE_EDITS, ids)
        edit_sql(sqlite.execute, MAPPED_EDITS, ids)
    edit_elasticsearch(world, ids)

    before, took = repair_measured(daemon, "cases", world.folder)
    altered = {"missing": 0, "stale": 0, "phantom": 0, "altered": EDITS}
    in_elasticsearch = altered | {"stale": EDITS - EDITS // 2, "altered": EDITS // 2}
    assert counts(before) == {
        "postgres/cases": altered,
        "sqlite/cases": altered,
        "elasticsearch/cases": in_elasticsearch,
    }
    assert took["mib"] < MAX_MIB, took
    before, took = repair_measured(daemon, "mapped", world.folder)
    of_rows = sum(1 for number in range(EDITS) if number % len(MAPPED_EDITS) < 3)
    for target in ("postgres", "sqlite"):
        assert counts(before)[f"{target}/mapped"] == altered | {"altered": of_rows}
        assert counts(before)[f"{target}/lines"] == altered | {"altered": EDITS - of_rows}
    assert took["mib"] < MAX_MIB, took
    assert world.differences("cases") == {}


def repair_measured(daemon: Pillowd, pillow: str, folder: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """Repair; return what was found before, and the peak of memory and the seconds that it took."""
    printed = folder / "printed.json"
    began, most_mib = time.monotonic(), 0.0
    with printed.open("wb") as stdout:
        command = [*PILLOWD, "verify", pillow, "--content", "--repair", "--json"]
        child = subprocess.Popen([*command, "--config", str(daemon.config)], stdout=stdout)
        while child.poll() is None:
            found = re.search(r"VmHWM:\s*(\d+)", Path(f"/proc/{child.pid}/status").read_text())
            most_mib = int(found[1]) / 1024 if found else most_mib
            time.sleep(0.02)
    facts = json.loads(printed.read_text())
    took = {"mib": round(most_mib, 1), "seconds": round(time.monotonic() - began, 1)}
    print(f"\nverify --content --repair of {pillow}: {DOCUMENTS:,} documents: {took}")
    assert (child.returncode, facts["equal"]) == (0, True), facts
    return facts["before_repair"], took


def test_i6_a_sample_is_drawn_again_by_its_seed(world: World) -> None:
    daemon = build(world, count=300)
    with closing(sqlite3.connect(world.sqlite_path, isolation_level=None, timeout=30)) as sqlite:
        sqlite.execute("update cases set doc = '{}'")
    code, facts = verify(daemon, "cases", "--sample", "40")
    found = counts(facts)["sqlite/cases"]
    assert (code, facts["compared"], found["altered"]) == (3, 40, 40)
    again = verify(daemon, "cases", "--sample", "40", "--seed", str(facts["seed"]))[1]
    assert again == facts
    said = daemon.command_here("verify", "cases", "--content", "--sample", "5").stdout
    assert re.search(r"5 documents drawn at random with --seed \d+", said), said
    assert "the contents of 5 documents are compared" in said


def test_i6_a_replica_is_not_compared_by_contents(world: World) -> None:
    """A replica's revisions are digests of its documents; `verify --content` says so and fails."""
    replica = {"connection": "couch", "database": f"{world.couch.name}-copy", "mode": "replicate"}
    world.couch.bulk(documents(3))
    daemon = world.pillowd({"cases": world.pillow("cases", transport=[replica])}).start()
    daemon.wait_for(lambda: live(daemon))
    done = daemon.command_here("verify", "cases", "--content")
    assert done.returncode == 78, done.stderr
    assert "equal revisions are equal documents" in done.stderr
    assert daemon.command_here("verify", "cases").returncode == 0

"""`pillowd dead-letter` while the real daemon runs, and on its files."""

from __future__ import annotations

import sqlite3
import subprocess
import textwrap
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.process import PILLOWD, Pillowd, couchdb
from tests.servers.couch_client import CouchDatabase

PLUGIN = """
    from pathlib import Path

    def rows(doc):
        if doc["n"] % 2 and Path("broken").exists():
            raise ValueError("the mill is broken")
        return {"n": doc["n"]}
"""


@pytest.fixture
def pillowd(tmp_path: Path, couch: Any, couch_db: CouchDatabase) -> Iterator[Pillowd]:
    server = couchdb(couch.url, couch.auth)
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "mill_rows.py").write_text(textwrap.dedent(PLUGIN))
    (tmp_path / "broken").touch()
    couch_db.bulk([{"_id": f"d{n}", "n": n} for n in range(6)])
    pillow = {
        "source": {"connection": "couch", "database": couch_db.name},
        "transform": {"python": "mill_rows:rows"},
        "transport": [{"connection": "local", "table": "cases", "columns": {"n": "n integer"}}],
    }
    with Pillowd(
        tmp_path,
        pillows={"cases": pillow},
        connections={"couch": server, "local": {"type": "sqlite", "path": str(tmp_path / "t.sqlite")}},
        daemon={"plugins_path": [str(tmp_path / "plugins")]},
    ) as made:
        yield made


def stored(tmp_path: Path) -> list[int]:
    with closing(sqlite3.connect(tmp_path / "t.sqlite")) as db:
        return [n for (n,) in db.execute("select n from cases order by n")]


def test_they_are_listed_shown_retried_and_discarded(pillowd: Pillowd, tmp_path: Path) -> None:
    pillowd.start()
    pillowd.wait_for(lambda: pillowd.state("cases") == "live")
    dead_letters = pillowd.ask("dead-letter", "list", "cases")
    assert {each["id"] for each in dead_letters} == {"d1", "d3", "d5"}
    (shown,) = pillowd.ask("dead-letter", "show", "cases", "d3")
    where = tmp_path / "plugins" / "mill_rows.py"
    assert shown["error"] == f"ValueError ({where}:6, in rows)"
    assert (shown["stage"], shown["tries"], shown["aborted"]) == ("transform", 1, False)
    assert "given up" not in pillowd.command("dead-letter", "list", "cases").stdout

    # Mended: those that are named are tried at once, the others keep their pause.
    (tmp_path / "broken").unlink()
    done = pillowd.command("dead-letter", "retry", "cases", "d1")
    assert "1 dead letter will be retried" in done.stdout
    pillowd.wait_for(lambda: pillowd.status("cases")["dead_letters"] == 2)
    assert stored(tmp_path) == [0, 1, 2, 4]
    assert pillowd.command("dead-letter", "retry", "cases").returncode == 2
    assert pillowd.command("dead-letter", "retry", "cases", "nobody").returncode == 1
    assert pillowd.stop() == 0

    # Without a daemon: what is retried waits for the next start; what is discarded is gone.
    assert pillowd.ask("dead-letter", "discard", "cases", "d5")["discarded"] == 1
    assert pillowd.ask("dead-letter", "retry", "cases", "--all")["retried"] == 1
    pillowd.start()
    pillowd.wait_for(lambda: pillowd.status("cases")["dead_letters"] == 0)
    assert stored(tmp_path) == [0, 1, 2, 3, 4]


def test_a_damaged_store_is_refused_and_the_remedy_that_is_told_loses_no_document(
    pillowd: Pillowd, tmp_path: Path
) -> None:
    """The daemon does not start over a cut line; after a repair, `verify` finds the document of that line."""
    pillowd.start()
    pillowd.wait_for(
        lambda: pillowd.state("cases") == "live" and pillowd.status("cases")["dead_letters"] == 3
    )
    assert pillowd.stop() == 0
    store = tmp_path / "state" / "dead-letters"
    segment = store / "0.json"
    segment.write_bytes(segment.read_bytes()[:-40])

    pillowd.start(ready=False)
    assert pillowd.ended() == 1
    said = pillowd.log.read_text()
    for part in ("0.json line 3", f"pillowd store repair {store} INTO", "pillowd verify KEY --repair"):
        assert part in said, said

    copy = tmp_path / "copy"
    subprocess.run([*PILLOWD, "store", "repair", store, copy], capture_output=True, check=True, timeout=60)
    store.rename(tmp_path / "damaged")
    copy.rename(store)
    pillowd.start()
    pillowd.wait_for(lambda: pillowd.state("cases") == "live")
    assert pillowd.status("cases")["dead_letters"] == 2
    assert pillowd.command("verify", "cases").returncode == 3, "a document is missing, and nothing says why"
    pillowd.command("verify", "cases", "--repair")
    pillowd.wait_for(lambda: pillowd.status("cases")["dead_letters"] == 3)
    assert pillowd.command("verify", "cases").returncode == 0
    assert pillowd.stop() == 0

"""`pillowd dead-letter` beside the real daemon, and on its files."""

from __future__ import annotations

import sqlite3
import textwrap
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.process import Pillowd
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
    server: dict[str, Any] = {"type": "couchdb", "url": couch.url}
    if couch.auth:
        server["auth"] = {"type": "basic", "username": couch.auth[0], "password": couch.auth[1]}
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


def test_l6_they_are_listed_shown_retried_and_discarded(pillowd: Pillowd, tmp_path: Path) -> None:
    pillowd.start()
    pillowd.wait_for(lambda: pillowd.state("cases") == "live")
    letters = pillowd.ask("dead-letter", "list", "cases")
    assert {each["id"] for each in letters} == {"d1", "d3", "d5"}
    (shown,) = pillowd.ask("dead-letter", "show", "cases", "d3")
    assert shown["error"] == "ValueError: the mill is broken"
    assert (shown["stage"], shown["tries"], shown["aborted"]) == ("transform", 1, False)
    assert "given up" not in pillowd.command("dead-letter", "list", "cases").stdout

    # Mended: those that are named are tried at once, the others keep their pause.
    (tmp_path / "broken").unlink()
    done = pillowd.command("dead-letter", "retry", "cases", "d1")
    assert "1 dead letter will be tried again" in done.stdout
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

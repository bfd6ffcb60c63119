"""A trigger of the user's, in the real daemon."""

from __future__ import annotations

import sqlite3
import textwrap
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.acceptance.process import Pillowd, couchdb
from tests.servers.couch_client import CouchDatabase

PLUGIN = """
    from pillows import register

    def extract(change, read, suffix):
        doc = read()
        return None if doc is None or doc.get("hidden") else {"_id": change.id, "n": f"{doc['n']}{suffix}"}

    @register("trigger", "exclaim")
    def exclaim(change, read):
        return extract(change, read, "!")
"""


def test_g5_a_trigger_of_ones_own_makes_the_documents(
    tmp_path: Path, couch: Any, couch_db: CouchDatabase
) -> None:
    plugins = tmp_path / "plugins"
    plugins.mkdir(mode=0o755)
    (plugins / "own_trigger.py").write_text(textwrap.dedent(PLUGIN))
    couch_db.bulk([{"_id": "a", "n": 1}, {"_id": "b", "n": 2}, {"_id": "c", "n": 3, "hidden": True}])

    def pillow(table: str, trigger: dict[str, Any]) -> dict[str, Any]:
        return {
            "source": {"connection": "couch", "database": couch_db.name},
            "trigger": trigger,
            "transport": [{"connection": "local", "table": table, "columns": {"n": "n text"}}],
        }

    with Pillowd(
        tmp_path,
        pillows={
            "by_path": pillow("by_path", {"python": "own_trigger:extract", "args": {"suffix": "?"}}),
            "by_name": pillow("by_name", {"name": "exclaim"}),
        },
        connections={
            "couch": couchdb(couch.url, couch.auth),
            "local": {"type": "sqlite", "path": str(tmp_path / "target.sqlite")},
        },
        daemon={"plugins_path": [str(plugins)]},
    ) as pillowd:
        assert pillowd.command("check").returncode == 0
        pillowd.start()
        pillowd.wait_for(lambda: {pillowd.state("by_path"), pillowd.state("by_name")} == {"live"})

        def read(table: str) -> Any:
            with closing(sqlite3.connect(tmp_path / "target.sqlite")) as database:
                return database.execute(f"select _id, n from {table} order by 1").fetchall()

        assert read("by_path") == [("a", "1?"), ("b", "2?")]
        assert read("by_name") == [("a", "1!"), ("b", "2!")]
        couch_db.put("b", {"n": 2, "hidden": True})
        pillowd.wait_for(lambda: read("by_name") == [("a", "1!")])
        assert pillowd.command("verify", "by_name").returncode == 0
        assert pillowd.stop() == 0

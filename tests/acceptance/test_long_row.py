"""A document that is longer than `source.max_document`, in every way of reading the feed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

from tests.acceptance.process import Pillowd, couchdb
from tests.servers.couch_client import CouchDatabase

WAYS = list(product(("include_docs", "bulk_get"), ("continuous", "longpoll")))


def test_b5_a_row_over_max_document_is_a_dead_letter_and_the_rest_goes_on(
    tmp_path: Path, couch: Any, couch_db: CouchDatabase
) -> None:
    long = {"text": "x" * 1_500_000}
    couch_db.bulk([{"_id": "a"}, {"_id": "early", **long}, {"_id": "b"}])
    pillows = {
        f"{documents}-{mode}": {
            "source": {
                "connection": "couch",
                "database": couch_db.name,
                "documents": documents,
                "mode": mode,
                "max_document": "1MiB",
            },
            "transport": [{"connection": "local", "table": f"{documents}_{mode}"}],
        }
        for documents, mode in WAYS
    }
    target = tmp_path / "target.sqlite"
    with Pillowd(
        tmp_path,
        pillows=pillows,
        connections={
            "couch": couchdb(couch.url, couch.auth),
            "local": {"type": "sqlite", "path": str(target)},
        },
    ) as pillowd:

        def ids() -> list[list[str]]:
            with closing(sqlite3.connect(target)) as database:
                queries = [f"select _id from {documents}_{mode} order by 1" for documents, mode in WAYS]
                return [[id for (id,) in database.execute(query)] for query in queries]

        def dead(count: int) -> bool:
            found = [pillowd.status(name) for name in pillows]
            return all((each["state"], each["dead_letters"]) == ("live", count) for each in found)

        pillowd.start()
        pillowd.wait_for(lambda: dead(1))
        assert ids() == [["a", "b"]] * len(WAYS)
        couch_db.put("late", long)
        couch_db.put("c", {})
        pillowd.wait_for(lambda: dead(2))
        pillowd.wait_for(lambda: ids() == [["a", "b", "c"]] * len(WAYS))
        for name in pillows:
            listed = pillowd.command_here("dead-letter", "list", name, "--json").stdout
            assert listed.count("1048576 bytes") == 2, listed
            assert "early" in listed
            assert "late" in listed
        # A document that has become shorter is written, and one that is deleted is gone.
        couch_db.put("late", {"_rev": couch_db.get("late")["_rev"], "n": 1})
        couch_db.delete("early")
        pillowd.wait_for(lambda: dead(0))
        assert ids() == [["a", "b", "c", "late"]] * len(WAYS)
        assert pillowd.stop() == 0

"""A daemon compares targets with their source by itself, and repairs them where it may."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.acceptance.process import Pillowd, couchdb
from tests.servers.couch_client import CouchDatabase


@pytest.fixture
def daemon(tmp_path: Path, couch: Any, couch_db: CouchDatabase) -> Iterator[Pillowd]:
    def pillow(name: str, *, repair: bool) -> dict[str, Any]:
        return {
            "source": {"connection": "couch", "database": couch_db.name},
            "transport": [{"connection": "tables", "table": name}],
            "verify": {"every": "200ms", "repair": repair},
        }

    tables = {"type": "sqlite", "path": str(tmp_path / "target.sqlite")}
    with Pillowd(
        tmp_path,
        pillows={"mended": pillow("mended", repair=True), "watched": pillow("watched", repair=False)},
        connections={"couch": couchdb(couch.url, couch.auth), "tables": tables},
    ) as made:
        yield made


def test_a_row_that_was_lost_is_reported_and_repaired_where_that_is_asked_for(
    daemon: Pillowd, couch_db: CouchDatabase
) -> None:
    couch_db.fill(20)
    daemon.start()
    daemon.wait_for(lambda: len(found(daemon)) >= 2)
    assert {event["level"] for event in found(daemon)} == {"info"}
    assert all(event["differences"] == {"tables": zero()} for event in found(daemon))

    with closing(sqlite3.connect(daemon.folder / "target.sqlite", timeout=30)) as database, database:
        for table in ("mended", "watched"):
            database.execute(f"delete from {table} where _id in ('doc-000003', 'doc-000004')")
    daemon.wait_for(lambda: any(event["repaired"] == 2 for event in found(daemon, "mended")))
    daemon.wait_for(lambda: any(event["level"] == "error" for event in found(daemon, "watched")))
    event = next(event for event in found(daemon, "watched") if event["level"] == "error")
    assert event["differences"] == {"tables": zero() | {"missing": 2}}
    # A status may be some seconds old.
    daemon.wait_for(lambda: shown(daemon, "watched")["differences"] == {"tables": zero() | {"missing": 2}})
    daemon.wait_for(lambda: shown(daemon, "mended")["differences"] == {"tables": zero()})
    assert shown(daemon, "watched")["at"] > 0
    assert event["remedy"] == f"`pillowd verify watched@couch/{couch_db.name} --repair`"
    with closing(sqlite3.connect(daemon.folder / "target.sqlite")) as database:
        assert database.execute("select count(*) from mended").fetchone() == (20,)
        assert database.execute("select count(*) from watched").fetchone() == (18,)
    assert daemon.stop() == 0


def test_a_configuration_that_is_not_loaded_yet_is_not_compared_with(daemon: Pillowd) -> None:
    settings = yaml.safe_load(daemon.config.read_text())
    del settings["pillows"]["watched"]
    daemon.config.write_text(yaml.safe_dump(settings))
    daemon.start()
    daemon.wait_for(lambda: found(daemon))
    settings["pillows"]["mended"]["filter"] = {"jmespath": "doc.n > `3`"}
    daemon.config.write_text(yaml.safe_dump(settings))
    daemon.wait_for(lambda: daemon.events("verify.failed"))
    assert "was not reloaded. Remedy: `pillowd reload`" in daemon.events("verify.failed")[0]["reason"]


def shown(daemon: Pillowd, name: str) -> Any:
    """Returns the last comparison, as `status` shows it."""
    return daemon.status(name)["comparison"]


def zero() -> dict[str, int]:
    return {"missing": 0, "stale": 0, "extra": 0}


def found(daemon: Pillowd, name: str = "") -> list[dict[str, Any]]:
    return [each for each in daemon.events("verify.completed") if each["pillow"].startswith(name)]

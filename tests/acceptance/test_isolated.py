"""A function of an isolated pillow blocks, crashes or leaks in its worker, and no other pillow notices."""

from __future__ import annotations

import time

import psutil

from tests.acceptance.process import Pillowd, couchdb
from tests.acceptance.stores import sqlite
from tests.support.waiting import wait_until

FUNCTIONS = """
import os, signal

def block(doc):
    while doc["n"] == 3:
        pass
    return doc

def crash(doc):
    if doc["n"] == 3:
        os.kill(os.getpid(), signal.SIGABRT)
    return doc
"""


def test_an_isolated_pillow_that_blocks_or_crashes_harms_no_other_and_a_stop_leaves_no_process(
    couch, couch_db, tmp_path
):
    couch_db.bulk({"_id": f"d{n}", "n": n} for n in range(10))
    (tmp_path / "isolated_functions.py").write_text(FUNCTIONS)

    def pillow(name: str, **more):
        source = {"connection": "couch", "database": couch_db.name}
        return {"source": source, "transport": [{"connection": "local", "table": name}], **more}

    pillows = {
        "good": pillow("good"),
        "blocks": pillow("blocks", isolate=True, transform={"python": "isolated_functions:block"}),
        "crashes": pillow("crashes", isolate=True, transform={"python": "isolated_functions:crash"}),
    }
    local = {"type": "sqlite", "path": str(tmp_path / "target.sqlite")}
    with Pillowd(
        tmp_path,
        pillows=pillows,
        connections={"couch": couchdb(couch.url, couch.auth), "local": local},
        daemon={"plugins_path": [str(tmp_path)]},
    ) as daemon:
        daemon.start()
        daemon.wait_for(lambda: daemon.state("good") == "live")
        daemon.wait_for(lambda: daemon.status("crashes")["dead_letters"] == 1)
        daemon.wait_for(lambda: daemon.state("crashes") == "live")
        couch_db.put("late", {"n": 100})
        daemon.wait_for(lambda: "late" in sqlite(tmp_path / "target.sqlite", "good"))
        daemon.wait_for(lambda: "late" in sqlite(tmp_path / "target.sqlite", "crashes"))
        assert daemon.state("blocks") != "live"
        ends = daemon.events("worker.ended")
        assert {each["how"] for each in ends} == {"crashed (SIGABRT)"}
        assert len(ends) <= 15
        children = psutil.Process(daemon.child.pid).children()
        assert len(children) == 2
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < 25  # DRAIN_SECONDS for what was begun, on a busy machine
        wait_until(lambda: not any(each.is_running() for each in children), seconds=10)
    assert "d3" not in sqlite(tmp_path / "target.sqlite", "blocks")

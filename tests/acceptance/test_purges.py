"""Purges reach every target, also those that the source no longer lists when pillowd comes back."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from tests.acceptance.process import Pillowd
from tests.acceptance.world import TARGETS, World, live, statuses
from tests.servers.couch_client import CouchDatabase
from tests.support.sizes import size

DOCUMENTS, PURGED, LISTED = size(ci=80, proof=4000), size(ci=32, proof=1600), size(ci=20, proof=1000)


def purge_beyond_the_list(couch: CouchDatabase, *, purged: int = PURGED, listed: int = LISTED) -> set[str]:
    """Purge documents, so that the source lists only the last ones; return the ids of all."""
    ids = sorted(id for id in couch.documents() if not id.startswith("_design/"))[:purged]
    couch.request("PUT", "/_purged_infos_limit", json=listed)
    for begin in range(0, len(ids), 100):
        group = ids[begin : begin + 100]
        couch.request("POST", "/_purge", json={id: [couch.get(id)["_rev"]] for id in group})
    couch.request("POST", "/_compact", json={})
    deadline = time.monotonic() + 60
    while len(couch.request("GET", "/_purged_infos").json()["purged_infos"]) > listed:
        assert time.monotonic() < deadline, "the source was not compacted"
        time.sleep(0.1)
    return set(ids)


def start(world: World, *targets: str, **source: object) -> Pillowd:
    pillow = world.pillow("cases", *targets, source={"join_overlap": "1s", **source})
    return world.pillowd({"cases": pillow}, checkpoints={"interval": "200ms"}).start()


def test_a3_purges_missed_while_down_are_gone_from_every_target_without_a_human(world: World) -> None:
    """600 of them stayed for good: of 1,600 the source listed 1,000."""
    world.fill(DOCUMENTS)
    daemon = start(world)
    daemon.wait_for(lambda: live(daemon), seconds=120)
    assert daemon.stop() == 0

    purged = purge_beyond_the_list(world.couch)
    world.couch.put("later", {"n": 1})
    daemon.start()
    daemon.wait_for(lambda: live(daemon) and not world.differences("cases"), seconds=120)
    (compared,) = daemon.events("purges.compared")
    assert compared["removed"] >= PURGED - LISTED
    for target in TARGETS:
        assert not purged & world.read(target, "cases").keys()
    assert daemon.stop() == 0

    daemon.start()
    daemon.wait_for(lambda: live(daemon))
    assert len(daemon.events("purges.compared")) == 1, "the gap is closed"


def test_a3_more_than_is_removed_without_asking_waits_for_a_human(world: World) -> None:
    """The remedy is run as it is printed."""
    world.fill(60)
    daemon = start(world, "sqlite", max_missed_purges=3)
    daemon.wait_for(lambda: live(daemon))
    assert daemon.stop() == 0
    purge_beyond_the_list(world.couch, purged=20, listed=5)
    daemon.start()
    daemon.wait_for(lambda: statuses(daemon).get("cases", {}).get("state") == "failed")
    reason = statuses(daemon)["cases"]["reason"]
    tail = f"cases@couch/{world.couch.name}"
    assert "of 60 documents that targets hold; at most 3 are removed without asking" in reason, reason
    assert f"`pillowd verify {tail} --repair`, and `pillowd restart {tail}`" in reason, reason

    assert daemon.command_here("verify", tail, "--repair").returncode == 0
    assert daemon.command_here("restart", tail).returncode == 0
    daemon.wait_for(lambda: live(daemon))
    assert world.differences("cases", "sqlite") == {}


@pytest.mark.proof
def test_a2_purged_documents_are_gone_from_every_target_within_30_s(world: World) -> None:
    """Meanwhile somebody writes once a second, so that no response of the feed ends."""
    world.fill(200)
    daemon = start(world)
    daemon.wait_for(lambda: live(daemon))
    purged = sorted(id for id in world.couch.documents() if not id.startswith("_design/"))[:50]

    enough = threading.Event()
    client = CouchDatabase(world.couch.server_url, world.couch.name, auth=world.couch.auth)

    def write() -> None:
        number = 0
        while not enough.wait(1.0):
            client.put(f"steady-{number}", n=number)
            number += 1

    with ThreadPoolExecutor(1) as pool, closing(client):
        done = pool.submit(write)
        try:
            time.sleep(5)
            for id in purged:
                world.couch.purge(id)
            began = time.monotonic()
            held = {target: set(purged) for target in TARGETS}
            while any(held.values()) and time.monotonic() - began < 60:
                held = {target: set(purged) & world.read(target, "cases").keys() for target in TARGETS}
                time.sleep(0.2)
            seconds = time.monotonic() - began
        finally:
            enough.set()
        done.result()
    print(f"\n50 purged documents were gone from {len(TARGETS)} targets after {seconds:.1f} s")
    assert not any(held.values())
    assert seconds < 30

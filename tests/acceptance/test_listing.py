"""A first pass from the list of documents: killed, and while others write, it leaves every target equal."""

from __future__ import annotations

import signal

from tests.acceptance.process import Pillowd
from tests.acceptance.world import World, call, complete, statuses
from tests.support.sizes import size

TARGETS = ("sqlite", "postgres", "elasticsearch")


def read_changes(daemon: Pillowd) -> int:
    found = statuses(daemon).get("cases", {"changes": 0})
    return int(found["changes"])


def wait_for_changes(daemon: Pillowd, count: int) -> None:
    """Wait until so many changes more are read, or none is left."""
    before = read_changes(daemon)
    daemon.wait_for(lambda: read_changes(daemon) > before + count or complete(daemon))


def is_listing(daemon: Pillowd) -> bool:
    return str(call(daemon, "get_checkpoint", key="cases")["seq"]).startswith("['_all_docs'")


def test_a_listing_goes_on_after_kill_9_and_ends_equal(world: World) -> None:
    count = size(ci=1000, proof=20_000)
    ids = [f"gone-{n:05}" for n in range(6 * count)]
    for start in range(0, len(ids), 5000):
        written = world.couch.bulk({"_id": id} for id in ids[start : start + 5000])
        world.couch.bulk({"_id": each["id"], "_rev": each["rev"], "_deleted": True} for each in written)
    world.fill(count)
    # Slowly, so that a kill meets the listing on any machine.
    source = {"page": 100, "documents": "bulk_get", "queue": "10KiB", "max_rate": size(ci=200, proof=2000)}
    pillow = world.pillow("cases", *TARGETS, source=source, batch={"max_docs": 50})
    daemon = world.pillowd({"cases": pillow}, checkpoints={"interval": "100ms"}).start()
    listed = 0
    for back in range(2):
        wait_for_changes(daemon, 100)
        daemon.signal(signal.SIGKILL)
        daemon.ended()
        world.couch.delete(sorted(world.couch.documents())[0])
        world.couch.put(ids[back], n="back")
        daemon.start()
        daemon.wait_for(lambda: statuses(daemon))
        listed += is_listing(daemon)
    assert listed, "a kill met the listing"
    daemon.wait_for(lambda: complete(daemon), seconds=120)
    assert world.differences("cases", *TARGETS) == {}
    assert daemon.stop() == 0

"""A document that went back in the source: its old state in a target outranks the new one by version."""

from __future__ import annotations

from tests.acceptance.world import TARGETS, World, live
from tests.servers.couch_client import CouchDatabase

GENERATIONS = 4


def put_often(couch: CouchDatabase, *ids: str) -> None:
    for number in range(GENERATIONS):
        for id in ids:
            couch.put(id, n=number)


def test_what_was_purged_and_created_anew_reaches_every_target(world: World) -> None:
    """At generation 1, where the targets hold a higher one, the same one, and a deleted one."""
    couch = world.couch
    put_often(couch, "higher", "deleted", "recreated-and-deleted")
    couch.put("same", n="old")
    couch.put("by-the-way", n=0)
    couch.delete("deleted")
    daemon = world.pillowd({"cases": world.pillow("cases")}).start()
    daemon.wait_for(lambda: live(daemon) and world.written("cases") == 4)
    assert world.differences("cases") == {}

    for id in ("higher", "same", "deleted", "recreated-and-deleted"):
        couch.purge(id)
        assert couch.put(id, n="new").startswith("1-")
    couch.delete("recreated-and-deleted")

    daemon.wait_for(lambda: not world.differences("cases"), seconds=30)
    for target in TARGETS:
        found = world.read(target, "cases")
        assert {id: row.body for id, row in found.items()} == {
            "higher": {"n": "new"},
            "same": {"n": "new"},
            "deleted": {"n": "new"},
            "by-the-way": {"n": 0},
        }
    assert daemon.stop() == 0

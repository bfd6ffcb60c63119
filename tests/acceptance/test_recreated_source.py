"""What becomes of a source under a running daemon: recreated, or written to without a match."""

from __future__ import annotations

import time

import pytest

from tests.acceptance.process import Pillowd
from tests.acceptance.world import TARGETS, World, live, statuses
from tests.servers.couch_client import CouchDatabase

#: How long a filtered pillow is watched, how often its checkpoint must move at the least.
WATCH_SECONDS, MOST_SECONDS = 180.0, 60.0


def recreate_later(couch: CouchDatabase) -> None:
    """Creates the database anew, in another second: CouchDB counts creation in those."""
    created = couch.info()["instance_start_time"]
    if created in (None, "0"):
        pytest.skip("this server does not tell when a database was created")
    while int(time.time()) <= int(created):
        time.sleep(0.05)
    couch.recreate()


@pytest.mark.parametrize(
    # A running one may look while there is no database, and again half a minute later.
    "running",
    [pytest.param(True, id="running", marks=pytest.mark.proof), pytest.param(False, id="stopped")],
)
@pytest.mark.timeout(300)
def test_after_a_reload_every_target_holds_the_new_database_and_nothing_of_the_old(
    world: World, running: bool
) -> None:
    world.fill(50)
    pillow = world.pillow("cases", source={"on_recreated": "reload", "on_missing": "wait"})
    daemon = world.pillowd({"cases": pillow}).start()
    daemon.wait_for(lambda: live(daemon) and not world.differences("cases"))
    old_ids, epoch = set(world.couch.documents()), daemon.status("cases")["epoch"]
    if not running:
        assert daemon.stop() == 0

    recreate_later(world.couch)
    world.fill(30, start=1000)
    if not running:
        daemon.start()
    daemon.wait_for(lambda: live(daemon) and not world.differences("cases"), seconds=150)

    new_ids = set(world.couch.documents())
    assert len(new_ids) == 30
    assert not new_ids & old_ids
    for target in TARGETS:
        assert set(world.read(target, "cases")) == new_ids
    assert daemon.status("cases")["epoch"] > epoch
    world.couch.put("after", n=1)
    daemon.wait_for(lambda: not world.differences("cases"))
    assert daemon.stop() == 0


@pytest.mark.timeout(600)
@pytest.mark.proof
def test_a_filtered_pillow_moves_its_checkpoint_while_nothing_matches(world: World) -> None:
    """A database that is written to all the time: CouchDB would scan on without telling a position."""
    world.couch.bulk({"_id": f"case-{n}", "type": "case"} for n in range(5))
    source = {"selector": {"type": "case"}, "on_filtered": "ignore", "deletes": "ignore"}
    pillow = world.pillow("cases", "postgres", source=source)
    daemon = world.pillowd({"cases": pillow}, checkpoints={"interval": "200ms"}).start()
    daemon.wait_for(lambda: live(daemon) and world.written("cases") == 5)

    longest = watch(world, daemon)
    print(f"\nwithout a match the checkpoint moved every {longest:.1f} s at the latest")
    assert longest <= MOST_SECONDS
    assert world.written("cases") == 5
    assert daemon.stop() == 0


def watch(world: World, daemon: Pillowd) -> float:
    """Writes what does not match; the longest that the saved position stood meanwhile, in seconds."""
    began = moved_at = time.monotonic()
    seq, longest = statuses(daemon)["cases"]["seq"], 0.0
    number = 0
    while time.monotonic() - began < WATCH_SECONDS:
        world.couch.put(f"note-{number}", type="note")
        number += 1
        time.sleep(0.1)
        if (now_seq := statuses(daemon)["cases"]["seq"]) != seq:
            longest = max(longest, time.monotonic() - moved_at)
            seq, moved_at = now_seq, time.monotonic()
    return max(longest, time.monotonic() - moved_at)

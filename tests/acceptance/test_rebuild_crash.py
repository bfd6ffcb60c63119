"""kill -9 at every place around a switch: the next start finishes it, and nothing is lost or read again."""

from __future__ import annotations

import itertools
import signal

import pytest

from tests.acceptance import rebuilt
from tests.acceptance.world import TARGETS, World, live
from tests.support.sizes import size

#: Each with the pass that kills: of the targets, the second one.
PLACES = (
    "switch-intent:1",
    "switch-exchange:2",
    "switch-exchanged:1",
    "switch-exchanged:2",
    "switch-noted:1",
    "switch-letters:1",
    "switch-checkpoints:1",
    "switch-handed-over:1",
    "switch-done:1",
)


@pytest.mark.timeout(7200)
def test_a_switch_that_is_killed_is_finished_by_the_next_start(world: World) -> None:
    targets = TARGETS if size(ci=0, proof=1) else ("postgres", "sqlite")
    # In CI: only the second target knows that it was exchanged.
    places = PLACES if size(ci=0, proof=1) else ("switch-exchanged:2",)
    daemon = rebuilt.start(world, *targets)
    daemon.ask_here("rebuild", "cases", "--switch", "manual")
    rebuilt.wait(daemon, "ready")
    wishes = itertools.cycle([("switch", "switched"), ("rollback", "rolled-back")])
    for round_ in range(size(ci=1, proof=20)):
        for place in places:
            wish, state = next(wishes)
            daemon.stop()
            daemon.start(environ={"PILLOWD_TESTING": "1", "PILLOWD_FAILPOINT": place})
            daemon.wait_for(lambda: live(daemon))
            daemon.command_here("rebuild", wish, "cases")
            assert daemon.ended() == -signal.SIGKILL, (round_, place)
            world.couch.put(f"{place}-{round_}", {"place": place})
            daemon.start()
            rebuilt.wait(daemon, state)
            daemon.wait_for(lambda: live(daemon))
            daemon.wait_for(
                lambda: rebuilt.differences(world, *targets, is_next=state == "switched") == {}  # noqa: B023
            )
    assert daemon.command("verify", "cases", "--content").returncode == 0
    (other,) = {each["pillow"] for each in daemon.ask_here("status")["pillows"]} - {"cases"}
    assert daemon.command("verify", other, "--content").returncode == 0
    assert daemon.stop() == 0

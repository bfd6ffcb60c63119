"""What a tail says of itself when the machine's clock is set."""

from __future__ import annotations

from tests.support.clock import FakeClock
from tests.support.list_feed import ListFeed, batch, change
from tests.support.memory_transport import MemoryTransport
from tests.support.tails import plan


def test_a_checkpoint_is_never_younger_than_now_though_the_clock_was_set_back(tmp_path, running):
    """Alarms compare the age with a bound, and a negative one would hide a checkpoint that stands still."""
    clock = FakeClock(auto=False)
    run = running(
        plan(tmp_path, ListFeed([batch(1, change("a"), caught_up=True)]), MemoryTransport(), clock=clock)
    )
    run.until(lambda: run.tail.status().changes == 1)
    clock.set_wall(clock.wall() - 3600)
    assert run.tail.status().checkpoint_age_seconds == 0.0

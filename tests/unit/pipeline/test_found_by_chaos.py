"""Found by crashes and faults (`tests/chaos`), one test a class."""

from __future__ import annotations

from pillows.errors import RetryableError
from pillows.runtime.status import State
from tests.support.clock import FakeClock
from tests.support.list_feed import ListFeed, batch, change
from tests.support.memory_transport import MemoryTransport
from tests.support.tails import plan


class Copying(MemoryTransport):
    """Has the checkpoint that counts; one that comes alone fails as often as told."""

    transactional = True

    def __init__(self):
        super().__init__()
        self.away = 0
        self.seq = None

    def write(self, batch):
        if not batch.documents and self.away:
            self.away -= 1
            raise RetryableError("the line was cut")
        result = super().write(batch)
        if batch.checkpoint is not None and not result.dead:
            self.seq = str(batch.checkpoint.seq)
        return result


def test_replay_after_a_clean_stop_a_copy_that_failed_once_is_made_with_the_next_save(tmp_path, running):
    """Else the older copy counts at the next start, and what was written since is written again."""
    target = Copying()
    target.away, target.poison = 1, {"bad"}  # with a dead letter to bury, the rows bring no checkpoint along
    feed = ListFeed([batch("1-a", change("good"), change("bad"))])
    run = running(plan(tmp_path, feed, target, clock=FakeClock()))
    run.until(lambda: run.tail.state is State.LIVE or len(target.live()) == 1)
    run.until(lambda: not target.away)

    assert str(run.finish().seq) == target.seq == "1-a"

"""A crash between any two steps: what was not done yet is still known afterwards."""

from __future__ import annotations

import pytest

from pillows.models import guard
from tests.unit.pipeline.parts import KEY, ListFeed, MemoryTransport, batch, change, plan

NAME = str(KEY)


class CrashError(Exception):
    """Stands for the end of the process."""


def test_a_letter_is_kept_until_a_document_that_went_back_was_written_again(tmp_path, running, clock):
    """It was cleared, for good, before the epoch was raised: the feed does not bring the document again."""
    feed = ListFeed([batch(1, change("a", "2-restored", n=2), caught_up=True)])
    feed.sums = {"a": 2}
    memory = MemoryTransport()
    memory.target["rows"]["a"] = (guard(1, 5), {"cases": ({"n": 5},)})
    memory.poison = {"a"}
    run = running(plan(tmp_path, feed, memory, clock=clock))
    run.until(lambda: run.plan.letters.count(NAME) == 1 and run.tail.status().changes == 1)
    memory.poison.clear()

    def crash(checkpoint):
        raise CrashError

    memory.claim = crash  # the epoch was raised in the state directory, and next would be in the target
    run.plan.letters.retry(NAME, [("memory", "a")])
    with pytest.raises(CrashError):
        run.until(lambda: False)
    assert run.plan.letters.count(NAME) == 1

    del memory.claim
    again = running(run.plan)
    again.until(lambda: memory.live()["a"]["n"] == 2)
    again.until(lambda: run.plan.letters.count(NAME) == 0)


def test_a_document_that_went_back_and_cannot_be_written_again_has_a_letter(tmp_path, running, clock):
    feed = ListFeed([batch(1, change("a", "2-restored", n=2), caught_up=True)])
    feed.sums = {"a": 2}
    memory = MemoryTransport()
    memory.target["rows"]["a"] = (guard(1, 5), {"cases": ({"n": 5},)})
    claim = memory.claim

    def spoil(checkpoint):
        claim(checkpoint)
        memory.poison = {"a"} if checkpoint.epoch > 1 else set()

    memory.claim = spoil
    run = running(plan(tmp_path, feed, memory, clock=clock, max_tries=1))
    run.until(lambda: run.tail.status().changes == 1)
    run.finish()
    assert [(letter.id, letter.version) for letter in run.plan.letters.of(NAME)] == [("a", 2)]

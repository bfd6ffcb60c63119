"""When dead letters are due after the clock was set: none waits for years."""

from __future__ import annotations

from checkpoints import TailKey
from pillows.dead_letters.dead_letter import DeadLetter, ErrorOptions
from pillows.dead_letters.store import DeadLetters
from tests.support.clock import FakeClock

KEY = TailKey("p", "couch/db")
YEAR_SECONDS = 365 * 86400.0


def dead_letter(id: str) -> DeadLetter:
    return DeadLetter(
        tail=KEY, transport="t", id=id, rev="1-a", leaf_version=1, stage="transport", error="no"
    )


def test_letters_are_due_though_the_clock_was_set_back_since(tmp_path):
    """The clock was ten years ahead when the document failed, so its retry was due ten years later."""
    clock = FakeClock(auto=False)
    clock.set_wall(clock.wall() + 10 * YEAR_SECONDS)
    dead_letters = DeadLetters(tmp_path / "letters", clock=clock)
    dead_letters.add([dead_letter("a"), dead_letter("b")], ErrorOptions(max_tries=2))
    dead_letters.add([dead_letter("b")], ErrorOptions(max_tries=2))  # given up: that stays
    assert dead_letters.claim_due(KEY, at_most=10) == []

    clock.set_wall(clock.wall() - 10 * YEAR_SECONDS)
    dead_letters.close()
    dead_letters = DeadLetters(tmp_path / "letters", clock=clock)
    assert dead_letters.list_due(KEY.pillow) == [KEY], "a pillow on several databases looks there first"
    assert [each.id for each in dead_letters.claim_due(KEY, at_most=10)] == ["a"]
    dead_letters.close()


def test_a_watcher_is_told_whenever_one_is_due_sooner(tmp_path):
    clock = FakeClock(auto=False)
    dead_letters = DeadLetters(tmp_path / "letters", clock=clock)
    dead_letters.add([dead_letter("early")])
    first_seconds = dead_letters.seconds_to_due(KEY)
    told = []
    with dead_letters.watching(KEY, told.append):
        assert told == [first_seconds], "of what is there already"
        dead_letters.add([dead_letter("late")])
        assert len(told) == 1, "it is not due sooner"
        dead_letters.retry(KEY, [("t", "late")])
        assert told == [first_seconds, 0.0]
    dead_letters.retry(KEY, [("t", "early")])
    assert len(told) == 2, "nobody watches any more"
    dead_letters.close()


def test_it_is_known_when_the_next_one_is_due(tmp_path):
    clock = FakeClock(auto=False)
    dead_letters = DeadLetters(tmp_path / "letters", clock=clock)
    assert dead_letters.seconds_to_due(KEY) is None
    dead_letters.add([dead_letter("a"), dead_letter("b")])
    wait_seconds = dead_letters.seconds_to_due(KEY) or 0.0
    clock.advance(wait_seconds)
    assert dead_letters.seconds_to_due(KEY) == 0.0
    claimed = dead_letters.claim_due(KEY, at_most=1)
    assert dead_letters.seconds_to_due(KEY) == 0.0, "another one is"
    claimed += dead_letters.claim_due(KEY, at_most=2)
    assert dead_letters.seconds_to_due(KEY) is None, "both are claimed"
    dead_letters.postpone(claimed[:1], 7.0)
    assert dead_letters.seconds_to_due(KEY) == 7.0
    dead_letters.unclaim(KEY)
    assert dead_letters.seconds_to_due(KEY) == 0.0
    dead_letters.close()


def test_letters_are_handed_over_to_another_tail(tmp_path):
    taker = TailKey("p~1", "couch/db")
    dead_letters = DeadLetters(tmp_path / "letters", clock=FakeClock(auto=False))
    dead_letters.add([dead_letter("a"), dead_letter("b")])
    for _ in range(2):
        dead_letters.hand_over(KEY, taker)
    dead_letters.close()
    dead_letters = DeadLetters(tmp_path / "letters", clock=FakeClock(auto=False))
    assert (dead_letters.count(KEY), dead_letters.ids(taker, "t")) == (0, {"a", "b"})
    assert {each.tail for each in dead_letters.list(taker)} == {taker}
    dead_letters.forget_all(taker)
    assert dead_letters.count(taker) == 0
    dead_letters.close()

"""A clock that was set: nothing waits for a time that is years away."""

from __future__ import annotations

from pillows.dead_letters.dead_letter import DeadLetter, LetterPolicy
from pillows.dead_letters.store import DeadLetters
from tests.support.clock import FakeClock

YEAR_SECONDS = 365 * 86400.0


def letter(id: str) -> DeadLetter:
    return DeadLetter(
        pillow="p", transport="t", id=id, rev="1-a", leaf_version=1, stage="transport", error="no"
    )


def test_a11_letters_are_due_though_the_clock_was_set_back_since(tmp_path):
    """It ran ten years ahead when the document failed: its next try was ten years away."""
    clock = FakeClock(auto=False)
    clock.set_wall(clock.wall() + 10 * YEAR_SECONDS)
    letters = DeadLetters(tmp_path / "letters", clock=clock)
    letters.add([letter("a"), letter("b")], LetterPolicy(max_tries=2))
    letters.add([letter("b")], LetterPolicy(max_tries=2))  # given up: that stays
    assert letters.due("p", at_most=10) == []

    clock.set_wall(clock.wall() - 10 * YEAR_SECONDS)
    letters.close()
    letters = DeadLetters(tmp_path / "letters", clock=clock)
    assert [each.id for each in letters.due("p", at_most=10)] == ["a"]
    letters.close()

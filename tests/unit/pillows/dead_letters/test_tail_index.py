"""What is known of a tail's dead letters without reading them."""

from __future__ import annotations

from math import inf

import pytest

from pillows.dead_letters.dead_letter import LONGEST_RETRY_SECONDS
from pillows.dead_letters.tail_index import TailIndex, is_due

NOW = 1_000_000.0


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (NOW, True),
        (NOW + 1.0, False),
        (NOW + LONGEST_RETRY_SECONDS, False),
        (NOW + LONGEST_RETRY_SECONDS + 1.0, True),
        (inf, False),
    ],
)
def test_one_is_due_when_its_wait_is_over_or_was_set_by_another_clock(at: float, expected: bool) -> None:
    assert is_due(at, NOW) is expected


def test_a_document_may_have_one_of_each_transport() -> None:
    index = TailIndex()
    index.note("one", "a", due_at=5.0, change=1)
    index.note("other", "a", due_at=6.0, change=2)
    index.note("one", "a", due_at=7.0, change=3)
    assert index.transports_of("a") == ("one", "other")
    assert (index.due_at, index.changed) == ({("one", "a"): 7.0, ("other", "a"): 6.0}, 3)
    index.forget("one", "a", change=4)
    assert index.transports_of("a") == ("other",)
    index.forget("other", "a", change=5)
    assert (index.transports_of("a"), index.transports, index.due_at, index.changed) == ((), {}, {}, 5)


@pytest.mark.parametrize("renewed", [True, False])
def test_a_claimed_one_is_not_handed_out_any_more_once_it_changes(renewed: bool) -> None:
    index = TailIndex()
    index.note("one", "a", due_at=5.0, change=1)
    index.claimed["one", "a"] = 5.0
    if renewed:
        index.note("one", "a", due_at=9.0, change=2)
    else:
        index.forget("one", "a", change=2)
    assert index.claimed == {}

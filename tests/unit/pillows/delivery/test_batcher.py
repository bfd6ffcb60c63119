"""How large a batch grows, who waits for room, and how long the first item waits for company."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gevent
import pytest
from pydantic import ValidationError

from pillows.delivery.batcher import GATHER_SECONDS, IDLE_SECONDS, Batcher, BatchOptions
from pillows.retry.cancellable import TICK_SECONDS
from tests.support.clock import FakeClock


def batcher(clock: FakeClock | None = None, *, queue: int = 0, **options: Any) -> Batcher[str]:
    return Batcher(BatchOptions(**options), clock or FakeClock(), max_queued=queue)


def add(to: Batcher[str], *items: tuple[str, int]) -> list[bool]:
    return [to.add(item, size) for item, size in items]


def take_all(of: Batcher[str]) -> list[list[str]]:
    of.close()
    return list(iter(of.take, None))


@pytest.mark.parametrize(
    ("sizes", "batches"),
    [
        ((50, 50), [2]),
        ((50, 51), [1, 1]),
        ((100, 1), [1, 1]),
        ((101,), [1]),
        ((1, 101, 1), [1, 1, 1]),
        ((99, 1, 1), [2, 1]),
        ((1, 1, 1, 1), [3, 1]),
    ],
)
def test_a_batch_is_bounded_in_items_and_in_bytes_to_the_last_one(
    sizes: Sequence[int], batches: Sequence[int]
) -> None:
    made = batcher(max_docs=3, max_bytes=100, queue=9)
    add(made, *((str(n), size) for n, size in enumerate(sizes)))
    taken = take_all(made)
    assert [len(each) for each in taken] == batches
    assert [item for each in taken for item in each] == [str(n) for n in range(len(sizes))]


def test_the_bytes_of_a_batch_that_was_taken_count_no_more() -> None:
    made = batcher(max_bytes=100)
    add(made, ("a", 100))
    assert made.take() == ["a"]
    assert made.add("b", 100) is False
    assert made.take() == ["b"]


@pytest.mark.parametrize(("queue", "held"), [(0, 2), (1, 4), (2, 6)])
def test_so_many_full_batches_wait_beside_the_one_that_grows(queue: int, held: int) -> None:
    made = batcher(FakeClock(auto=False), max_docs=2, queue=queue)
    added: list[bool] = []

    def produce() -> None:
        for n in range(held + 1):
            added.append(made.add(str(n), 1))  # noqa: PERF401 - each is seen once it is added

    producer = gevent.spawn(produce)
    gevent.idle()
    assert added == [False] * held
    assert made.take() == ["0", "1"]
    producer.join(60)
    assert added == [False] * held + [True]


def test_while_it_waits_for_room_it_gives_signs_of_life() -> None:
    ticks: list[float] = []
    clock = FakeClock(auto=False)
    made: Batcher[str] = Batcher(
        BatchOptions(max_docs=1), clock, tick=lambda: ticks.append(clock.monotonic())
    )
    made.add("a", 1)
    producer = gevent.spawn(made.add, "b", 1)
    began = clock.monotonic()
    for _ in range(3):
        clock.advance(TICK_SECONDS)
    assert ticks == [began + n * TICK_SECONDS for n in (1, 2, 3)]
    assert made.take() == ["a"]
    assert producer.get(timeout=60) is True


def test_a_writer_without_work_is_woken_by_the_first_item_and_seldom_otherwise() -> None:
    clock = FakeClock(auto=False)
    made = batcher(clock)
    taking = gevent.spawn(made.take)
    clock.advance(2 * IDLE_SECONDS)
    assert clock.waited == [IDLE_SECONDS] * 3
    made.add("a", 1)
    assert taking.get(timeout=60) == ["a"]


def lingering(**options: Any) -> tuple[FakeClock, Batcher[str], gevent.Greenlet[..., list[str] | None]]:
    """A writer that has its first item and waits a second for more."""
    clock = FakeClock(auto=False)
    made = batcher(clock, linger=1.0, **options)
    taking = gevent.spawn(made.take)
    made.add("a", 1)
    clock.advance(0.999)
    return clock, made, taking


def test_linger_gives_the_first_item_its_time_for_company() -> None:
    clock, made, taking = lingering()
    made.add("b", 1)
    gevent.idle()
    assert not taking.ready()
    clock.advance(0.001)
    assert taking.get(timeout=60) == ["a", "b"]


def test_linger_ends_when_the_batch_is_full() -> None:
    _, made, taking = lingering(max_docs=2)
    made.add("b", 1)
    assert taking.get(timeout=60) == ["a", "b"]


def test_linger_ends_when_the_batch_has_all_its_bytes() -> None:
    _, made, taking = lingering(max_bytes=10)
    made.add("b", 9)
    assert taking.get(timeout=60) == ["a", "b"]


def test_linger_ends_when_an_item_has_no_room_in_the_batch() -> None:
    _, made, taking = lingering(max_bytes=10)
    gevent.spawn(made.add, "b", 10)
    assert taking.get(timeout=60) == ["a"]


def test_every_batch_lingers_and_not_only_the_first() -> None:
    clock, made, taking = lingering(max_docs=2)
    made.add("b", 1)
    assert taking.get(timeout=60) == ["a", "b"]
    again = gevent.spawn(made.take)
    made.add("c", 1)
    clock.advance(0.999)
    assert not again.ready()
    clock.advance(0.001)
    assert again.get(timeout=60) == ["c"]


@pytest.mark.parametrize("end", ["flush", "close"])
def test_a_flush_and_the_end_end_the_linger(end: str) -> None:
    _, made, taking = lingering()
    getattr(made, end)()
    assert taking.get(timeout=60) == ["a"]


def test_a_flush_of_nothing_leaves_the_next_linger_alone() -> None:
    clock = FakeClock(auto=False)
    made = batcher(clock, linger=1.0)
    made.flush()
    taking = gevent.spawn(made.take)
    made.add("a", 1)
    clock.advance(0.5)
    assert not taking.ready()
    clock.advance(0.5)
    assert taking.get(timeout=60) == ["a"]


def test_a_closed_batcher_gives_what_is_left_without_waiting_and_then_nothing() -> None:
    clock = FakeClock(auto=False)
    made = batcher(clock, linger=1.0)
    made.add("a", 1)
    made.close()
    assert made.take() == ["a"]
    assert made.take() is None
    assert clock.waited == []


def test_a_writer_that_waits_is_woken_by_the_end() -> None:
    made = batcher(FakeClock(auto=False))
    taking = gevent.spawn(made.take)
    gevent.idle()
    made.close()
    assert taking.get(timeout=60) is None


def test_the_error_of_a_writer_reaches_those_who_add_and_what_was_held_is_dropped() -> None:
    made = batcher(FakeClock(auto=False), max_docs=1, queue=1)
    add(made, ("a", 1), ("b", 1))
    waiting = gevent.spawn(made.add, "c", 1)
    gevent.idle()
    made.fail(ValueError("away"))
    waiting.join(60)
    assert isinstance(waiting.exception, ValueError)
    with pytest.raises(ValueError, match="away"):
        made.add("d", 1)
    assert take_all(made) == []


def test_a_batch_that_fails_while_it_lingers_gives_nothing() -> None:
    clock, made, taking = lingering()
    made.fail(ValueError("away"))
    clock.advance(1.0)
    assert taking.get(timeout=60) is None


def test_the_defaults_are_two_thousand_items_and_five_mebibytes() -> None:
    assert BatchOptions().model_dump() == {
        "max_docs": 2000,
        "max_bytes": 5_242_880,
        "linger": 0.0,
        "max_in_flight": 1,
    }
    assert IDLE_SECONDS == 60.0


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("max_docs", (1, 100_000), (0, 100_001)),
        ("max_bytes", (1,), (0,)),
        ("linger", ("0s", "60s"), ("61s",)),
        ("max_in_flight", (1, 16), (0, 17)),
    ],
)
def test_the_bounds_themselves_are_allowed_and_nothing_beyond(
    name: str, good: Sequence[object], bad: Sequence[object]
) -> None:
    for value in good:
        BatchOptions(**{name: value})  # as the configuration gives it
    for value in bad:
        with pytest.raises(ValidationError):
            BatchOptions(**{name: value})


def test_a_batch_has_all_its_bytes_though_another_one_was_taken() -> None:
    made = batcher(max_bytes=100, queue=9)
    add(made, ("a", 100), ("b", 60), ("c", 40))
    assert take_all(made) == [["a"], ["b", "c"]]


def test_a_writer_that_has_taken_its_first_batch_is_idle_again() -> None:
    clock = FakeClock(auto=False)
    made = batcher(clock)
    made.add("a", 1)
    assert made.take() == ["a"]
    gevent.spawn(made.take)
    gevent.idle()
    assert clock.waited == [IDLE_SECONDS]
    made.close()


def test_it_counts_what_waits_in_full_batches_and_in_the_one_that_grows() -> None:
    made = batcher(max_docs=2, queue=1)
    assert made.waiting == (0, 0)
    add(made, ("a", 10), ("b", 10), ("c", 7))
    assert made.waiting == (3, 7)
    assert made.take() == ["a", "b"]
    assert made.waiting == (1, 7)


def test_while_more_follow_the_writer_waits_a_moment_for_a_full_batch() -> None:
    clock = FakeClock(auto=False)
    made = batcher(clock, max_docs=3)
    made.expect(more=True)
    taking = gevent.spawn(made.take)
    add(made, ("a", 1))
    clock.advance(GATHER_SECONDS / 2)
    add(made, ("b", 1))
    assert not taking.ready()
    add(made, ("c", 1))
    assert taking.get(timeout=5) == ["a", "b", "c"]


def test_it_waits_no_longer_than_that_for_a_slow_source() -> None:
    clock = FakeClock(auto=False)
    made = batcher(clock)
    made.expect(more=True)
    taking = gevent.spawn(made.take)
    add(made, ("a", 1))
    clock.advance(GATHER_SECONDS)
    assert taking.get(timeout=5) == ["a"]


def test_the_last_of_a_backlog_waits_for_nobody() -> None:
    made = batcher(FakeClock(auto=False))
    made.expect(more=True)
    taking = gevent.spawn(made.take)
    add(made, ("a", 1))
    gevent.idle()
    assert not taking.ready()
    made.expect(more=False)
    assert taking.get(timeout=5) == ["a"]
    taking = gevent.spawn(made.take)
    add(made, ("b", 1))
    assert taking.get(timeout=5) == ["b"]


def test_a_configured_linger_goes_on_when_nothing_follows() -> None:
    clock = FakeClock(auto=False)
    made = batcher(clock, linger=1.0)
    taking = gevent.spawn(made.take)
    add(made, ("a", 1))
    made.expect(more=False)
    clock.advance(0.9)
    assert not taking.ready()
    clock.advance(0.1)
    assert taking.get(timeout=5) == ["a"]

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from pillows.databases.listing import DIGEST_BYTES, Description
from pillows.databases.turn_queue import (
    COPY_LAG_SECONDS,
    FIRST_WAIT_SECONDS,
    LONGEST_WAIT_SECONDS,
    MISSING_SECONDS,
    PROOFS,
    DatabaseState,
    TurnQueue,
)


def seen(queue: TurnQueue, name: str, digest: bytes, now: float = 0.0) -> None:
    queue.see(Description(name, digest.ljust(DIGEST_BYTES)), now)


def state(queue: TurnQueue, name: str) -> DatabaseState:
    database = queue.get(name)
    assert database is not None
    return database.state


def test_databases_have_their_turns_in_the_order_in_which_they_became_dirty() -> None:
    queue = TurnQueue()
    for at, name in enumerate(["b", "a", "c", "a"]):
        queue.mark(name, float(at))
    assert [queue.take(9.0) for _ in range(4)] == ["b", "a", "c", None]


def test_a_mark_during_a_turn_gives_another_one() -> None:
    queue = TurnQueue()
    queue.mark("a", 0.0)
    queue.mark("b", 1.0)
    assert queue.take(2.0) == "a"
    for at in (3.0, 4.0):
        queue.mark("a", at)
    assert not queue.park("a", 0.0)
    assert [queue.take(5.0) for _ in range(3)] == ["b", "a", None]


def test_a_mark_during_the_turn_that_misses_a_database_counts() -> None:
    queue = TurnQueue()
    queue.mark("a", 0.0)
    queue.take(0.0)
    assert not queue.miss("a", 0.0, "404")
    assert queue.take(MISSING_SECONDS) == "a"
    queue.mark("a", MISSING_SECONDS)  # it was created again after the answer
    assert not queue.miss("a", MISSING_SECONDS, "404")
    assert queue.take(MISSING_SECONDS) == "a"
    assert queue.miss("a", MISSING_SECONDS, "404")
    assert state(queue, "a") is DatabaseState.DELETED


def test_a_database_that_is_left_out_waits_for_no_turn() -> None:
    queue = TurnQueue()
    queue.mark("a", 0.0)
    queue.mark("b", 1.0)
    assert queue.take(2.0) == "a"
    queue.leave_out("a", "excluded")
    assert state(queue, "a") is DatabaseState.DELETED
    assert queue.take(3.0) == "b"
    queue.park("b", 0.0)
    assert queue.oldest_dirty_at() is None
    queue.resume("a", 4.0)
    assert queue.take(5.0) == "a"
    queue.pause("a")
    queue.leave_out("a", "excluded")
    assert state(queue, "a") is DatabaseState.PAUSED


def test_a_description_that_a_turn_proved_marks_no_more() -> None:
    queue = TurnQueue()
    seen(queue, "a", b"1")
    assert queue.take(0.0) == "a"
    assert queue.park("a", 0.0)
    seen(queue, "a", b"1")
    assert queue.take(1.0) is None
    seen(queue, "a", b"2")
    assert queue.take(2.0) == "a"


def test_a_description_read_during_a_turn_is_not_proved_by_it() -> None:
    queue = TurnQueue()
    seen(queue, "a", b"1")
    queue.take(0.0)
    seen(queue, "a", b"2")
    assert queue.park("a", 0.0)
    assert queue.take(1.0) == "a"


def test_some_spellings_of_a_position_are_remembered() -> None:
    queue = TurnQueue()
    for number in range(PROOFS + 1):
        seen(queue, "a", b"%d" % number)
        assert queue.take(0.0) == "a"
        queue.park("a", 0.0)
    for number in range(1, PROOFS + 1):
        seen(queue, "a", b"%d" % number)
        assert queue.take(0.0) is None
    seen(queue, "a", b"0")
    assert queue.take(0.0) == "a"


def test_failures_wait_longer_each_time_and_a_good_turn_forgets_them() -> None:
    queue, now, waits = TurnQueue(), 0.0, []
    queue.mark("a", now)
    for _ in range(9):
        assert queue.take(now) == "a"
        waits.append(queue.back_off("a", now, "503"))
        assert queue.take(now + waits[-1] - 1) is None
        now += waits[-1]
    assert waits[:3] == [FIRST_WAIT_SECONDS, 2 * FIRST_WAIT_SECONDS, 4 * FIRST_WAIT_SECONDS]
    assert waits[-1] == LONGEST_WAIT_SECONDS
    assert queue.take(now) == "a"
    queue.park("a", 0.0)
    queue.mark("a", now)
    queue.take(now)
    assert queue.back_off("a", now, "503") == FIRST_WAIT_SECONDS


def test_a_database_is_deleted_after_two_answers_a_minute_apart() -> None:
    queue = TurnQueue()
    queue.mark("a", 0.0)
    queue.take(0.0)
    assert not queue.miss("a", 0.0, "404")
    assert queue.take(MISSING_SECONDS - 1) is None
    assert queue.take(MISSING_SECONDS) == "a"
    assert queue.miss("a", MISSING_SECONDS, "404")
    assert state(queue, "a") is DatabaseState.DELETED
    seen(queue, "a", b"new")
    assert queue.take(90.0) == "a"


def test_one_that_comes_back_in_between_is_not_deleted() -> None:
    queue = TurnQueue()
    queue.mark("a", 0.0)
    queue.take(0.0)
    queue.miss("a", 0.0, "404")
    queue.take(MISSING_SECONDS)
    queue.park("a", 0.0)
    queue.mark("a", 1000.0)
    queue.take(1000.0)
    assert not queue.miss("a", 1000.0, "404")


def test_one_that_was_not_found_is_tried_at_once_when_something_is_told_of_it() -> None:
    queue = TurnQueue()
    queue.mark("a", 0.0)
    queue.take(0.0)
    queue.miss("a", 0.0, "404")
    assert queue.take(1.0) is None
    queue.mark("a", 1.0)
    assert queue.take(1.0) == "a"


@pytest.mark.parametrize("has_copies", [False, True])
def test_a_copy_that_lagged_during_a_turn_is_read_again(has_copies: bool) -> None:
    queue = TurnQueue()

    def sweep(now: float) -> str | None:
        queue.see(Description("a", bytes(DIGEST_BYTES), has_copies=has_copies), now)
        return queue.take(now)

    assert sweep(0.0) == "a"
    assert queue.park("a", 1.0)
    assert sweep(COPY_LAG_SECONDS) is None
    assert sweep(COPY_LAG_SECONDS + 1.0) == ("a" if has_copies else None)
    assert not queue.park("a", COPY_LAG_SECONDS + 2.0)
    assert sweep(9 * COPY_LAG_SECONDS) is None, "once is enough"


def test_a_database_that_is_paused_in_its_turn_stays_so_and_forgets_no_mark() -> None:
    queue = TurnQueue()
    queue.mark("a", 0.0)
    queue.take(0.0)
    queue.pause("a")
    queue.mark("a", 1.0)
    queue.requeue("a", 2.0)
    assert (state(queue, "a"), queue.take(3.0)) == (DatabaseState.PAUSED, None)
    queue.resume("a", 4.0)
    assert queue.take(5.0) == "a"


class Turns(RuleBasedStateMachine):
    """Marks, turns and their ends in any order: one turn at a time each, and no mark is ever lost."""

    names = Bundle("names")

    def __init__(self) -> None:
        super().__init__()
        self.queue = TurnQueue()
        self.now = 0.0
        self.running: set[str] = set()
        self.dirty: set[str] = set()  # marked, and no turn has begun since
        self.held: set[str] = set()  # only an operator or a mark brings them back

    @rule(target=names, name=st.sampled_from("abcdef"))
    def mark(self, name: str) -> str:
        self.queue.mark(name, self.now)
        self.dirty.add(name)
        return name

    @rule(seconds=st.sampled_from([1.0, 30.0, 3600.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def take(self) -> None:
        name = self.queue.take(self.now)
        if name is not None:
            assert name not in self.running
            assert name not in self.held
            self.running.add(name)
            self.dirty.discard(name)

    @rule(name=names, how=st.sampled_from(["park", "requeue", "back_off", "fail", "miss"]))
    def end(self, name: str, how: str) -> None:
        if name not in self.running:
            return
        self.running.discard(name)
        if how == "park":
            self.queue.park(name, self.now)
        elif how == "requeue":
            self.queue.requeue(name, self.now)
            self.dirty.add(name)
        elif how == "back_off":
            self.queue.back_off(name, self.now, "reason")
            self.dirty.add(name)
        elif how == "fail":
            self.queue.fail(name, "reason")
            if state(self.queue, name) is DatabaseState.FAILED:
                self.held.add(name)
        elif self.queue.miss(name, self.now, "reason"):
            self.dirty.discard(name)
        else:
            self.dirty.add(name)

    @rule(name=names)
    def pause(self, name: str) -> None:
        if name not in self.running:
            self.queue.pause(name)
            self.held.add(name)

    @rule(name=names)
    def resume(self, name: str) -> None:
        self.queue.resume(name, self.now)
        self.held.discard(name)
        self.dirty.add(name)

    @invariant()
    def counts_agree(self) -> None:
        assert sum(self.queue.state_counts().values()) == len(self.queue)
        assert self.queue.counts[DatabaseState.ACTIVE] == len(self.running)

    def teardown(self) -> None:
        """Every dirty database that is not held gets a turn, if all turns end well."""
        for name in list(self.running):
            self.queue.park(name, self.now)
        self.now += LONGEST_WAIT_SECONDS
        had: set[str] = set()
        while (next_one := self.queue.take(self.now)) is not None:
            had.add(next_one)
            self.queue.park(next_one, self.now)
        assert self.dirty - self.held <= had


TestTurns = Turns.TestCase
TestTurns.settings = settings(max_examples=60, stateful_step_count=40)

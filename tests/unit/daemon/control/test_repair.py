"""A repair has its tail to itself: a run at the same time would take the fence of its targets away."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event

from checkpoints import TailKey
from daemon import state_dir
from daemon.control.repair import RepairCalls
from daemon.control.tails import Tails
from daemon.errors import ConflictError
from daemon.state_dir import StateDir
from daemon.supervision.paused_pillows import Pauses
from daemon.supervision.supervisor import Supervisor
from pillows.observer import Observer
from pillows.runtime.status import State
from tests.support.clock import FakeClock
from tests.unit.daemon.tails import Behaviour, Fleet, crashing, well

MINUTE = 60


class Yard:
    """One supervised tail, and the calls that repair it.

    Attributes:
        quick: a repair is over before the supervisor looks at its tails.
        repaired: the ids of each repair, and how often the tail was started meanwhile.
    """

    def __init__(self, folder: Path, state: StateDir, behaviour: Behaviour) -> None:
        self.clock = FakeClock()
        self.fleet = Fleet(self.clock, cases=behaviour)
        self.key = self.fleet.key("cases")
        self.supervisor = Supervisor(
            self.fleet.factories, clock=self.clock, observer=Observer(), pauses=Pauses(folder / "paused.json")
        )
        tails = Tails([self.key], state=state, clock=self.clock, supervisor=self.supervisor)
        self.hold_reloads: Callable[[], AbstractContextManager[None]] = nullcontext
        self.calls = RepairCalls(tails, self._repair, lambda: self.hold_reloads(), clock=self.clock)  # noqa: PLW0108 - looked up at each call
        self.quick = False
        self.repaired: list[tuple[Sequence[str], int]] = []

    def repair(self, *ids: str) -> Any:
        return self.calls.repair(self.key, list(ids))

    def tick(self, times: int = 1) -> None:
        for _ in range(times):
            self.supervisor.tick()
            gevent.sleep(0)

    def state(self) -> State:
        return self.supervisor.status(self.key).state

    def _repair(self, key: TailKey, ids: Sequence[str]) -> None:
        assert key not in self.supervisor.running
        before = len(self.fleet.made["cases"])
        if not self.quick:
            self.clock.wait(Event(), MINUTE)
            self.tick()
        self.repaired.append((ids, len(self.fleet.made["cases"]) - before))


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Callable[[Behaviour], Yard]]:
    with state_dir.open_state_dir(tmp_path / "state", FakeClock()) as state:
        yield lambda behaviour: Yard(tmp_path, state, behaviour)


def test_a_second_repair_that_comes_before_the_tail_is_back_has_it_rest_on(
    yard: Callable[[Behaviour], Yard],
) -> None:
    """After the first repair the tail was told to start, but its old greenlet was not cleared away yet."""
    made = yard(well)
    made.supervisor.start_all()
    gevent.sleep(0)
    made.quick = True
    assert made.repair("a", "b") == {"key": "cases@couch/cases", "sent": 2}
    made.quick = False
    assert made.repair("c")["sent"] == 1
    assert made.repaired == [(["a", "b"], 0), (["c"], 0)]
    made.tick()
    assert made.key in made.supervisor.running


def test_a_tail_that_is_to_start_again_after_a_crash_does_not_while_it_is_repaired(
    yard: Callable[[Behaviour], Yard],
) -> None:
    made = yard(crashing)
    made.supervisor.start_all()
    gevent.sleep(0)
    made.tick()
    assert made.state() is State.BACKING_OFF
    made.repair("a")
    assert made.repaired == [(["a"], 0)]
    assert made.state() is State.STARTING


def test_a_paused_tail_stays_paused(yard: Callable[[Behaviour], Yard]) -> None:
    made = yard(well)
    made.supervisor.pause(made.key)
    made.repair("a")
    made.tick(3)
    assert (made.repaired, made.state()) == ([(["a"], 0)], State.PAUSED)


def test_no_reload_begins_during_a_repair_and_a_removed_tail_is_not_repaired(
    yard: Callable[..., Yard],
) -> None:
    y = yard(well)
    held: list[bool] = []

    @contextmanager
    def hold() -> Iterator[None]:
        held.append(True)
        yield
        assert y.repaired, "it is held until the documents are sent"

    y.hold_reloads = hold
    y.repair("a")
    assert held == [True]
    y.hold_reloads = nullcontext
    y.supervisor.remove(y.key)
    with pytest.raises(ConflictError, match="removed"):
        y.repair("b")
    assert len(y.repaired) == 1


def test_a_repair_of_a_shared_pillow_holds_up_no_reload(yard: Callable[[Behaviour], Yard]) -> None:
    """The repair may wait for a partition that only a reload lets run again."""
    made = yard(well)
    made.calls._tails.are_shared = True
    made.quick = True

    def refuse() -> AbstractContextManager[None]:
        raise AssertionError("reloads are held")

    made.hold_reloads = refuse
    assert made.repair("a") == {"key": "cases@couch/cases", "sent": 1}

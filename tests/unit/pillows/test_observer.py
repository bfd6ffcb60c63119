"""What happens in a tail is told once to every observer that wants it, with its figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from checkpoints import TailKey
from pillows.models import Change, DocumentRows
from pillows.observer import CompositeObserver, DataObserver, Observer
from pillows.pillow import Pillow
from pillows.runtime.status import State
from pillows.stages.filters import PythonFilter
from pillows.stages.transforms import PassThrough
from tests.support.list_feed import ListFeed, batch, change
from tests.support.memory_transport import MemoryTransport
from tests.support.recorder import Recorder
from tests.support.tails import plan

KEY = TailKey("cases", "couch/cases")


class States(Observer):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def state(self, tail: TailKey, *, state: str, reason: str) -> None:
        self.seen.append(state)


def test_each_observer_gets_the_hooks_that_it_has() -> None:
    one, other, everything = States(), States(), Recorder()
    observer = CompositeObserver([one, CompositeObserver([other, everything]), Observer()])
    observer.state(KEY, state="live", reason="")
    observer.notice(KEY, event="pass.completed", details={})
    assert (one.seen, other.seen) == (["live"], ["live"])
    assert [hook for hook, _ in everything.told] == ["state", "notice"]


def test_a_hook_that_nobody_has_costs_a_call_of_nothing() -> None:
    observer = CompositeObserver([States()])
    assert observer.batch.__func__ is Observer.batch  # type: ignore[attr-defined]
    assert observer.state.__func__ is States.state  # type: ignore[attr-defined]


def test_a_tail_tells_what_became_of_each_change_and_document(tmp_path: Any, running: Any) -> None:
    feed = ListFeed(
        [
            batch(
                "5-x",
                change("kept", type="x"),
                change("left out", type="y"),
                change("gone", deleted=True),
                change("broken"),
                change("poisoned", type="x"),
                caught_up=True,
            )
        ]
    )
    target, seen = MemoryTransport("target"), Recorder()
    target.poison = {"poisoned"}
    pillow = Pillow(
        name="cases",
        outputs=("cases",),
        filter=PythonFilter(lambda doc: doc["type"] == "x"),
        transform=PassThrough(("cases",)),
    )
    run = running(plan(tmp_path, feed, target, pillow=pillow, observer=seen))
    run.until(lambda: run.tail.state is State.LIVE)
    run.finish()
    assert seen.of("change") == [{"count": 5, "kept": 2, "filtered": 1}]
    assert [facts["stage"] for facts in seen.of("stage")] == ["filter", "trigger", "transform"]
    assert [facts["batches"] for facts in seen.of("in_flight")] == [1, 0]
    (write,) = seen.of("write")
    assert write["documents"] == {"applied": 3, "equal": 0, "stale": 0, "dead": 1}
    assert write["transport"] == "target"
    assert sorted(facts["stage"] for facts in seen.of("dead_letter")) == ["filter", "transport"]


class Looker(DataObserver):
    """Counts what it sees."""

    def __init__(self) -> None:
        self.changes, self.documents = 0, 0

    def arrived(self, tail: TailKey, *, changes: Sequence[Change]) -> None:
        self.changes += len(changes)

    def transformed(self, tail: TailKey, *, documents: Sequence[DocumentRows]) -> None:
        self.documents += len(documents)


class Looking(Observer):
    """Has data observers that come and go."""

    def __init__(self) -> None:
        self.data_observers: list[DataObserver] = []


def test_the_data_is_shown_to_those_who_look_at_the_time(tmp_path: Any, running: Any) -> None:
    feed = ListFeed([batch("2-x", change("a", type="x"), change("b", type="y"), caught_up=True)])
    looking, looker = Looking(), Looker()
    observer = CompositeObserver([States(), CompositeObserver([looking])])
    looking.data_observers.append(looker)
    pillow = Pillow(
        name="cases",
        outputs=("cases",),
        filter=PythonFilter(lambda doc: doc["type"] == "x"),
        transform=PassThrough(("cases",)),
    )
    run = running(plan(tmp_path, feed, MemoryTransport("target"), pillow=pillow, observer=observer))
    run.until(lambda: run.tail.state is State.LIVE)
    run.finish()
    assert (looker.changes, looker.documents) == (2, 2)


def test_one_observer_may_have_data_observers() -> None:
    with pytest.raises(ValueError, match="only one observer"):
        CompositeObserver([Looking(), Looking()])

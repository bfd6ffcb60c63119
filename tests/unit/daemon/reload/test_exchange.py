"""Sequences of reloads over scripted tails: two runs never write to one place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import gevent
from gevent.event import Event
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoints import TailKey
from daemon.reload.difference import compare
from daemon.reload.exchange import exchange_tails
from daemon.supervision.paused_pillows import Pauses
from daemon.supervision.stacks import Run
from daemon.supervision.supervisor import Supervisor
from pillows.observer import Observer
from tests.support.clock import FakeClock
from tests.support.sizes import size
from tests.unit.daemon.tails import ScriptedTail

KEYS = [TailKey(name, "couch/db") for name in "abcd"]


@dataclass(frozen=True)
class Part:
    """A tail: which text of its settings it has, and where it writes."""

    settings: int
    place: str

    @property
    def places(self) -> frozenset[tuple[str, ...]]:
        return frozenset({("table", self.place)})


#: Each place has one owner in a configuration, as the check of outputs has it.
CONFIGURATIONS = st.lists(
    st.builds(
        lambda keys, places, texts: {
            key: Part(number, place) for key, place, number in zip(keys, places, texts, strict=False)
        },
        st.lists(st.sampled_from(KEYS), unique=True),
        st.permutations("wxyz"),
        st.lists(st.integers(0, 1), min_size=4, max_size=4),
    ),
    min_size=1,
    max_size=6,
)
#: How many seconds a tail takes to stop, and how many pass between two reloads.
SECONDS = st.lists(st.integers(0, 4), min_size=40, max_size=40)


class Stage:
    """A supervisor whose tails note where they write, and may take their time to stop."""

    def __init__(self, folder: Path, drains: list[int]) -> None:
        self.clock = FakeClock(auto=False)
        self.writers: Counter[str] = Counter()
        self.at: dict[TailKey, Part] = {}
        self.worst = 0
        self._drains = drains
        self.supervisor = Supervisor(
            {}, clock=self.clock, observer=Observer(), pauses=Pauses(folder / "paused.json")
        )
        self.parts: Mapping[TailKey, Part] = {}

    def reload(self, new: Mapping[TailKey, Part]) -> list[Run]:
        difference = compare(cast("Any", self.parts), cast("Any", new))
        before = self.supervisor.runs
        ending = exchange_tails(
            self.supervisor,
            difference,
            {key: self._factory(key, new[key]) for key in (*difference.added, *difference.changed)},
            old=cast("Any", self.parts),
            new=cast("Any", new),
        )
        assert all(self.supervisor.runs.get(key) is before.get(key) for key in difference.unchanged)
        self.parts = dict(new)
        return ending

    def let(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.advance(1)
            self.supervisor.tick()
            gevent.idle()

    def settle(self) -> None:
        """Let time pass until no run drains any more."""
        self.let(2)

    def _factory(self, key: TailKey, part: Part) -> Any:
        drain_seconds = self._drains.pop()

        def behave(tail: ScriptedTail, stop: Event) -> None:
            self.writers[part.place] += 1
            self.worst = max(self.worst, self.writers[part.place])
            self.at[key] = part
            try:
                while not tail.clock.wait(stop, 5.0):
                    tail.ticked_at = tail.clock.monotonic()
                tail.clock.wait(Event(), drain_seconds)
            finally:
                self.writers[part.place] -= 1

        return lambda: ScriptedTail(key, self.clock, behave)


@settings(max_examples=size(ci=20, proof=500))
@given(configurations=CONFIGURATIONS, drains=SECONDS, pauses=SECONDS)
def test_a_sequence_of_reloads(
    configurations: list[dict[TailKey, Part]], drains: list[int], pauses: list[int]
) -> None:
    with TemporaryDirectory() as folder:
        stage = Stage(Path(folder), drains)
        try:
            for configuration in configurations:
                ending = stage.reload(configuration)
                stage.let(pauses.pop())
                for _ in range(10):  # the next reload waits for the end of this one
                    if all(run.dead for run in ending):
                        break
                    stage.let(1)
                assert all(run.dead for run in ending)
                assert stage.worst <= 1, "two runs wrote to one place"
            stage.settle()
            assert set(stage.supervisor.running) == configurations[-1].keys()
            assert {key: stage.at[key] for key in configurations[-1]} == configurations[-1]
            assert stage.worst <= 1
        finally:
            stage.supervisor.stop_all()
            stage.supervisor.kill_all("the test ends")
            gevent.idle()

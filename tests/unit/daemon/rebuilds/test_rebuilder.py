"""What becomes of a pillow's tails when a step of its rebuild fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import msgspec
import pytest
from gevent.event import Event

from checkpoints import Checkpoint, Seq
from daemon.rebuilds import step_taker as module
from daemon.rebuilds.rebuilder import Rebuilder
from daemon.rebuilds.record import Rebuild, RebuildState
from daemon.rebuilds.steps import Step
from daemon.state_dir import StateDir, open_state_dir
from daemon.state_file import StateFile
from pillows.errors import ConfigError
from pillows.transports.common.builds import BuildSwitch, Exchange
from tests.support.clock import FakeClock
from tests.unit.daemon.rebuilds.tail_states import KEY, OTHER, TailStates


class Target(BuildSwitch):
    """A target that notes who could write to it during an exchange."""

    def __init__(self, states: TailStates) -> None:
        self._states = states
        self.held: list[set[Any]] = []

    def list_obstacles(self, *, copies: bool = False) -> Sequence[str]:
        return []

    def exchange(self, exchange: Exchange, *, copies: bool = False) -> None:
        self.held.append(set(self._states.held))

    def drop(self) -> None:
        raise AssertionError("nobody asked for that")


class House:
    """A rebuilder with what is around it; the pillow is ready to be switched."""

    def __init__(self, state: StateDir, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state = state
        self.states = TailStates()
        self.target = Target(self.states)
        self.failures: list[Exception] = []
        self.incoming: Any = SimpleNamespace()
        self.rebuilder = Rebuilder(
            state,
            self._make_reloader(),
            supervisor=self.states.as_supervisor,
            verification=SimpleNamespace(),  # type: ignore[arg-type]
            clock=clock,
            stop=Event(),
        )
        builds: Any = SimpleNamespace(
            find_definitions=lambda _: [self.incoming],
            make_switches=lambda *_: {"a": self.target},
        )
        self.rebuilder._steps._builds = builds
        monkeypatch.setattr(module, "find_other", lambda *_: self.incoming)
        monkeypatch.setattr(module, "find_live", lambda *_: self.incoming)
        state.rebuilds.put(KEY, Rebuild(state=RebuildState.READY, live=1, other=2, last=2))
        for key in (KEY, OTHER):
            state.store.save(key, Checkpoint(seq=Seq.of("1-a")))

    def _make_reloader(self) -> Any:
        def follow_builds() -> None:
            if self.failures:
                raise self.failures.pop(0)

        config = SimpleNamespace(daemon=SimpleNamespace(shutdown_timeout=1.0))
        return SimpleNamespace(config=config, follow_builds=follow_builds)

    @property
    def record(self) -> Rebuild:
        found = self.state.rebuilds.get(KEY)
        assert found is not None
        return found

    def change(self, **fields: Any) -> None:
        self.state.rebuilds.put(KEY, msgspec.structs.replace(self.record, **fields))

    def step(self) -> None:
        """Takes the step that is due, to its end."""
        self.rebuilder._wake(KEY)
        gevent.joinall(list(self.rebuilder._workers.values()), timeout=20, raise_error=True)


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    clock = FakeClock()
    with open_state_dir(tmp_path / "state", clock) as state:
        yield House(state, clock, monkeypatch)


def test_builds_are_exchanged_while_both_tails_are_held(house: House) -> None:
    house.step()
    assert house.target.held == [{KEY, OTHER}]
    assert (house.record.state, house.record.live, house.states.held) == (RebuildState.SWITCHED, 2, set())


def test_without_a_place_for_the_intent_both_tails_run_on_and_the_reason_is_shown(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(StateFile, "write", full)
    house.step()
    assert (house.record.state, house.states.held, house.target.held) == (RebuildState.READY, set(), [])
    assert "No space left" in house.record.reason


def test_a_build_that_has_not_caught_up_is_not_shown_to_readers(house: House) -> None:
    house.states.pending = [7]
    house.step()
    assert (house.record.state, house.states.held, house.target.held) == (RebuildState.READY, set(), [])
    assert "did not catch up" in house.record.reason
    house.states.pending = [0]
    house.rebuilder._not_before.clear()
    house.step()
    assert (house.record.state, house.record.reason) == (RebuildState.SWITCHED, "")


def test_an_exchange_that_goes_on_holds_a_tail_that_came_back_meanwhile(house: House) -> None:
    house.change(state=RebuildState.SWITCHING, before=RebuildState.READY)
    house.states.keys.remove(OTHER)
    incoming, house.incoming = house.incoming, None
    house.rebuilder.recover()
    house.step()
    assert house.states.held == {KEY, OTHER}, "also one that is not there yet"
    assert "put it back" in house.record.reason

    house.incoming = incoming
    house.states.keys.append(OTHER)
    house.rebuilder._not_before.clear()
    house.step()
    assert house.target.held == [{KEY, OTHER}]
    assert (house.record.state, house.states.held) == (RebuildState.SWITCHED, set())


def test_tails_do_not_run_before_they_follow_an_exchange(house: House) -> None:
    said: list[tuple[str, set[Any]]] = []
    explain: Callable[..., None] = house.state.rebuilds.explain

    def note(key: Any, reason: str, *, failed: bool = False) -> None:
        said.append((reason, set(house.states.held)))
        explain(key, reason)

    house.state.rebuilds.explain = note
    house.failures = [ConfigError("a function is gone")] * 2
    house.step()
    assert said == [("a function is gone", {KEY, OTHER})] * 2
    assert house.states.held == set()


def test_a_build_that_cannot_begin_again_runs_on(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(house.state.store, "edit", fail)
    house.rebuilder._take(KEY, Step.BEGIN_AGAIN)
    assert (house.record.state, house.states.held) == (RebuildState.BUILDING, set())
    assert "No space left" in house.record.reason


def test_a_drop_is_not_overtaken_by_a_step_that_had_begun(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = house.record
    house.change(state=RebuildState.DROPPING)
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(house.state.rebuilds, "get", lambda _: began)
        house.rebuilder._take(KEY, Step.SWITCH)
    assert (house.record.state, house.states.held, house.target.held) == (RebuildState.DROPPING, set(), [])
    assert "is dropping meanwhile" in house.record.reason

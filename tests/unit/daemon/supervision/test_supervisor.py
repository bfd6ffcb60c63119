"""The supervisor over scripted tails and a clock of the test's own."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import gevent
import pytest
from gevent.event import Event
from structlog.testing import capture_logs

from checkpoints import CheckpointMoved, TailKey
from daemon.config.models import RestartOptions
from daemon.supervision.paused_pillows import Pauses
from daemon.supervision.supervisor import Supervisor
from pillows.errors import AccessError, ConfigError
from pillows.observer import Observer
from pillows.runtime.status import State
from tests.support.clock import FakeClock
from tests.support.waiting import let_others_run
from tests.unit.daemon.tails import Behaviour, Fleet, ScriptedTail, crashing, deaf, silent, unkillable, well


class StateObserver(Observer):
    def __init__(self) -> None:
        self.states: list[tuple[str, str]] = []
        self.gone: list[str] = []

    def state(self, tail: TailKey, *, state: str, reason: str) -> None:
        self.states.append((tail.pillow, state))

    def removed(self, tail: TailKey) -> None:
        self.gone.append(tail.pillow)


class House:
    """A supervisor with what is around it."""

    def __init__(self, folder: Path, **behaviours: Behaviour | list[Behaviour]) -> None:
        self.clock = FakeClock(auto=False)
        self.fleet = Fleet(self.clock, **behaviours)
        self.observer = StateObserver()
        self.pauses_path = folder / "paused.json"
        self.supervisor = self.make()

    def make(self, **settings: float) -> Supervisor:
        self.pauses = Pauses(self.pauses_path)
        return Supervisor(
            self.fleet.factories,
            clock=self.clock,
            observer=self.observer,
            pauses=self.pauses,
            policy=RestartOptions(max_restarts=3),
            stop_timeout_seconds=30,
            jitter=lambda: 1.0 - sys.float_info.epsilon,
        )

    def let(self, seconds: int) -> None:
        """Lets time pass, with the supervisor's ticks."""
        gevent.idle()
        for _ in range(seconds):
            self.clock.advance(1)
            self.supervisor.tick()
            gevent.idle()

    def state(self, name: str) -> State:
        return self.supervisor.status(self.fleet.key(name)).state

    def reason(self, name: str) -> str:
        return self.supervisor.status(self.fleet.key(name)).reason

    def runs(self, name: str) -> int:
        return len(self.fleet.made[name])


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Callable[..., House]]:
    houses: list[House] = []

    def build(**behaviours: Behaviour | list[Behaviour]) -> House:
        houses.append(House(tmp_path, **behaviours))
        return houses[-1]

    yield build
    for built in houses:
        for _ in range(3):
            built.supervisor.kill_all("the test ends")
            gevent.idle()


def test_a_crashed_tail_restarts_alone_with_growing_delays(house: Callable[..., House]) -> None:
    h = house(bad=[crashing, crashing, well], good=well)
    h.supervisor.start_all()
    h.let(1)

    assert h.state("bad") is State.BACKING_OFF
    assert re.search(r"ZeroDivisionError \(.*tails.py:\d+, in ", h.reason("bad"))

    h.let(1)
    assert h.runs("bad") == 2
    h.let(2)
    assert h.runs("bad") == 2, "the second delay is twice the first"
    h.let(1)
    assert h.runs("bad") == 3
    assert (h.state("bad"), h.state("good")) == (State.LIVE, State.LIVE)
    assert h.runs("good") == 1
    assert h.supervisor.status(h.fleet.key("bad")).restarts == 2


def test_a_stuck_tail_is_killed_its_stack_logged_and_restarted_alone(
    house: Callable[..., House],
) -> None:
    h = house(bad=[silent, well], good=well)
    h.supervisor.start_all()
    with capture_logs() as logs:
        h.let(63)

    killed = [entry for entry in logs if entry["event"] == "pillow.killed"]
    assert len(killed) == 1
    assert killed[0]["pillow"] == "bad@couch/bad"
    assert "in silent" in killed[0]["stack"]
    assert "no sign of life" in killed[0]["reason"]
    h.let(2)
    assert (h.runs("bad"), h.runs("good")) == (2, 1)
    assert h.state("bad") is State.LIVE


def test_the_stacks_of_what_a_stuck_tail_spawned_are_logged_too(
    house: Callable[..., House],
) -> None:
    def helper_that_hangs() -> None:
        Event().wait()

    def parent(_tail: ScriptedTail, _stop: Event) -> None:
        gevent.spawn(helper_that_hangs).join()

    h = house(bad=[parent, well])
    h.supervisor.start_all()
    with capture_logs() as logs:
        h.let(63)

    assert "helper_that_hangs" in next(e["stack"] for e in logs if e["event"] == "pillow.killed")


def test_silence_is_nobodys_fault_when_the_hub_itself_was_blocked(house: Callable[..., House]) -> None:
    h = house(good=well)
    h.supervisor.start_all()
    h.let(2)
    h.clock._now += 90  # as if one greenlet had computed for 90 s
    with capture_logs() as logs:
        h.let(10)

    assert [entry["event"] for entry in logs] == ["hub.blocked"]
    assert h.runs("good") == 1


def test_a_second_run_never_starts_before_the_first_is_dead(house: Callable[..., House]) -> None:
    h = house(bad=[unkillable, well])
    h.supervisor.start_all()
    h.let(61)
    assert h.runs("bad") == 1
    assert "being killed: no sign of life" in h.reason("bad")
    h.let(4)
    assert h.runs("bad") == 2, "killed again, then dead, then restarted"


def test_too_many_crashes_make_it_failed_while_others_run_on(house: Callable[..., House]) -> None:
    h = house(bad=crashing, good=well)
    h.supervisor.start_all()
    h.let(60)

    assert h.state("bad") is State.FAILED
    assert "restarted too often (3 times)" in h.reason("bad")
    assert "pillowd restart bad@couch/bad" in h.reason("bad")
    assert h.runs("bad") == 4
    assert h.state("good") is State.LIVE


def test_a_healthy_run_resets_the_count(house: Callable[..., House]) -> None:
    def crash_after_130_s(tail: ScriptedTail, stop: Event) -> None:
        until = tail.clock.monotonic() + 130
        while tail.clock.monotonic() < until:
            tail.clock.wait(stop, 5.0)
            tail.ticked_at = tail.clock.monotonic()
        raise ZeroDivisionError

    h = house(bad=[crash_after_130_s] * 5 + [well])
    h.supervisor.start_all()
    h.let(5 * 135)

    assert h.runs("bad") == 6
    assert h.state("bad") is State.LIVE


def test_a_fatal_error_fails_the_tail_at_once_with_reason_and_remedy(house: Callable[..., House]) -> None:
    def misconfigured(_tail: ScriptedTail, _stop: Event) -> None:
        raise ConfigError("the column is missing.", remedy="add it")

    h = house(bad=misconfigured, good=well)
    h.supervisor.start_all()
    h.let(400)

    assert h.state("bad") is State.FAILED
    assert h.reason("bad") == "the column is missing. Remedy: add it"
    assert h.runs("bad") == 1


def test_a_tail_that_was_not_let_in_stays_failed_and_tries_again_slowly(house: Callable[..., House]) -> None:
    def locked_out(_tail: ScriptedTail, _stop: Event) -> None:
        raise AccessError("401")

    h = house(bad=[locked_out, well])
    h.supervisor.start_all()
    h.let(300)
    assert (h.state("bad"), h.runs("bad")) == (State.FAILED, 1)
    h.let(2)
    assert (h.state("bad"), h.runs("bad")) == (State.LIVE, 2)


def test_a_moved_checkpoint_restarts_the_tail_at_once_and_is_no_crash(house: Callable[..., House]) -> None:
    def moved(_tail: ScriptedTail, _stop: Event) -> None:
        raise CheckpointMoved("an operator set it")

    h = house(edited=[moved, moved, moved, moved, moved, well])
    h.supervisor.start_all()
    h.let(6)

    assert h.state("edited") is State.LIVE
    assert h.supervisor.status(h.fleet.key("edited")).restarts == 0


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), MemoryError()])
def test_whatever_a_tail_raises_stays_with_it(house: Callable[..., House], error: BaseException) -> None:
    """A transform that calls sys.exit() must not end the daemon."""

    def exits(_tail: ScriptedTail, _stop: Event) -> None:
        raise error

    h = house(bad=[exits, well], good=well)
    h.supervisor.start_all()
    h.let(4)

    assert (h.state("bad"), h.state("good")) == (State.LIVE, State.LIVE)


def test_a_factory_that_fails_and_a_run_that_just_ends_are_crashes(house: Callable[..., House]) -> None:
    h = house(ended=[lambda _tail, _stop: None, well])
    h.supervisor.start_all()
    h.let(1)
    assert "ended without being asked to" in h.reason("ended")
    h.let(3)
    assert h.state("ended") is State.LIVE


def test_start_and_stop_work_on_one_tail_at_any_time_and_twice(house: Callable[..., House]) -> None:
    h = house(one=well, two=well)
    one = h.fleet.key("one")
    h.supervisor.start(one)
    h.supervisor.start(one)
    h.let(1)
    assert (h.runs("one"), h.runs("two")) == (1, 0)
    assert (h.state("one"), h.state("two")) == (State.LIVE, State.STOPPED)

    h.supervisor.stop(one)
    h.supervisor.stop(one)
    h.let(1)
    assert h.fleet.made["one"][0].drained
    assert h.state("one") is State.STOPPED

    h.supervisor.stop(one)
    h.supervisor.start(one)
    h.let(1)
    assert h.runs("one") == 2


def test_start_while_it_still_drains_starts_it_again_afterwards(house: Callable[..., House]) -> None:
    h = house(one=well)
    h.supervisor.start_all()
    h.let(1)
    h.supervisor.stop(h.fleet.key("one"))
    h.supervisor.start(h.fleet.key("one"))
    h.let(1)

    assert [tail.drained for tail in h.fleet.made["one"]] == [True, False]
    assert h.state("one") is State.LIVE


def test_a_tail_that_does_not_hear_the_stop_is_killed_after_the_timeout(house: Callable[..., House]) -> None:
    h = house(one=deaf)
    h.supervisor.start_all()
    h.let(1)
    h.supervisor.stop(h.fleet.key("one"))
    h.let(29)
    assert h.supervisor.running
    h.let(3)
    assert not h.supervisor.running
    assert h.state("one") is State.STOPPED


def test_restart_drains_and_runs_a_fresh_tail(house: Callable[..., House]) -> None:
    h = house(one=well)
    h.supervisor.start_all()
    h.let(1)
    h.supervisor.restart(h.fleet.key("one"))
    h.let(1)

    assert [tail.drained for tail in h.fleet.made["one"]] == [True, False]


def test_restart_revives_a_failed_tail_with_a_clean_count(house: Callable[..., House]) -> None:
    h = house(bad=[crashing] * 5 + [well])
    h.supervisor.start_all()
    h.let(60)
    assert h.state("bad") is State.FAILED

    h.supervisor.restart(h.fleet.key("bad"))
    h.let(4)
    assert h.state("bad") is State.LIVE


def test_a_pause_outlives_the_daemon_and_a_resume_ends_it(house: Callable[..., House]) -> None:
    h = house(one=well, two=well)
    one = h.fleet.key("one")
    h.supervisor.start_all()
    h.let(1)
    h.supervisor.pause(one)
    h.supervisor.pause(one)
    h.let(1)
    assert h.state("one") is State.PAUSED
    assert h.supervisor.status(one).seq == "7-x", "what was known of it is still shown"

    h.supervisor.kill_all("the daemon ends")
    h.supervisor = h.make()
    h.supervisor.start_all()
    h.supervisor.restart(one)
    h.let(1)
    assert (h.state("one"), h.state("two")) == (State.PAUSED, State.LIVE)
    assert h.runs("one") == 1

    h.supervisor.resume(one)
    h.let(1)
    assert h.state("one") is State.LIVE
    assert one not in Pauses(h.pauses_path)


def test_pauses_that_were_changed_elsewhere_are_followed(house: Callable[..., House]) -> None:
    h = house(one=well, two=well, three=well)
    h.supervisor.start_all()
    h.let(1)
    h.supervisor.stop(h.fleet.key("three"))
    h.pauses.follow(frozenset([str(h.fleet.key("one"))]))
    for _ in range(2):
        h.supervisor.follow_pauses()
        h.let(1)
        assert [h.state(name) for name in ("one", "two", "three")] == [
            State.PAUSED,
            State.LIVE,
            State.STOPPED,
        ]
    h.pauses.follow(frozenset())
    h.supervisor.follow_pauses()
    h.let(1)
    assert [h.state(name) for name in ("one", "two", "three")] == [State.LIVE, State.LIVE, State.STOPPED]
    assert h.runs("two") == 1


def test_stop_all_drains_side_by_side_and_leaves_failed_and_paused_as_they_are(
    house: Callable[..., House],
) -> None:
    h = house(one=well, two=well, bad=crashing, paused=well, waiting=[crashing, well])
    h.supervisor.start_all()
    h.supervisor.pause(h.fleet.key("paused"))
    h.let(60)
    h.supervisor.stop_all()
    h.let(1)

    assert not h.supervisor.running
    assert [h.state(n) for n in ("one", "two", "bad", "paused")] == [
        State.STOPPED,
        State.STOPPED,
        State.FAILED,
        State.PAUSED,
    ]


def test_a_tail_that_backs_off_is_not_restarted_into_a_drain(house: Callable[..., House]) -> None:
    h = house(bad=crashing)
    h.supervisor.start_all()
    h.let(1)
    assert h.state("bad") is State.BACKING_OFF
    h.supervisor.stop_all()
    h.let(30)

    assert (h.state("bad"), h.runs("bad")) == (State.STOPPED, 1)


def test_nothing_starts_while_the_daemon_ends(house: Callable[..., House]) -> None:
    h = house(one=well, two=well)
    one = h.fleet.key("one")
    h.supervisor.start_all()
    h.let(1)
    h.supervisor.pause(one)
    h.supervisor.stop_all()
    h.supervisor.restart(h.fleet.key("two"))
    h.supervisor.resume(one)
    h.supervisor.start(h.fleet.key("two"))
    h.let(3)

    assert not h.supervisor.running
    assert one not in Pauses(h.pauses_path), "but it is remembered"


def test_whom_the_drain_had_to_kill_is_known(house: Callable[..., House]) -> None:
    h = house(one=deaf, two=well)
    h.supervisor.start_all()
    h.let(1)
    h.supervisor.stop_all()
    h.let(2)
    h.supervisor.kill_all("a second signal")
    gevent.idle()

    assert h.supervisor.killed_on_shutdown == [h.fleet.key("one")]
    assert not h.supervisor.running


def test_what_was_killed_before_the_drain_was_not_cut_by_it(house: Callable[..., House]) -> None:
    h = house(bad=[silent, well])
    h.supervisor.start_all()
    h.let(70)
    h.supervisor.stop_all()
    h.let(2)

    assert h.runs("bad") == 2
    assert h.supervisor.killed_on_shutdown == []


def test_a_status_that_raises_is_shown_and_harms_nobody(house: Callable[..., House]) -> None:
    h = house(one=well, two=well)
    h.supervisor.start_all()
    h.let(1)
    h.fleet.made["one"][0].status = lambda: 1 / 0  # type: ignore[assignment,return-value]

    reasons = [status.reason for status in h.supervisor.statuses()]
    assert re.fullmatch(r"no status: ZeroDivisionError \(.*test_supervisor.py:\d+, in <lambda>\)", reasons[0])
    assert reasons[1] == ""


def test_every_state_of_a_life_is_told_to_the_observer(house: Callable[..., House]) -> None:
    h = house(one=[crashing, well])
    h.supervisor.start_all()
    h.let(3)
    h.supervisor.pause(h.fleet.key("one"))
    h.let(1)

    seen = [state for _, state in h.observer.states]
    assert seen == ["starting", "backing-off", "starting", "paused"]


@pytest.mark.parametrize(("more", "count"), [({}, 5), ({"tick_seconds": 0.25}, 20)])
def test_run_ticks_every_second_or_more_often_until_stopped(
    house: Callable[..., House], more: dict[str, float], count: int
) -> None:
    h = house(one=[crashing, well])
    h.supervisor.start_all()
    stop, ticks = Event(), []
    loop = gevent.spawn(h.supervisor.run, stop, each_tick=[lambda: ticks.append(h.clock.monotonic())], **more)
    h.clock.advance(5)
    stop.set()
    loop.join(timeout=60)

    assert loop.dead
    assert len(ticks) == count
    assert h.runs("one") == 2


def test_an_added_tail_runs_once_it_is_started(house: Callable[..., House]) -> None:
    h = house(old=well, new=well)
    factory = h.fleet.factories[h.fleet.key("new")]
    h.supervisor.remove(h.fleet.key("new"))
    h.supervisor.start_all()
    h.supervisor.add(h.fleet.key("new"), factory)
    h.let(1)
    assert (h.runs("new"), h.state("new")) == (0, State.STOPPED)

    h.supervisor.start(h.fleet.key("new"))
    h.let(1)
    assert (h.runs("new"), h.state("new")) == (1, State.LIVE)
    with pytest.raises(ValueError, match="supervised already"):
        h.supervisor.add(h.fleet.key("new"), factory)


def test_a_replaced_tail_drains_before_the_next_one_is_built(house: Callable[..., House]) -> None:
    h = house(one=well, bystander=well)
    key = h.fleet.key("one")
    h.supervisor.start_all()
    h.let(1)
    built: list[ScriptedTail] = []

    def factory() -> ScriptedTail:
        assert h.fleet.made["one"][0].drained
        built.append(ScriptedTail(key, h.clock, well))
        return built[-1]

    assert not h.supervisor.is_draining(key)
    h.supervisor.replace(key, factory)
    assert h.supervisor.is_draining(key)
    h.let(6)
    assert (h.runs("one"), len(built), h.state("one")) == (1, 1, State.LIVE)
    assert h.runs("bystander") == 1
    assert not h.supervisor.is_draining(key)


@pytest.mark.parametrize("pause", [True, False])
def test_a_replaced_tail_that_is_held_stays_held_and_then_runs_as_the_new_one(
    house: Callable[..., House], pause: bool
) -> None:
    h = house(one=well)
    key = h.fleet.key("one")
    h.supervisor.start_all()
    h.let(1)
    h.supervisor.pause(key) if pause else h.supervisor.stop(key)
    h.let(6)
    built: list[ScriptedTail] = []

    def factory() -> ScriptedTail:
        built.append(ScriptedTail(key, h.clock, well))
        return built[-1]

    h.supervisor.replace(key, factory)
    h.let(2)
    assert (built, h.state("one")) == ([], State.PAUSED if pause else State.STOPPED)
    h.supervisor.resume(key) if pause else h.supervisor.start(key)
    h.let(1)
    assert len(built) == 1


def test_a_replaced_tail_that_failed_starts_again(house: Callable[..., House]) -> None:
    h = house(one=[crashing] * 4)
    key = h.fleet.key("one")
    h.supervisor.start_all()
    h.let(60)
    assert h.state("one") is State.FAILED

    h.supervisor.replace(key, lambda: ScriptedTail(key, h.clock, well))
    h.let(1)
    assert h.state("one") is State.LIVE


def test_a_run_that_waits_for_its_first_turn_is_built_by_the_factory_it_was_started_with(
    house: Callable[..., House],
) -> None:
    """Otherwise it would write to the new outputs while another tail may still write there."""
    h = house(one=well)
    key = h.fleet.key("one")
    h.supervisor.start_all()
    built: list[ScriptedTail] = []

    def factory() -> ScriptedTail:
        assert h.fleet.made["one"][0].drained
        built.append(ScriptedTail(key, h.clock, well))
        return built[-1]

    h.supervisor.replace(key, factory)
    h.let(6)
    assert (h.runs("one"), len(built), h.state("one")) == (1, 1, State.LIVE)


def test_a_removed_tail_drains_and_is_forgotten(house: Callable[..., House]) -> None:
    h = house(one=well, bystander=well)
    key = h.fleet.key("one")
    h.supervisor.start_all()
    h.let(1)
    h.supervisor.remove(key)

    assert key not in h.supervisor.keys
    assert h.supervisor.running == [h.fleet.key("bystander"), key]
    with pytest.raises(ValueError, match="still stopping"):
        h.supervisor.add(key, h.fleet.factories[key])
    assert h.observer.gone == []
    h.let(6)
    assert h.fleet.made["one"][0].drained
    assert h.observer.gone == ["one"]
    assert h.supervisor.running == [h.fleet.key("bystander")]
    h.supervisor.add(key, h.fleet.factories[key])


def test_a_removed_tail_that_does_not_stop_is_killed(house: Callable[..., House]) -> None:
    h = house(one=deaf)
    h.supervisor.start_all()
    h.let(1)
    h.supervisor.remove(h.fleet.key("one"))
    h.let(32)
    assert h.supervisor.running == []


def test_the_shutdown_waits_for_a_removed_tail_too(house: Callable[..., House]) -> None:
    h = house(one=deaf)
    key = h.fleet.key("one")
    h.supervisor.start_all()
    h.let(1)
    h.supervisor.remove(key)
    h.supervisor.stop_all()
    assert h.supervisor.running == [key]

    h.supervisor.kill_all("the time is over")
    h.let(2)
    assert (h.supervisor.running, h.supervisor.killed_on_shutdown) == ([], [key])


def test_a_run_that_has_ended_does_not_look_like_one_that_starts(house: Callable[..., House]) -> None:
    h = house(good=[well])
    key = h.fleet.key("good")
    h.supervisor.start_all()
    h.let(3)
    h.supervisor.pause(key)
    let_others_run()
    assert h.supervisor.running == []
    assert h.supervisor.status(key).state == State.LIVE, "what it said last, until the next tick"
    h.let(1)
    assert h.supervisor.status(key).state == State.PAUSED


def test_the_lag_goes_on_from_run_to_run_until_a_run_reaches_the_head(house: Callable[..., House]) -> None:
    def late(tail: ScriptedTail, stop: Event) -> None:
        tail.lag_seconds = 2.0
        tail.clock.wait(stop, 8.0)
        raise ZeroDivisionError("by design")

    h = house(bad=[late, crashing, well])
    key = h.fleet.key("bad")

    def lag() -> float | None:
        return h.supervisor.status(key).lag_seconds

    h.let(5)
    assert lag() == 5, "it waits to be started"
    h.supervisor.start_all()
    h.let(7)
    assert lag() == 2
    h.let(20)
    assert h.runs("bad") == 3
    assert lag() == 21, "2 s when the first run ended, 8 s after its start"
    assert h.supervisor.status(key).changes_per_second == 3
    h.fleet.made["bad"][2].lag_seconds = 0.0
    assert lag() == 0
    h.supervisor.pause(key)
    h.let(9)
    assert lag() == 8, "it ended a second later"
    assert h.supervisor.status(key).changes_per_second is None


def test_an_idle_tail_has_the_same_lag_each_time(
    house: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else every reader of the states would get it anew each second."""
    h = house(good=[well])
    h.supervisor.start_all()
    h.let(3)
    h.fleet.made["good"][0].lag_seconds = 0.0
    now, looks = h.clock.monotonic(), count()
    monkeypatch.setattr(h.clock, "monotonic", lambda: now + next(looks) ** 2 * 1e-6)
    assert {h.supervisor.status(h.fleet.key("good")).lag_seconds for _ in range(3)} == {0.0}


def test_a_held_tail_stays_stopped_whatever_is_asked_until_it_is_released(tmp_path: Path) -> None:
    house = House(tmp_path, held=well)
    supervisor, (key,) = house.supervisor, list(house.fleet.factories)
    supervisor.hold(key)
    supervisor.start_all()
    for ask in (supervisor.start, supervisor.restart, supervisor.resume):
        ask(key)
        house.let(1)
        assert supervisor.status(key).state is State.STOPPED
    supervisor.replace(key, house.fleet.factories[key])
    house.let(1)
    assert supervisor.running == []
    supervisor.release(key)
    house.let(1)
    assert supervisor.running == [key]
    supervisor.hold(key)
    house.let(2)
    assert supervisor.running == []
    supervisor.stop_all()


def test_a_tail_that_is_added_while_it_is_held_starts_only_with_its_release(
    house: Callable[..., House],
) -> None:
    h = house(one=well)
    one = h.fleet.key("one")
    h.supervisor.remove(one)
    h.supervisor.hold(one)
    h.supervisor.add(one, h.fleet.factories[one])
    h.supervisor.start(one)
    h.supervisor.restart(one)
    h.let(1)
    assert h.runs("one") == 0

    h.supervisor.release(one)
    h.let(1)
    assert h.state("one") is State.LIVE

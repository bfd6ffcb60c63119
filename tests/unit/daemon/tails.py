"""Scripted tails for the supervisor's tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import gevent
from gevent.event import Event

from checkpoints import TailKey
from pillows.clock import Clock
from pillows.runtime.status import State, TailStatus

Behaviour = Callable[["ScriptedTail", Event], None]


class ScriptedTail:
    """A tail that behaves as a function says."""

    def __init__(self, key: TailKey, clock: Clock, behaviour: Behaviour) -> None:
        self.key = key
        self.clock = clock
        self.behaviour = behaviour
        self.ticked_at = clock.monotonic()
        self.drained = False
        self.lag_seconds: float | None = None

    def run(self, stop: Event) -> None:
        self.behaviour(self, stop)
        self.drained = True

    @property
    def state(self) -> State:
        return self.status().state

    def status(self) -> TailStatus:
        key = self.key
        return TailStatus(
            pillow=key.pillow,
            source=key.source,
            state=State.LIVE,
            seq="7-x",
            lag_seconds=self.lag_seconds,
            changes_per_second=3.0,
            checkpoint_age_seconds=1.0,
        )


def well(tail: ScriptedTail, stop: Event) -> None:
    """Gives a sign of life every 5 s until it is stopped."""
    while not tail.clock.wait(stop, 5.0):
        tail.ticked_at = tail.clock.monotonic()


def deaf(tail: ScriptedTail, stop: Event) -> None:
    """Lives, but does not hear that it should stop."""
    while True:
        tail.clock.wait(Event(), 5.0)
        tail.ticked_at = tail.clock.monotonic()


def silent(_tail: ScriptedTail, _stop: Event) -> None:
    """Waits for ever without a sign of life."""
    Event().wait()


def unkillable(_tail: ScriptedTail, _stop: Event) -> None:
    """Survives one kill."""
    try:
        Event().wait()
    except gevent.GreenletExit:
        Event().wait()


def crashing(_tail: ScriptedTail, _stop: Event) -> None:
    """Crashes at once."""
    raise ZeroDivisionError("by design")


class Fleet:
    """Factories for a supervisor, and the tails that they made."""

    def __init__(self, clock: Clock, **behaviours: Behaviour | list[Behaviour]) -> None:
        self.made: dict[str, list[ScriptedTail]] = {name: [] for name in behaviours}
        self._clock = clock
        self._behaviours = behaviours

    def key(self, name: str) -> TailKey:
        return TailKey(name, f"couch/{name}")

    @property
    def factories(self) -> dict[TailKey, Callable[[], ScriptedTail]]:
        return {self.key(name): partial(self._make, name) for name in self._behaviours}

    def _make(self, name: str) -> ScriptedTail:
        """The n-th run behaves as the n-th of a list, and then as the last."""
        script = self._behaviours[name]
        runs = script if isinstance(script, list) else [script]
        behaviour = runs[min(len(self.made[name]), len(runs) - 1)]
        tail = ScriptedTail(self.key(name), self._clock, behaviour)
        self.made[name].append(tail)
        return tail

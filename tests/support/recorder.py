"""An observer that remembers every call."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from pillows.observer import Observer


class Recorder(Observer):
    """Remember every hook that was called.

    Attributes:
        told: all calls in order, each with the hook's name and its facts.
        tails: the tail that each call named, in the same order.
    """

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.tails: list[str] = []

    def of(self, hook: str) -> list[dict[str, Any]]:
        """Return the facts of each call of one hook, in order."""
        return [facts for name, facts in self.told if name == hook]

    def events(self, hook: str = "warning") -> list[str]:
        """Return the events that `warning` or `notice` named, in order."""
        return [facts["event"] for facts in self.of(hook)]


def _recording(hook: str) -> Callable[..., None]:
    def record(self: Recorder, tail: object, **facts: Any) -> None:
        self.told.append((hook, facts))
        self.tails.append(str(tail))

    return record


# Each hook there is, so that a new one is recorded without an edit here.
for _hook, _ in inspect.getmembers(Observer, inspect.isfunction):
    if not _hook.startswith("_"):
        setattr(Recorder, _hook, _recording(_hook))

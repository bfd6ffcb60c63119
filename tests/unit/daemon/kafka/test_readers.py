"""A daemon that reads databases begins again after whatever ended its membership."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from gevent.event import Event

from checkpoints import TailKey
from daemon.kafka.readers import Readers
from pillows.errors import AccessError, FencedError, PillowError, RetryableError
from pillows.kafka.group import Listener
from pillows.observer import Observer
from tests.support.clock import FakeClock


class Scene:
    """Readers whose memberships fail, one after the other; the stop is set when none is left."""

    def __init__(self, *failures: PillowError | None) -> None:
        self.memberships = 0
        self.closed = 0
        self.find: Any = dict[TailKey, str]
        self._failures = list(failures)
        self._stop = Event()
        self.readers = Readers[str](
            self._find,
            lambda key, _: pytest.fail(f"{key} is not assigned"),
            self._make,  # type: ignore[arg-type] # as far as it is used
            lambda _: None,
            clock=FakeClock(),
            observer=Observer(),
        )

    def run(self) -> None:
        self.readers.run(self._stop)

    def _find(self) -> Mapping[TailKey, str]:
        return self.find()

    def _make(self, listener: Listener) -> Scene:
        self.memberships += 1
        failure = self._failures.pop(0) if self._failures else None
        if failure is not None:
            listener.failed(failure)
        elif not self._failures:
            self._stop.set()
        return self

    def start(self) -> None:
        """As a consumer."""

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("failure", [AccessError("denied"), RetryableError("away")])
def test_a_denial_that_passes_does_not_end_the_reading(failure: PillowError) -> None:
    """A broker that is restarted may deny access for a moment."""
    scene = Scene(failure, failure)
    scene.run()
    assert (scene.memberships, scene.closed) == (3, 3)
    assert scene.readers.error is None


def test_a_daemon_with_the_same_id_ends_the_reading() -> None:
    scene = Scene(FencedError("taken over"), None)
    scene.run()
    assert scene.memberships == 1


def test_an_unexpected_error_does_not_end_the_reading() -> None:
    scene = Scene(None, None)
    failures = [OSError("no file"), OSError("no file")]  # while reading, and while ending

    def find() -> Mapping[TailKey, str]:
        if failures:
            raise failures.pop()
        return {}

    scene.find = find
    scene.run()
    assert (scene.memberships, scene.closed) == (2, 2)
    assert failures == []

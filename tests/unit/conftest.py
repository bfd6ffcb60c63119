"""Tails that end, and stores that are closed, with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.tails import Parts, RunningTail


@pytest.fixture
def running() -> Iterator[Callable[[Parts], RunningTail]]:
    """Start tails: `running(plan(folder, feed, transport))`."""
    opened: list[RunningTail] = []

    def start(settings: Parts) -> RunningTail:
        opened.append(RunningTail(settings))
        return opened[-1]

    yield start
    for each in opened:
        each.kill()
    stores = [part for each in opened for part in (each.settings.store, each.settings.dead_letters)]
    for store in {id(store): store for store in stores}.values():
        store.close()

"""The memory of a daemon and its workers during a load does not grow with the database."""

from __future__ import annotations

from contextlib import suppress

import psutil
import pytest

from tests.acceptance.loads import configure, workers_of
from tests.acceptance.process import Pillowd
from tests.acceptance.world import World, complete

WORKERS = 2
MB = 1e6


def measure(daemon: Pillowd) -> tuple[float, float]:
    """Lets a daemon load everything. Returns the most memory of it and of a worker, in MB."""
    most, most_of_worker = 0.0, 0.0

    def look() -> bool:
        nonlocal most, most_of_worker
        with suppress(psutil.Error):
            most = max(most, psutil.Process(daemon.child.pid).memory_info().rss / MB)
        for pid in workers_of(daemon):
            with suppress(psutil.Error):  # it has ended meanwhile
                most_of_worker = max(most_of_worker, psutil.Process(pid).memory_info().rss / MB)
        return complete(daemon)

    daemon.start()
    daemon.wait_for(look, seconds=1800)
    assert daemon.stop() == 0
    return most, most_of_worker


@pytest.mark.proof
@pytest.mark.timeout(3600)
def test_a_million_documents_take_no_more_memory_than_a_fifth_of_them(world: World) -> None:
    world.connections["nowhere"] = {"type": "null"}
    found = []
    for begin, end in ((0, 200_000), (200_000, 1_000_000)):
        for start in range(begin, end, 20_000):
            world.fill(20_000, start=start)
        nowhere = [{"connection": "nowhere", "name": "nothing"}]
        found.append(measure(configure(world, workers=WORKERS, seconds=0.0, transport=nowhere)))
    (small, small_worker), (large, large_worker) = found
    print(f"\n200,000 documents: {small:.0f} MB, a worker {small_worker:.0f} MB;")
    print(f"a million: {large:.0f} MB, a worker {large_worker:.0f} MB")
    assert large < 1.05 * small
    assert large_worker < 1.05 * small_worker
    assert large_worker < 80
    assert large < 90 + 2 * WORKERS * 0.2

"""The memory and CPU time of a daemon that has nothing to do."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.acceptance.world import TARGETS, World, live
from tests.support.sizes import size

#: 10 of them are for the libraries of the HTTP API and of the metrics.
MOST_MB = 110


@pytest.mark.timeout(size(ci=300, proof=600))
def test_three_idle_pillows_take_less_than_110_mb(world: World) -> None:
    """One pillow writes into each target, and resumes at the head. The kernel counts the resident memory.

    What is left of a catch-up in the same process is told too: Python's own allocator keeps some of it.
    """
    world.fill(size(ci=1_000, proof=100_000))
    daemon = world.pillowd({target: world.pillow(target, target) for target in TARGETS}).start()
    daemon.wait_for(lambda: live(daemon), seconds=300)
    for target in TARGETS:
        assert world.differences(target, target) == {}
    after_mb, peak_mb = _memory_mb(daemon.child.pid)
    assert daemon.stop() == 0

    daemon.start()
    daemon.wait_for(lambda: live(daemon))
    before = _cpu_seconds(daemon.child.pid)
    seconds = size(ci=1.0, proof=30.0)
    time.sleep(seconds)
    resident_mb, _ = _memory_mb(daemon.child.pid)
    cpu = (_cpu_seconds(daemon.child.pid) - before) / seconds

    print(
        f"\nidle, 3 pillows: {resident_mb:.1f} MB resident, {cpu:.1%} of a core; "
        f"right after a catch-up {after_mb:.0f} MB, {peak_mb:.0f} MB at most"
    )
    assert resident_mb < MOST_MB
    assert daemon.stop() == 0


def _memory_mb(pid: int) -> tuple[float, float]:
    """Returns the resident memory, and the most that ever was resident."""
    status = Path(f"/proc/{pid}/status").read_text()
    resident, peak = (re.search(rf"{name}:\s*(\d+) kB", status) for name in ("VmRSS", "VmHWM"))
    assert resident
    assert peak
    return int(resident[1]) * 1024 / 1e6, int(peak[1]) * 1024 / 1e6


def _cpu_seconds(pid: int) -> float:
    """Of the process; proc(5) counts in hundredths."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100

"""No turn of the hub computes for more than 50 ms, and none sleeps in a system call outside the hub."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.process import ROOT
from tests.acceptance.world import World
from tests.support.sizes import size

#: What a turn computes at most, on a machine of its own; caches that are shared make it slower.
MOST_SECONDS = size(ci=0.2, proof=0.05)
KB = 1000

PLUGINS = """
import time
from gevent import monkey

sleep = monkey.get_original("time", "sleep")

def computing(until):
    while time.thread_time() < until:
        pass

def sleeping():
    sleep(1)

def rows(document):
    computing(time.thread_time() + 0.5 if document["_id"] == "d3" else 0)
    if document["_id"] == "d5":
        sleeping()
    return document
"""

#: System calls of Linux on x86-64 in which a thread of ours may wait: the hub's own (epoll_wait,
#: epoll_pwait), and futex, where it waits for Python's lock while a thread of the pool computes.
WAITS = {"232": "epoll_wait", "281": "epoll_pwait", "202": "futex"}
NAMES = {
    "0": "read", "1": "write", "7": "poll", "18": "pwrite64", "23": "select", "35": "nanosleep",
    "42": "connect", "45": "recvfrom", "61": "wait4", "74": "fsync", "75": "fdatasync",
    "230": "clock_nanosleep", "257": "openat",
}  # fmt: skip


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.timeout(size(ci=300, proof=300))
@pytest.mark.parametrize(
    ("documents", "target"),
    [
        ("bulk_get", "postgres"),
        ("include_docs", "sqlite"),
        pytest.param("bulk_get", "sqlite", marks=pytest.mark.proof),
        pytest.param("include_docs", "postgres", marks=pytest.mark.proof),
    ],
)
def test_no_turn_is_long_or_sleeps_outside_the_hub(world: World, documents: str, target: str) -> None:
    """Documents of 1 kB, 100 kB and 5 MB, from the feed to the target and its checkpoints."""
    count = fill(world)
    daemon = world.pillowd(
        {"cases": world.pillow("cases", target, source={"documents": documents})},
        checkpoints={"interval": "200ms", "max_uncheckpointed": 100},
    )
    (daemon.folder / "state").mkdir()
    told, asleep = measured([str(daemon.config), str(count)], daemon.folder / "hub.log")
    longest = told["longest"]
    most = told["most"]
    print(
        f"\n{documents} into {target}: {told['turns']} turns, the longest {most * 1000:.0f} ms of CPU; "
        f"seen asleep in {dict(asleep)}"
    )
    assert world.differences("cases", target) == {}
    assert most < MOST_SECONDS, where(longest)
    assert not told["slept"], (asleep, told["slept"])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_functions_that_hold_up_the_hub_are_named(world: World) -> None:
    """The measurement above names the functions of a transform that compute for too long or sleep."""
    (world.folder / "plugins.py").write_text(PLUGINS)
    world.couch.bulk({"_id": f"d{n}"} for n in range(10))
    daemon = world.pillowd({"cases": world.pillow("cases", "sqlite", transform={"python": "plugins:rows"})})
    (daemon.folder / "state").mkdir()
    told, asleep = measured([str(daemon.config), "10"], daemon.folder / "hub.log")
    assert told["longest"][0][0] > MOST_SECONDS
    assert "computing < " in where(told["longest"][:1])
    assert set(asleep) - set(WAITS.values())
    assert "sleeping" in str(told["slept"])


def fill(world: World) -> int:
    """Writes documents of 1 kB, some of 100 kB and few of 5 MB; returns how many there are."""
    small, middle, large = size(ci=1_000, proof=20_000), size(ci=20, proof=200), size(ci=2, proof=10)
    couch = world.couch
    couch.bulk({"_id": f"small-{n:05}", "n": n, "text": "s" * KB} for n in range(small))
    couch.bulk(
        {"_id": f"middle-{n:03}", "list": [f"{n} {i}" * 3 for i in range(6_000)]} for n in range(middle)
    )
    for n in range(large):
        couch.put(f"large-{n}", text="l" * 5_000 * KB, n=n)
    couch.bulk({"_id": f"tail-{n:05}", "n": n, "text": "s" * KB} for n in range(small))
    return 2 * small + middle + large


def measured(arguments: list[str], log: Path) -> tuple[dict[str, Any], Counter[str]]:
    """Returns what the process reports, and the system calls in which it was seen asleep while it ran."""
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.acceptance.hub_process", *arguments],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=errors,
        )  # fmt: skip
    asleep: Counter[str] = Counter()
    try:
        assert process.stdout
        assert process.stdout.readline().strip() == b"running", log.read_text()
        while process.poll() is None:
            call = _system_call(process.pid)
            if call is not None:
                asleep[call] += 1
                if call not in WAITS.values():
                    os.kill(process.pid, signal.SIGUSR1)
            time.sleep(0.001)
        output = process.stdout.read()
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()
    assert process.returncode == 0, log.read_text()
    return json.loads(output), asleep


def _system_call(pid: int) -> str | None:
    """The system call in which the process's first thread sleeps; None while it runs, or is over.

    One that only lost its processor to another process within a call does not sleep: its state is R.
    """
    task = Path(f"/proc/{pid}/task/{pid}")
    with suppress(OSError):
        state = (task / "stat").read_text().rpartition(")")[2].split()[0]
        number = (task / "syscall").read_text().split()[0]
        if state in "SD" and number.isdigit():
            return WAITS.get(number) or NAMES.get(number) or f"system call {number}"
    return None


def where(longest: list[tuple[float, list[str]]]) -> str:
    """Each long turn, and the functions that were seen in it most often."""
    lines = []
    for seconds, samples in longest:
        seen = Counter(samples).most_common(3)
        lines.append(f"{seconds * 1000:.0f} ms: " + "; ".join(f"{n} x {place}" for place, n in seen))
    return "\n".join(lines)

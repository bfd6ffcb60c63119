"""BulkPusher before a server process that is stopped for a while: how much it holds meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
import requests

from pillows import BulkOptions, BulkPusher
from tests.support.sizes import size

THRESHOLD = 500
BUFFERED = 2
#: In the buffer, on their way, and growing.
BULKS = BUFFERED + 1 + 1
#: While one is sent it stands there as JSON (in a buffer that grows by doubling) and as a request, too.
COPIES = 5
#: A document as it is kept, encoded.
KEPT_BYTES = 1100


@pytest.fixture
def server() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(Path(__file__).with_name("bulk_server.py"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.send_signal(signal.SIGCONT)
        process.kill()


def test_memory_is_bounded_before_a_stopped_server_however_much_is_pushed(
    server: subprocess.Popen[str],
) -> None:
    """The server is stopped three times: `push` waits, other greenlets go on, and no document is lost."""
    count = size(ci=15_000, proof=1_000_000)
    stops = [count // 4, count // 2, count * 3 // 4]
    assert server.stdout is not None
    url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
    pushed = [0]
    ticks = [0]

    def tick() -> None:
        while True:
            ticks[0] += 1
            gevent.sleep(0.01)

    def produce() -> None:
        text = "x" * 1000
        with BulkPusher(f"{url}/db", BulkOptions(threshold=THRESHOLD, jobsbuffersizemax=BUFFERED)) as pushing:
            for number in range(count):
                pushing.push({"_id": str(number), "text": text})
                pushed[0] = number + 1
                if number in stops:
                    server.send_signal(signal.SIGSTOP)
        assert pushing.counts.ok == count

    with BulkPusher(f"{url}/db") as pushing:  # what the first request loads and keeps is no document
        pushing.push({"_id": "first"})
    ticker = gevent.spawn(tick)
    tracemalloc.start()
    try:
        producer = gevent.spawn(produce)
        for stop in stops:
            _until_stuck(producer, pushed, beyond=stop)
            before = ticks[0]
            gevent.sleep(0.3)
            assert ticks[0] > before, "others go on"
            assert pushed[0] <= stop + 1 + BULKS * THRESHOLD
            server.send_signal(signal.SIGCONT)
        producer.get(timeout=3600)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        ticker.kill()
        producer.kill()
    print(f"{count} documents: at most {peak_bytes / 2**20:.2f} MiB for {BULKS} bulks of {THRESHOLD}")
    assert requests.get(f"{url}/taken", timeout=60).json()["taken"] == count + 1
    assert peak_bytes <= (BULKS + COPIES) * THRESHOLD * KEPT_BYTES


def _until_stuck(producer: Any, pushed: list[int], *, beyond: int) -> None:
    """Waits until the producer is past that document and gets no further."""
    before = -1
    while pushed[0] <= beyond or pushed[0] != before:
        assert not producer.dead, producer.exception
        before = pushed[0]
        gevent.sleep(0.5)

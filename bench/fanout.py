"""What the fan-out itself costs: a batch to three transports that do nothing.

Usage: python -m bench.fanout
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import time

from gevent.event import Event

from checkpoints import TailKey
from pillows import registry
from pillows.clock import SystemClock
from pillows.delivery.fanout import FanOut
from pillows.models import Batch, DocumentRows
from pillows.observer import Observer
from pillows.retry.cancellable import StopAwareWaiter
from pillows.retry.retrier import Retrier


def microseconds_per_batch(batches: int, *, transports: int = 3) -> float:
    """Microseconds that a batch of one document takes to and from transports that discard."""
    null = registry.transport("null")
    key = TailKey("bench", "bench/bench")
    made = [null(f"t{n}", key, null.Connection(), {"bench": null.Output()}) for n in range(transports)]
    retrier = Retrier(TailKey("bench", "bench"), StopAwareWaiter(SystemClock(), Event()), Observer())
    fanout = FanOut(made, retrier, timeouts_seconds={each.name: 600.0 for each in made})
    batch = Batch(documents=[DocumentRows(id="a", rev="1-a", leaf_version=1, rows={})], epoch=1)
    began = time.thread_time()
    for _ in range(batches):
        fanout.deliver(batch)
    return (time.thread_time() - began) / batches * 1e6


if __name__ == "__main__":
    for count in (1, 2, 3, 8):
        best = min(microseconds_per_batch(5000, transports=count) for _ in range(3))
        print(f"{count} transports: {best:.0f} microseconds a batch")

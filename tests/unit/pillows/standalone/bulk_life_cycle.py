"""A life of a BulkPusher, drawn at random: whatever the target does, each call returns or raises.

As a script it runs in an ordinary program, in which nothing is patched.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import ExitStack

import gevent
import hypothesis
from hypothesis import strategies as st

from pillows import BulkOptions, BulkPusher
from pillows.errors import RetryableError
from pillows.standalone.bulk_pusher import PusherClosed

#: A call that takes longer waits for ever.
LIMIT_SECONDS = 20.0

ENDINGS: tuple[Callable[[], BaseException] | None, ...] = (
    None,
    lambda: RetryableError("busy"),
    lambda: ValueError("bad"),
    lambda: gevent.Timeout(5),
    gevent.GreenletExit,
    asyncio.CancelledError,
    KeyboardInterrupt,
    lambda: SystemExit(3),
)
EXPECTED = (RetryableError, ValueError, RuntimeError, KeyboardInterrupt, PusherClosed)


class Life:
    """Calls a pusher from many threads."""

    def __init__(self, endings: list[int], partitions: int) -> None:
        self.endings = list(endings)
        self.raised: list[BaseException] = []
        self.threads: list[threading.Thread] = []
        self.pushed = 0
        self.pusher = BulkPusher(
            self.write,
            BulkOptions(
                threshold=2, jobsbuffersizemax=1, max_in_flight=partitions, max_tries=1, max_age_seconds=0.001
            ),
        )

    def write(self, documents: object) -> None:
        ending = ENDINGS[self.endings.pop()] if self.endings else None
        if ending is not None:
            raise ending()

    def push(self) -> None:
        for number in range(7):
            self.pusher.push({"_id": f"d{number}"})
            self.pushed += 1

    def call(self, name: str, *, beside: bool) -> None:
        """Make a call, in a thread beside the next ones or before them."""
        call = self.push if name == "push" else getattr(self.pusher, name)

        others = list(self.threads)

        def run() -> None:
            alone = not any(thread.is_alive() for thread in others)
            try:
                call()
                if alone and name in ("flush", "finish"):
                    assert self.pusher.counts.ok == self.pushed
            except BaseException as error:  # noqa: BLE001 - looked at in the end
                self.raised.append(error)

        self.threads.append(threading.Thread(target=run, name=name, daemon=True))
        self.threads[-1].start()
        if not beside:
            self.join(self.threads[-1])

    def join(self, thread: threading.Thread) -> None:
        thread.join(LIMIT_SECONDS)
        assert not thread.is_alive(), f"{thread.name} waits for ever"

    def end(self) -> None:
        for thread in self.threads:
            self.join(thread)
        self.call("close", beside=False)
        unexpected = [error for error in self.raised if not isinstance(error, EXPECTED)]
        assert not unexpected, unexpected


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(
    calls=st.lists(
        st.tuples(st.sampled_from(["push", "push", "flush", "finish", "close"]), st.booleans()), max_size=8
    ),
    endings=st.lists(st.integers(0, len(ENDINGS) - 1), max_size=6),
    partitions=st.integers(1, 3),
)
def live(calls: list[tuple[str, bool]], endings: list[int], partitions: int) -> None:
    """Run one life."""
    life = Life(endings, partitions)
    with ExitStack() as stack:
        stack.callback(life.end)
        for name, beside in calls:
            life.call(name, beside=beside)


if __name__ == "__main__":
    live()

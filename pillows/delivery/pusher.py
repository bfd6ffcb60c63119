"""One writer behind the reader: while a batch is written, the next is read and transformed.

Memory is bounded (one batch in flight, one growing), batches are written in the order of their items, and an
error of the writer is raised in `push` and `finish`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from pillows.clock import Clock
from pillows.delivery.backends import GreenletBackend
from pillows.delivery.batcher import Batcher, BatchOptions
from pillows.errors import StoppedError
from pillows.user_code import confine

Item = TypeVar("Item")


class Pusher(Generic[Item]):
    """Writes pushed items in batches, in a task of its own.

    Args:
        write: writes one batch and returns once every item of it is final.
        options: the bounds of a batch.
        clock: measures waits.
        tick: called while waiting, as a sign of life.
        on_error: called once, when `write` has raised and the pusher has ended.
        on_take: called with the items and bytes that still wait whenever a batch is taken.
        backend: runs the writer.
        max_queued: most full batches that wait for the writer, in addition to the one that grows.

    Attributes:
        push: hands over an item with its size in bytes; waits while the growing batch is full, and returns
            whether it waited. Raises the error of the writer, if it has ended with one. See `Batcher.add`.
        expect: announces whether more items follow at once. See `Batcher.expect`.
    """

    def __init__(
        self,
        write: Callable[[list[Item]], None],
        options: BatchOptions,
        clock: Clock,
        *,
        tick: Callable[[], None] = lambda: None,
        on_error: Callable[[], None] = lambda: None,
        on_take: Callable[[int, int], None] = lambda _items, _size_bytes: None,
        backend: GreenletBackend | None = None,
        max_queued: int = 0,
    ) -> None:
        beside = backend or GreenletBackend()
        self._write = write
        self._batcher: Batcher[Item] = Batcher(options, clock, tick, beside.event, max_queued)
        self.push = self._batcher.add  # called for each change
        self.expect = self._batcher.expect
        self._on_error = on_error
        self._on_take = on_take
        self._error: Exception | None = None
        self._writer = beside.spawn(self._run, self._leave)

    def flush(self) -> None:
        """Stop waiting for more documents: write the pushed ones."""
        self._batcher.flush()

    def finish(self) -> None:
        """Wait until everything pushed is written, and end the writer.

        Raises:
            The error of the writer, except `StoppedError`: unwritten changes are read again after a restart.
        """
        self._batcher.close()
        self._writer.join()
        if self._error is not None and not isinstance(self._error, StoppedError):
            raise self._error

    def kill(self, *, block: bool = True) -> None:
        """Kill the writer; a waiting `push` raises `StoppedError`.

        The batch in flight may or may not be written.

        Args:
            block: wait for its end.
        """
        self._leave()
        self._writer.kill(block=block)

    def _leave(self) -> None:
        self._batcher.fail(StoppedError())
        self._batcher.close()

    def _run(self) -> None:
        try:
            while (items := self._batcher.take()) is not None:
                self._on_take(*self._batcher.waiting)
                self._write(items)
        except BaseException as raised:  # noqa: BLE001 - handed to whoever pushes or finishes
            self._error = error = confine(raised)
            self._batcher.fail(error)
            self._on_error()

"""Open a tail that does not run, to send documents without its feed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from gevent.event import Event

from pillows.errors import StoppedError
from pillows.observer import Observer
from pillows.runtime.document_sender import DocumentSender
from pillows.runtime.tail_monitor import TailMonitor
from pillows.runtime.tail_run import TailRun
from pillows.runtime.tail_settings import TailServices, TailSettings


@contextmanager
def open_sender(
    settings: TailSettings, services: TailServices, *, halt: Event, trust_equal: bool = True
) -> Iterator[DocumentSender]:
    """Open the targets and yield what sends documents; at the end drain, and save the checkpoint.

    Args:
        settings: the tail's.
        services: the tail's.
        halt: ends the retries of unreachable servers.
        trust_equal: see `BatchDelivery`.

    Raises:
        FatalError: the tail can't run. If only `halt` was set, nothing is raised.
    """
    monitor = TailMonitor(settings.key, services.clock, Observer())
    run = TailRun(settings, services, monitor, halt=halt, trust_equal=trust_equal)
    with run.open() as pipeline, ExitStack() as stack:
        carrier = run.build_carrier(stack, pipeline)
        with suppress(StoppedError):  # `open` raises an error of the writer behind it
            yield run.make_sender(carrier)

"""The delivery reports of messages that were sent together. Nothing here waits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from pillows.kafka.errors import Failure

#: What is reported for messages whose transaction was aborted because of others.
ABORTED = Failure(name="_ABORTED", text="the transaction was aborted because of other messages")


class Delivery:
    """Counts the reports.

    Attributes:
        pending: messages without a report.
        failures: id of a document -> why a message of it was not acknowledged.
    """

    def __init__(self) -> None:
        self.pending = 0
        self.failures: dict[str, Failure] = {}

    def expect(self, id: str) -> Callable[[Any, Any], None]:
        """Count a message of a document; return the function that takes its report."""
        self.pending += 1
        return partial(self._report, id)

    def abort(self, ids: Iterable[str], failure: Failure = ABORTED) -> None:
        """Note that the transaction was aborted: documents that had not failed have failed now."""
        for id in ids:
            self.failures.setdefault(id, failure)

    def _report(self, id: str, error: Any, _message: Any) -> None:
        self.pending -= 1
        if error is not None:
            self.failures.setdefault(id, to_failure(error))


def to_failure(error: Any) -> Failure:
    """Return a library's `KafkaError` as a failure."""
    return Failure(name=error.name(), text=error.str())

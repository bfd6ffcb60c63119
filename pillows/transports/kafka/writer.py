"""Write a batch of documents: the brokers decide about each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from pillows.errors import PermanentError, RetryableError
from pillows.halving import send_in_halves
from pillows.kafka.delivery import Delivery
from pillows.kafka.errors import Failure, Verdict, to_error
from pillows.kafka.message import Message
from pillows.models import DocumentRows, WriteResult


class BatchWriter:
    """Writes one batch; in halves where the brokers refuse messages for their size together.

    Args:
        send: sends messages and waits for their reports.
        encode: returns the messages of a document.
    """

    def __init__(
        self,
        send: Callable[[Iterable[Message]], Delivery],
        encode: Callable[[DocumentRows], list[Message]],
    ) -> None:
        self._send = send
        self._encode = encode
        self._written: set[str] = set()
        self._trouble: Failure | None = None
        self._dead: dict[str, str] = {}
        self._retry: dict[str, str] = {}

    def write(self, documents: Sequence[DocumentRows], servers: Sequence[str]) -> WriteResult:
        """Write documents.

        Args:
            documents: with different ids.
            servers: the brokers, for messages.

        Raises:
            FatalError: the brokers refused for another reason than a document.
            RetryableError: no document was written, and none is dead.
        """
        if documents:
            send_in_halves(documents, self._write_part, _is_too_large)
        if self._trouble is not None:
            error = to_error(self._trouble, servers)
            if not isinstance(error, RetryableError) or not (self._written or self._dead):
                raise error
        return WriteResult(dead=self._dead, retry=self._retry)

    def _write_part(self, documents: Sequence[DocumentRows]) -> None:
        """Write those of the documents that are not written yet.

        Raises:
            _TooLargeError: some are too large together.
        """
        rest = [document for document in documents if document.id not in self._written]
        if self._trouble is not None:  # the others would wait as long for the same
            self._retry.update((document.id, str(self._trouble)) for document in rest)
            return
        failures = self._send(self._make_messages(rest)).failures
        self._written.update(each.id for each in rest if each.id not in failures | self._dead)
        too_large = {id for id, failure in failures.items() if failure.verdict is Verdict.TOO_LARGE}
        if too_large and len(documents) > 1:
            raise _TooLargeError
        for id, failure in failures.items():
            if id in too_large or failure.verdict is Verdict.DEAD:
                self._dead[id] = str(failure)
            else:
                self._retry[id] = str(failure)
                self._trouble = failure

    def _make_messages(self, documents: Iterable[DocumentRows]) -> Iterator[Message]:
        for document in documents:
            try:
                yield from self._encode(document)
            except PermanentError as error:
                self._dead[document.id] = str(error)


class _TooLargeError(Exception):
    """Some of the documents may be taken in smaller requests."""


def _is_too_large(error: Exception) -> bool:
    return isinstance(error, _TooLargeError)

"""Reads all leaves of documents, in halves where one answer would be too large."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from pillows.couch.client import CouchClient
from pillows.couch.response import TooLargeError

#: An answer that is larger is asked for in halves; that of one document may be so many times as large.
_MAX_ANSWER_BYTES = 64 * 2**20
_ONE_DOCUMENT = 16

#: How long a server may work before the first byte of its answer.
_SILENT_SECONDS = 60.0

_Result_co = TypeVar("_Result_co", covariant=True)


class Answer(Protocol[_Result_co]):
    """An answer of `_bulk_get`, with as much of each document as its reader needs."""

    @property
    def results(self) -> Sequence[_Result_co]:
        """One or more for each document."""


def all_leaves(
    couch: CouchClient, path: str, kind: type[Answer[_Result_co]], ids: Sequence[str]
) -> list[_Result_co]:
    """What `_bulk_get` tells of these documents.

    Args:
        couch: the server.
        path: of the database's `_bulk_get`, with its query.
        kind: what an answer is decoded to.
        ids: of the documents.

    Raises:
        TooLargeError: one document alone is too large.
        PillowError: as `CouchClient.json`.
    """
    try:
        answer = couch.json(
            "POST",
            path,
            kind,
            body={"docs": [{"id": id} for id in ids]},
            max_bytes=_MAX_ANSWER_BYTES * (1 if len(ids) > 1 else _ONE_DOCUMENT),
            silent_seconds=_SILENT_SECONDS,
        )
    except TooLargeError:
        middle = len(ids) // 2
        if not middle:
            raise
        return [each for half in (ids[:middle], ids[middle:]) for each in all_leaves(couch, path, kind, half)]
    return list(answer.results)

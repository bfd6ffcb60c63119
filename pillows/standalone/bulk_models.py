"""The options, documents and outcomes of bulk writers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from pillows import strict_json


class BulkOptions(Struct, frozen=True, kw_only=True):
    """How documents are pushed in bulk.

    Attributes:
        threshold: documents in a bulk.
        jobsbuffersizemax: bulks that may wait until one in flight is done.
        max_bytes: bytes in a bulk; a single larger document goes alone.
        max_age_seconds: a bulk that is not full is sent after this time.
        max_in_flight: bulks in flight. 1 keeps the order of pushes. With more, the documents of one id keep
            theirs.
        max_tries: how often a bulk is tried before the error is raised to the caller; None: forever.
        on_conflict: `skip` (listed in the counts), `overwrite` with the revision that is there, or `fail`. Of
            databases only.
        create: create a missing database. Of databases only.

    Raises:
        ValueError: a number is too low.
    """

    threshold: int = 1000
    jobsbuffersizemax: int = 10
    max_bytes: int = 5 * 2**20
    max_age_seconds: float = 1.0
    max_in_flight: int = 1
    max_tries: int | None = 8
    on_conflict: str = "skip"
    create: bool = False

    def __post_init__(self) -> None:
        if min(self.threshold, self.max_bytes, self.max_in_flight) < 1 or self.jobsbuffersizemax < 0:
            raise ValueError("threshold, max_bytes and max_in_flight are at least 1")


class BulkDocument(msgspec.Struct, frozen=True):
    """A document, encoded when it was pushed.

    Attributes:
        id: its `_id`; empty if the target chooses it.
        body: its JSON.
    """

    id: str
    body: bytes

    @classmethod
    def of(cls, document: Mapping[str, Any] | bytes) -> Self:
        """Encode a document.

        Raises:
            TypeError, ValueError: it is not a JSON object; a value that JSON cannot hold is named.
        """
        if isinstance(document, bytes):
            document.decode()  # the parser skips what is not asked for, whatever its bytes
            return cls(id=msgspec.json.decode(document, type=_Named).id, body=document)
        if not isinstance(document, Mapping):
            raise TypeError(f"a document is a mapping, not {type(document).__name__}")
        id = document.get("_id", "")
        if not isinstance(id, str):
            raise TypeError(f"an _id is text, not {type(id).__name__}")
        return cls(id=id, body=strict_json.encode(dict(document)))


class _Named(msgspec.Struct):
    id: str = msgspec.field(name="_id", default="")


class BulkOutcome(Struct, frozen=True, kw_only=True):
    """The outcome of a batch. A document that is in neither mapping was written.

    The ids are for display. If several documents of a batch share an id, or some have none, only the counts
    are exact. If a count is not given, every document whose id is in the mapping is counted as not written.

    Attributes:
        conflicts: id -> reason, of documents that the target holds in another revision.
        failures: id -> reason, of documents that can never be written.
        conflict: how many documents had a conflict.
        failed: how many failed.
    """

    conflicts: Mapping[str, str] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    conflict: int | None = None
    failed: int | None = None

    def with_counts(self, documents: Sequence[BulkDocument]) -> Self:
        """Return the outcome with both counts, for the batch it belongs to."""
        return replace(
            self,
            conflict=_count(documents, self.conflicts) if self.conflict is None else self.conflict,
            failed=_count(documents, self.failures) if self.failed is None else self.failed,
        )


def _count(documents: Sequence[BulkDocument], named: Mapping[str, str]) -> int:
    # The target may have named a document that came without an id.
    return max(len(named), sum(document.id in named for document in documents))

"""What the conformance suite must know of a target, and the values it writes there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import msgspec
import pytest

from checkpoints import Checkpoint, Seq, TailKey
from pillows.models import Batch, DocumentRows, Row
from pillows.transports.base import Transport

KEY = TailKey("cases", "couch/cases")
OTHER_KEY = TailKey("forms", "couch/forms")


class Target(ABC):
    """One transport's target as a test sees it: fresh for each test, read without the transport.

    The suite uses these outputs, each of which `transport` configures when it is named:

    * `docs`, `other`: whole documents, at most one row each;
    * `typed`: one field `n` that must be an integer (where the target has types);
    * `lines`: any number of rows a document, only where `has_many`.
    """

    #: A document may have any number of rows in an output.
    has_many: bool = True
    #: The write version of a deleted document is still there after a restart of the target.
    remembers_deletes: bool = True
    #: Saves the checkpoint with the rows.
    transactional: bool = False
    #: A row of `typed` that the target takes, and one that it refuses for good.
    good_row: ClassVar[Row] = {"n": 1}
    bad_row: ClassVar[Row] = {"n": "not a number"}
    #: Tells under which epoch other pillows wrote; otherwise they are refused, or there is no epoch.
    tells_others: bool = False
    #: Two builds of an output may stand side by side, and change places.
    has_builds: bool = True
    #: Names of faults under which the target does nothing, but will later (`busy`).
    busy_faults: Sequence[str] = ()
    #: Names of places where the connection can be cut (`cut`), such as "before" and "after".
    cut_places: Sequence[str] = ()

    @abstractmethod
    def transport(self, *outputs: str, key: TailKey = KEY) -> Transport:
        """A new transport on this target, not yet opened. Each call gives another one."""

    @abstractmethod
    def read(self, output: str) -> dict[str, list[dict[str, Any]]]:
        """Every visible row by document id, in order, read by a client of the test's own.

        A row is the JSON object that was written; `_id`, `_rev` and the write version may be among its
        fields or not. Ids without a row are not in it.
        """

    @abstractmethod
    def write_version(self, output: str, id: str) -> int | None:
        """The write version that is stored for a document, deleted or not; None where there is none."""

    @abstractmethod
    def open_connections(self) -> int:
        """How many connections transports hold to the target now, as the target or the system sees."""

    def restart(self) -> None:
        """Restarts the target's server."""
        pytest.skip("this target has no server to restart")

    def busy(self, fault: str) -> AbstractContextManager[object]:
        """While open, the target is in one of its `busy_faults`."""
        raise NotImplementedError(fault)

    def cut(self, place: str) -> AbstractContextManager[object]:
        """Cut the connection of a write at one of the `cut_places`, within the `with` block."""
        raise NotImplementedError(place)


def document(
    id: str, version: int, *rows: Row | bytes, output: str = "docs", rev: str | None = None, **more: Any
) -> DocumentRows:
    """A document of that version with those rows in one output, and `more` outputs' rows."""
    own: Sequence[Row] = [msgspec.Raw(r) if isinstance(r, bytes) else r for r in rows]
    return DocumentRows(
        id=id,
        rev=rev or f"{version}-{version:032x}",
        leaf_version=version,
        rows={output: own, **more} if own else more,
        size_bytes=100,
    )


def gone(id: str, version: int) -> DocumentRows:
    """A document of that version that has no rows anywhere."""
    return document(id, version)


def batch(
    *documents: DocumentRows, epoch: int = 1, first_pass: bool = False, checkpoint: Checkpoint | None = None
) -> Batch:
    """A batch of these documents."""
    return Batch(documents=documents, epoch=epoch, first_pass=first_pass, checkpoint=checkpoint)


def at(seq: str, *, epoch: int = 1, edits: int = 0) -> Checkpoint:
    """A checkpoint at that position."""
    return Checkpoint(seq=Seq.of(seq), epoch=epoch, pass_epoch=epoch, edits=edits)

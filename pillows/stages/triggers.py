"""Triggers: extract a change's document, or its deletion."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from pillows import strict_json
from pillows.errors import PermanentError
from pillows.models import Change, Document
from pillows.stages.transforms import copy_doc

#: Reads an attachment: id, revision, name, bytes at most -> its content; None where there is none, or more.
ReadAttachment = Callable[[str, str, str, int], bytes | None]


class Trigger(Protocol):
    """Extracts the document of a change."""

    def load(self, change: Change) -> Change:
        """Return a change with its document, or with its deletion. It may be newer than the change was."""

    def __call__(self, change: Change) -> Document:
        """Return the document of a change, or its deletion."""


class DocumentTrigger(Trigger):
    """Takes the document that came with the change; fetches it where the feed did not bring it.

    Args:
        fetch: reads one document from the source; used only when the feed brought none.
    """

    def __init__(self, fetch: Callable[[Change], Document]) -> None:
        self._fetch = fetch

    def load(self, change: Change) -> Change:
        """Return a change with its winning document, fetched where the feed did not bring it."""
        if change.raw is not None or change.deleted:
            return change
        found = self._fetch(change)
        return Change(
            id=change.id,
            revs=change.revs if found.rev == change.rev else (found.rev,),
            leaf_version=found.leaf_version,
            deleted=found.deleted,
            seq=change.seq,
            raw=found.raw,
            parsed=found.parsed,
        )

    def __call__(self, change: Change) -> Document:
        """Return the winning document of a change. A deleted one has no JSON."""
        if change.raw is None and not change.deleted:
            return self._fetch(change)
        return Document(
            id=change.id,
            rev=change.rev,
            leaf_version=change.leaf_version,
            deleted=change.deleted,
            raw=None if change.deleted else change.raw,
            parsed=change.parsed,
        )


class AttachmentTrigger(DocumentTrigger):
    """Also puts the content of small attachments in the place of their stubs, as `data` in base64.

    Args:
        fetch: as in `DocumentTrigger`.
        read: reads an attachment.
        max_bytes: of one attachment; a larger one stays a stub, and is not read any further.
    """

    def __init__(self, fetch: Callable[[Change], Document], read: ReadAttachment, *, max_bytes: int) -> None:
        super().__init__(fetch)
        self._read = read
        self._max_bytes = max_bytes

    def __call__(self, change: Change) -> Document:
        """Return the winning document of a change, with its small attachments."""
        document = super().__call__(change)
        if document.raw is None or b'"_attachments"' not in bytes(document.raw):
            return document
        fields: dict[str, Any] = msgspec.json.decode(document.raw)
        stubs = fields.get("_attachments")
        if not isinstance(stubs, dict):
            return document
        fields["_attachments"] = {name: self._filled(document, name, stub) for name, stub in stubs.items()}
        raw = msgspec.Raw(msgspec.json.encode(fields))
        return msgspec.structs.replace(document, raw=raw, parsed=None)

    def _filled(self, document: Document, name: str, stub: Mapping[str, Any]) -> Mapping[str, Any]:
        if not stub.get("stub") or stub.get("length", 0) > self._max_bytes:
            return stub
        content = self._read(document.id, document.rev, name, self._max_bytes)
        if content is None:
            return stub
        known = {key: value for key, value in stub.items() if key != "stub"}
        return {**known, "data": b64encode(content).decode()}


class PythonTrigger(Trigger):
    """Asks a python function for the document.

    Args:
        function: gets the `Change`, and a function `read` that returns the parsed document, its own to
            change, or None if it is deleted by now. It returns the document, or None if there is none:
            then the pillow treats it as deleted.
        trigger: what `read` asks.
    """

    def __init__(self, function: Callable[[Change, Callable[[], Any]], Any], trigger: Trigger) -> None:
        self._function = function
        self._trigger = trigger

    def load(self, change: Change) -> Change:
        """Return a change with the document that `read` returns."""
        return self._trigger.load(change)

    def __call__(self, change: Change) -> Document:
        """Return what the function makes of a change.

        Raises:
            PermanentError: it returned something else than a document.
        """
        reading = _Reading(self._trigger, change)
        fields = self._function(change, reading.read)
        if reading.error is not None:  # that the function has caught
            raise reading.error
        found = reading.document
        # A deletion has the same version as what the function may have made of it.
        if fields is None or (found is not None and found.deleted):
            return _with_fields(found or change, None)
        if not isinstance(fields, Mapping):
            raise PermanentError(f"The trigger returned {type(fields).__name__}; it must return a document")
        return _with_fields(found or change, strict_json.encode(fields, "document"))


class _Reading:
    """Reads the document of a change when it is first asked for.

    Attributes:
        document: the document, if it was read; None otherwise.
        error: why it could not be read.
    """

    def __init__(self, trigger: Trigger, change: Change) -> None:
        self._trigger = trigger
        self._change = change
        self.document: Document | None = None
        self.error: BaseException | None = None

    def read(self) -> dict[str, Any] | None:
        if self.document is None:
            try:
                self.document = self._trigger(self._change)
            except BaseException as error:
                self.error = error
                raise
        return None if self.document.deleted else copy_doc(self.document)


def _with_fields(origin: Change | Document, json: bytes | None) -> Document:
    return Document(
        id=origin.id,
        rev=origin.rev,
        leaf_version=origin.leaf_version,
        deleted=json is None,
        raw=None if json is None else msgspec.Raw(json),
    )

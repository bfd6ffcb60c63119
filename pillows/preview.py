"""Preview the work of a pillow on documents, stage by stage; anything written is rolled back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from gevent.event import Event
from msgspec import Struct, field

from checkpoints import Seq
from pillows.errors import FatalError, PillowError, RetryableError
from pillows.feed.base import Feed
from pillows.models import Batch, Change, Document, DocumentRows, Row
from pillows.pillow import Pillow, without_rows
from pillows.stages.triggers import Trigger
from pillows.transports.base import Transport
from pillows.user_code import confine, describe_error


class Preview(Struct, frozen=True, kw_only=True):
    """The preview of one change.

    Attributes:
        id, rev, version, deleted: the document's.
        filter: whether it is kept, and why.
        document: the document; None if it is deleted, or the filter did not keep it.
        rows: output -> its rows, as JSON values; empty: the document leaves the target.
        requests: transport -> the request that would be sent.
        trials: transport -> the result of writing it in a transaction that was rolled back.
        errors: stage -> why the document would become a dead letter.
    """

    id: str
    rev: str
    version: int
    deleted: bool
    filter: str
    document: Mapping[str, Any] | None = None
    rows: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    requests: Mapping[str, str] = field(default_factory=dict)
    trials: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)


def next_changes(feed: Feed, since: Seq, limit: int) -> list[Change]:
    """Return the next changes after a position: `limit` at most, fewer if the feed has no more."""
    stop, found = Event(), list[Change]()
    for batch in feed.batches(since, None, stop):
        found += batch.changes[: limit - len(found)]
        if len(found) >= limit or batch.caught_up or not batch.changes:
            break
    stop.set()
    return found


def previews(
    pillow: Pillow, changes: Iterable[Change], transports: Sequence[Transport], feed: Feed, *, epoch: int
) -> Iterator[Preview]:
    """Yield the preview of each change.

    Args:
        pillow: the pipeline.
        changes: changes of the source.
        transports: need not be open; they are not opened. A write is tried where it can be undone.
        feed: reads documents that did not come with their changes.
        epoch: the epoch to preview writes under.

    Raises:
        RetryableError, AccessError: the source cannot be read.
    """
    trigger = pillow.trigger(feed.fetch, feed.attachment)
    trials = {transport.name: Trial(transport, epoch) for transport in transports}
    for change in changes:
        yield _ChangePreview(pillow, change, trigger).run(transports, epoch, trials)


def try_changes(
    pillow: Pillow, changes: Iterable[Change], transport: Transport, feed: Feed, *, epoch: int
) -> Trial:
    """Write the rows of changes in one transaction that is rolled back; return the results.

    Args:
        pillow: the pipeline.
        changes: changes of the source, of different documents.
        transport: not open.
        feed: reads documents that did not come with their changes.
        epoch: the present one.

    Raises:
        RetryableError, AccessError: the source cannot be read.
    """
    trial = Trial(transport, epoch)
    trigger = pillow.trigger(feed.fetch, feed.attachment)
    made = (_ChangePreview(pillow, change, trigger).make_rows() for change in changes)
    trial.write([document for document in made if document is not None])
    return trial


class Trial:
    """Writes documents to a transport in transactions that are rolled back.

    Args:
        transport: not open.
        epoch: the present one. A write under it would be refused if the target has the document already.

    Attributes:
        written: documents that could be written.
        dead: id -> why it cannot be written.
        problem: why nothing can be tried; empty if it can.
    """

    def __init__(self, transport: Transport, epoch: int) -> None:
        self.written = 0
        self.dead: dict[str, str] = {}
        self.problem = ""
        self._transport = transport
        self._epoch = epoch + 1

    def write(self, documents: Sequence[DocumentRows]) -> None:
        """Try to write documents together, each with a result of its own."""
        if self.problem or not documents:
            return
        try:
            result = self._transport.try_write(Batch(documents=documents, epoch=self._epoch))
        except PillowError as error:
            self.problem = f"nothing could be tried: {error}"
            return
        if result is None:
            self.problem = "nothing is tried: this target cannot undo a write"
            return
        self.dead |= result.dead
        if result.retry:
            self.problem = f"nothing could be tried: {next(iter(result.retry.values()))}"
        self.written += len(documents) - len(result.dead) - len(result.retry)


class _SourceAwayError(Exception):
    """The source could not be read; the cause says why."""


class _ChangePreview:
    """The preview of one change, stage by stage."""

    def __init__(self, pillow: Pillow, change: Change, trigger: Trigger) -> None:
        self._pillow = pillow
        self._change = change
        self._trigger = trigger
        self._filter_text = ""
        self._document: Document | None = None
        self._errors: dict[str, str] = {}

    def run(self, transports: Sequence[Transport], epoch: int, trials: Mapping[str, Trial]) -> Preview:
        made = self.make_rows()
        requests = {t.name: self._request(t, made, epoch) for t in transports} if made is not None else {}
        tried = {name: self._try(name, trial, made) for name, trial in trials.items()} if made else {}
        document = self._document
        return Preview(
            id=self._change.id,
            rev=self._change.rev,
            version=self._change.leaf_version,
            deleted=self._change.deleted,
            filter=self._filter_text,
            document=document.doc if document is not None and not document.deleted else None,
            rows={o: [_plain(row) for row in rows] for o, rows in made.rows.items()} if made else {},
            requests={name: text for name, text in requests.items() if text},
            trials={name: text for name, text in tried.items() if text},
            errors=self._errors,
        )

    def make_rows(self) -> DocumentRows | None:
        """Return the rows; None if nothing would be written."""
        kept = self._try_stage("filter", self._is_kept)
        if kept is None:
            return None
        if not kept:
            keeps_rows = self._pillow.keep_deleted if self._change.deleted else self._pillow.keep_departed
            return None if keeps_rows else without_rows(self._change)
        document = self._document = self._try_stage("trigger", self._extract)
        if document is None:
            return None
        if document.deleted:
            self._filter_text += "; it was deleted since"
            return None if self._pillow.keep_deleted else without_rows(document)
        rows = self._try_stage("transform", lambda: self._pillow.transform(document))
        if rows is None:
            return None
        return DocumentRows(id=document.id, rev=document.rev, leaf_version=document.leaf_version, rows=rows)

    def _extract(self) -> Document:
        try:
            return self._trigger(self._change)
        except RetryableError as error:  # of the source: nothing is wrong with the document
            raise _SourceAwayError from error

    def _is_kept(self) -> bool:
        if self._change.deleted:
            self._filter_text = "not kept: it is deleted"
            return False
        kept = self._pillow.filter(self._change)
        why = self._pillow.filter.explain(self._change)
        self._filter_text = f"{'kept' if kept else 'not kept'}: {why}"
        return kept

    def _request(self, transport: Transport, made: DocumentRows, epoch: int) -> str:
        sent = self._try_stage(
            transport.name, lambda: transport.preview(Batch(documents=[made], epoch=epoch))
        )
        return sent or ""

    def _try(self, name: str, trial: Trial, made: DocumentRows) -> str:
        if name in self._errors:
            return ""  # it has no request
        trial.write([made])
        if reason := trial.dead.get(made.id):
            self._errors[name] = reason
        return reason or trial.problem or "it can be written"

    def _try_stage(self, stage: str, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except FatalError:
            raise
        except _SourceAwayError as error:
            raise error.__cause__ or error from None
        except BaseException as error:  # noqa: BLE001 - it would become a dead letter, and is shown as one
            self._errors[stage] = describe_error(confine(error), with_text=True)
            self._filter_text = self._filter_text or "failed"
            return None


def _plain(row: Row) -> Any:
    return msgspec.json.decode(row) if isinstance(row, msgspec.Raw) else msgspec.to_builtins(row)

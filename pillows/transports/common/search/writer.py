"""Write operations into one index, and sort their outcomes."""

from __future__ import annotations

import gzip
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from pillows.errors import AccessError, FatalError, RetryableError
from pillows.halving import send_in_halves
from pillows.models import DocumentRows, epoch_of, leaf_version_of, write_version
from pillows.serial_worker import SerialWorker
from pillows.transports.common.search.client import NDJSON, AnswerError, SearchClient
from pillows.transports.common.search.encoder import (
    MAX_OPERATIONS,
    Operation,
    cut_requests,
    encode_mark,
    encode_operations,
    encode_purge,
    encode_removal,
    find_gone,
)
from pillows.transports.common.search.errors import (
    RESTORE_REMEDY,
    BulkResult,
    ItemVerdict,
    classify,
    describe_cause,
    describe_rejection,
    exceeds_memory_limit,
    is_document_at_fault,
    parse_stored_version,
    translate_errors,
)
from pillows.transports.common.search.index.schema import OwnedIndex
from pillows.transports.common.search.index.spec import IndexSpec
from pillows.transports.common.search.misfits import MAX_ROUNDS, Misfit, set_aside
from pillows.transports.common.search.options import SearchConnection, SearchOutput
from pillows.transports.common.search.reader import IndexReader

#: The parts of an answer that are read.
_ANSWER_FILTER = "errors,items.*.status,items.*.error.type,items.*.error.reason"

#: The fastest level: even so, 500-byte documents shrink to a quarter.
_GZIP_LEVEL = 1

#: Deleted documents that are read at once to be marked; at first, when their size is not known.
_MARKED_AT_ONCE = 500
_MARKED_AT_FIRST = 20

Conflict = tuple[Operation, Mapping[str, Any]]


class _Pending:
    """The remaining operations of one call.

    Attributes:
        result: gets the outcomes that are final.
        conflicts: operations that were refused for their version, each with its item of the answer.
        misfits: writes that the mapping refused, each with the reason.
        unmarked: removals of documents whose mark the index refused.
    """

    def __init__(self, result: BulkResult) -> None:
        self.result = result
        self.conflicts: list[Conflict] = []
        self.misfits: list[tuple[Operation, str]] = []
        self.unmarked: list[Operation] = []


def make_bulk_path(spec: IndexSpec) -> str:
    """Return the path of the bulk requests for an index."""
    return f"/{quote(spec.write_alias, safe='')}/_bulk"


def make_bulk_params(output: SearchOutput, connection: SearchConnection) -> dict[str, str]:
    """Return the parameters of the bulk requests."""
    # The server's timeout is shorter than ours: its answer has the outcome of each document, our
    # timeout has none.
    timeout = f"{int(connection.timeout * 500)}ms"
    params = {"require_alias": "true", "filter_path": _ANSWER_FILTER, "timeout": timeout}
    return params | ({"pipeline": output.pipeline} if output.pipeline else {})


class IndexWriter:
    """Writes into one index.

    Args:
        client: the cluster.
        index: the index.
        connection: size limit, timeout and compression of requests.
        compressor: compresses, in a thread that no other target has.
        source_connection: see `encode_operations`.

    Attributes:
        reader: reads the same index.
    """

    def __init__(
        self,
        client: SearchClient,
        index: OwnedIndex,
        connection: SearchConnection,
        compressor: SerialWorker,
        source_connection: str | None = None,
    ) -> None:
        self.reader = IndexReader(client, index, connection, source_connection)
        self._source_connection = source_connection
        self._compressor = compressor
        self._client = client
        self._index = index
        self._max_request = connection.max_request
        self._headers = {"content-type": NDJSON}
        if connection.compress:
            self._headers["content-encoding"] = "gzip"
        self._deletes = index.output.deletes
        self._marked_at_once = _MARKED_AT_FIRST
        self._keeps_misfits = index.output.on_misfit == "unindexed"
        self._alias = index.spec.write_alias
        self._path = make_bulk_path(index.spec)
        self._params = make_bulk_params(index.output, connection)

    def replace(self, documents: Sequence[DocumentRows], output: str, epoch: int, result: BulkResult) -> None:
        """Make the index hold exactly the rows of these documents, at most one entry per id.

        Raises:
            RetryableError: nothing is known of a request, so of the whole batch.
            FatalError: the index is gone, or we may not write to it.
        """
        for start in range(0, len(documents), MAX_OPERATIONS):
            part = documents[start : start + MAX_OPERATIONS]
            operations, dead = encode_operations(
                part,
                output,
                epoch,
                deleted_at_ms=self._deleted_at_ms,
                deleted_field=self._index.output.deleted_field,
                connection=self._source_connection,
            )
            result.dead.update(dead)
            if self._deletes == "mark":
                gone = find_gone(part)
                self._mark([each for each in operations if each.id in gone], result)
                operations = [each for each in operations if each.id not in gone]
            self._write(operations, result)

    def sweep(self, epoch: int, kept: Collection[str], result: BulkResult, source: str | None = None) -> None:
        """Remove or mark the documents of lower epochs except `kept`; `result.removed` is their number.

        Args:
            epoch: the least that stays.
            kept: ids.
            result: gets the outcomes.
            source: only its documents, if those of several databases come.

        Raises:
            RetryableError: some may still be there; sweep again.
            FatalError: see `replace`.
        """
        least = write_version(epoch, 0)
        for hits in self.reader.find_older(least, source):
            old = [hit["_id"] for hit in hits if hit["_id"] not in kept]
            removals = [encode_removal(id, least, deleted_at_ms=self._deleted_at_ms) for id in old]
            if self._deletes == "mark":
                self._mark(removals, result)
            else:
                self._write(removals, result)
        _check_removed(result)

    def purge_tombstones(self) -> None:
        """Remove a page of expired tombstones.

        Raises:
            RetryableError, FatalError: see `replace`.
        """
        hits = self.reader.find_tombstones(before_ms=int(self._get_expiry() * 1000))
        result = BulkResult()
        self._write([encode_purge(hit["_id"], hit["_version"]) for hit in hits], result)
        _check_removed(result)

    def _get_expiry(self) -> float:
        return time.time() - self._index.output.tombstone_ttl

    @property
    def _deleted_at_ms(self) -> int | None:
        return int(time.time() * 1000) if self._deletes == "tombstone" else None

    def _mark(self, removals: Sequence[Operation], result: BulkResult) -> None:
        """Mark the documents that are stored, and remove the others: a late older version is refused then.

        A write needs the whole document, so the stored one is read first. If it changes meanwhile, its new
        version is either lower than that of the mark, or higher, and then the mark is refused.
        """
        start = 0
        while start < len(removals):
            part = removals[start : start + self._marked_at_once]
            start += len(part)
            stored = self.reader.read_documents([removal.id for removal in part])
            now_ms = int(time.time() * 1000)
            marks = [
                encode_mark(removal, stored[removal.id][1], deleted_at_ms=now_ms)
                for removal in part
                if removal.id in stored and stored[removal.id][0] < removal.write_version
            ]
            marked = {mark.id for mark in marks}
            if marks:
                average = max(1, sum(len(mark.body) for mark in marks) // len(marks))
                self._marked_at_once = max(1, min(_MARKED_AT_ONCE, self._max_request // average))
            self._write([*marks, *(each for each in part if each.id not in marked)], result)

    def _write(self, operations: Sequence[Operation], result: BulkResult) -> None:
        pending = _Pending(result)
        with translate_errors():
            self._send_all(operations, pending)
            # Each round moves a field at least, the last ones all that are left.
            for rounds in range(MAX_ROUNDS + 2):
                if not pending.misfits:
                    break
                self._keep_misfits(pending, rounds)
            self._send_all(pending.unmarked, pending)
        if pending.conflicts:
            self._look_up(pending.conflicts, result)

    def _keep_misfits(self, pending: _Pending, rounds: int) -> None:
        """Write documents without the fields that do not fit."""
        misfits, pending.misfits = pending.misfits, []
        kept: list[Operation] = []
        for operation, reason in misfits:
            smaller = set_aside(Misfit(operation, reason, rounds))
            if smaller is None:
                pending.result.dead[operation.id] = reason
            else:
                kept.append(smaller)
        self._send_all(kept, pending)

    def _send_all(self, operations: Sequence[Operation], pending: _Pending) -> None:
        for request in cut_requests(operations, self._max_request):
            self._send_in_halves(request, pending)

    def _send_in_halves(self, request: Sequence[Operation], pending: _Pending) -> None:
        send_in_halves(request, lambda part: self._send(part, pending), is_document_at_fault)

    def _send(self, request: Sequence[Operation], pending: _Pending) -> None:
        try:
            answer = self._client.call(
                "POST",
                self._path,
                params=self._params,
                headers=self._headers,
                body=self._compress(b"".join([operation.body for operation in request])),
            )
        except AnswerError as error:
            if len(request) > 1 or not is_document_at_fault(error):
                raise
            (operation,) = request
            self._bury(operation, describe_rejection(error, len(operation.body)), pending)
        else:
            self._sort(request, answer, pending)

    def _compress(self, body: bytes) -> bytes:
        """Return the body as it is sent. A client would compress in the hub's thread, and so block it."""
        if "content-encoding" not in self._headers:
            return body
        return self._compressor.run(gzip.compress, body, _GZIP_LEVEL)

    def _sort(self, request: Sequence[Operation], answer: Mapping[str, Any], pending: _Pending) -> None:
        if not answer["errors"] and not any(map(_removes, request)):
            return
        too_large: list[Operation] = []
        for operation, wrapped in zip(request, answer["items"], strict=True):
            (item,) = wrapped.values()
            outcome = classify(item["status"], item)
            if outcome is ItemVerdict.APPLIED:
                pending.result.removed += operation.removes and item["status"] < 300
            elif outcome is ItemVerdict.REFUSED:
                pending.conflicts.append((operation, item))
            elif exceeds_memory_limit(item) and len(request) > 1:
                too_large.append(operation)  # for one node, together with the others
            elif outcome is ItemVerdict.DEAD and self._keeps_misfits and not operation.removes:
                pending.misfits.append((operation, describe_cause(item)))
            else:
                self._record(operation, outcome, item, pending)

        middle = (len(too_large) + 1) // 2
        for part in filter(None, (too_large[:middle], too_large[middle:])):
            self._send_in_halves(part, pending)

    def _record(
        self, operation: Operation, outcome: ItemVerdict, item: Mapping[str, Any], pending: _Pending
    ) -> None:
        reason = describe_cause(item)
        if outcome is ItemVerdict.DEAD or exceeds_memory_limit(item):
            self._bury(operation, reason, pending)
        elif outcome is ItemVerdict.RETRY:
            pending.result.retry[operation.id] = reason
        elif outcome is ItemVerdict.ACCESS:
            raise AccessError(
                f"{self._client.PRODUCT} does not let us write: {reason}",
                remedy=f"give our user or key the privilege `write` on {self._alias!r}",
            )
        else:
            raise FatalError(f"The index {self._index.spec.name!r} is gone: {reason}", remedy=RESTORE_REMEDY)

    def _bury(self, operation: Operation, reason: str, pending: _Pending) -> None:
        """Record a document that the index will never take. If only its mark was to be written, remove it."""
        if operation.marks:
            removal = encode_removal(operation.id, operation.write_version, deleted_at_ms=None)
            pending.unmarked.append(removal)
        else:
            pending.result.dead[operation.id] = reason

    def _look_up(self, conflicts: Sequence[Conflict], result: BulkResult) -> None:
        """Record which version is stored instead of each refused operation."""
        visible = self.reader.get_versions([operation.id for operation, _ in conflicts])
        for operation, item in conflicts:
            stored = visible.get(operation.id) or self._guess_hidden(operation, item)
            if stored >= operation.write_version:
                result.refused[operation.id] = max(stored, result.refused.get(operation.id, 0))
            else:
                result.retry[operation.id] = "the stored version changed while it was looked up"

    def _guess_hidden(self, operation: Operation, item: Mapping[str, Any]) -> int:
        """Return the write version of a document that was deleted less than `gc_deletes` ago.

        Only the text of the conflict holds it. If that text ever changes, return the lowest possible version:
        for a delete the version of the operation itself; for a write the next version, or the same version
        under a later epoch if one was acquired. The refusal is then re-checked like any other.
        """
        parsed = parse_stored_version(item)
        if parsed is not None and parsed >= operation.write_version:
            return parsed
        if operation.removes:
            return operation.write_version
        epoch = self._index.get_epoch()
        if epoch > epoch_of(operation.write_version):
            return write_version(epoch, leaf_version_of(operation.write_version))
        return operation.write_version + 1


def _removes(operation: Operation) -> bool:
    return operation.removes


def _check_removed(result: BulkResult) -> None:
    for id, reason in result.dead.items():
        raise FatalError(f"The server refuses to remove {id!r}: {reason}")
    for id, reason in result.retry.items():
        raise RetryableError(f"The server did not remove {id!r}: {reason}")

"""Writes operations into one index, and sorts what Elasticsearch says of each."""

from __future__ import annotations

import gzip
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import gevent
from elasticsearch import ApiError, Elasticsearch, TransportError

from pillows.errors import AccessError, FatalError, RetryableError
from pillows.models import DocumentRows, epoch_of, leaf_version_of, write_version
from pillows.transports.elasticsearch import bulk
from pillows.transports.elasticsearch.bulk import Operation, Outcome, Tally
from pillows.transports.elasticsearch.connection import GONE, cause_of, translated
from pillows.transports.elasticsearch.options import ElasticsearchConnection, ElasticsearchOutput
from pillows.transports.elasticsearch.schema import VISIBLE, GuardedIndex, Plan

#: All that is read of an answer.
_NEEDED = "errors,items.*.status,items.*.error.type,items.*.error.reason"

#: Hits of one page of a sweep.
_PAGE = 1_000

#: The fastest: 500-byte documents shrink to a quarter as it is.
_GZIP_LEVEL = 1

Conflict = tuple[Operation, Mapping[str, Any]]


def bulk_path(plan: Plan) -> str:
    """Where the bulk requests for an index go."""
    return f"/{quote(plan.write_alias, safe='')}/_bulk"


def bulk_params(output: ElasticsearchOutput, connection: ElasticsearchConnection) -> dict[str, str]:
    """The parameters of these requests."""
    # The server gives up waiting for a shard before we give up waiting for the server: its
    # answer says of each document what happened, a timeout of ours says nothing.
    timeout = f"{int(connection.timeout * 500)}ms"
    params = {"require_alias": "true", "filter_path": _NEEDED, "timeout": timeout}
    return params | ({"pipeline": output.pipeline} if output.pipeline else {})


class IndexWriter:
    """Writes into one index.

    Args:
        client: to write with.
        index: where.
        connection: how large requests may be, how long they may take, whether they are compressed.
    """

    def __init__(
        self, client: Elasticsearch, index: GuardedIndex, connection: ElasticsearchConnection
    ) -> None:
        self._client = client
        self._index = index
        self._max_request = connection.max_request
        self._headers = {"accept": "application/json", "content-type": "application/x-ndjson"}
        if connection.compress:
            self._headers["content-encoding"] = "gzip"
        self._tombstones = index.output.deletes == "tombstone"
        self._alias = index.plan.write_alias
        self._path = bulk_path(index.plan)
        self._params = bulk_params(index.output, connection)

    def replace(self, documents: Sequence[DocumentRows], output: str, epoch: int, tally: Tally) -> None:
        """Makes the index hold exactly the rows of these documents, at most one entry an id.

        Raises:
            RetryableError: nothing is known of a request, so of the whole batch.
            FatalError: the index is gone, or we may not write to it.
        """
        for start in range(0, len(documents), bulk.MAX_OPERATIONS):  # never long without a switch
            part = documents[start : start + bulk.MAX_OPERATIONS]
            operations, dead = bulk.operations(part, output, epoch, deleted_at_ms=self._deleted_at())
            tally.dead.update(dead)
            self._write(operations, tally)

    def present(self, ids: Sequence[str]) -> set[str]:
        """Which of these ids have a document, tombstones included."""
        return set(self._versions(ids))

    def sweep(self, epoch: int, kept: Collection[str], tally: Tally) -> None:
        """Removes the documents of lower epochs but for `kept`; their number is in `tally.removed`.

        Raises:
            RetryableError: some may still be there; sweep again.
            FatalError: see `replace`.
        """
        least = write_version(epoch, 0)
        for hits in self._older_than(least):
            old = [hit["_id"] for hit in hits if hit["_id"] not in kept]
            self._write([bulk.removal(id, least, deleted_at_ms=self._deleted_at()) for id in old], tally)
        _all_removed(tally)

    def purge(self) -> None:
        """Removes a page of expired tombstones.

        Raises:
            RetryableError, FatalError: see `replace`.
        """
        with translated():
            answer = self._client.search(
                index=self._index.plan.name,
                query={"range": {bulk.DELETED_AT: {"lt": int(self._expired_before() * 1000)}}},
                size=_PAGE,
                version=True,
                source=False,
                allow_partial_search_results=False,
            )
        hits = answer["hits"]["hits"]
        tally = Tally()
        self._write([bulk.purge(hit["_id"], hit["_version"]) for hit in hits], tally)
        _all_removed(tally)

    def _expired_before(self) -> float:
        return time.time() - self._index.output.tombstone_ttl

    def _deleted_at(self) -> int | None:
        return int(time.time() * 1000) if self._tombstones else None

    def _write(self, operations: Sequence[Operation], tally: Tally) -> None:
        conflicts: list[Conflict] = []
        with translated():
            for request in bulk.cut(operations, self._max_request):
                self._send(request, tally, conflicts)
        if conflicts:
            self._look_up(conflicts, tally)

    def _send(self, request: Sequence[Operation], tally: Tally, conflicts: list[Conflict]) -> None:
        try:
            answer = self._client.perform_request(
                "POST",
                self._path,
                params=self._params,
                headers=self._headers,
                body=self._packed(b"".join([operation.body for operation in request])),
            ).body
        except ApiError as error:
            if not bulk.a_document_is_at_fault(error.meta.status, error.body):
                raise
            self._halve(request, error, tally, conflicts)
        else:
            self._sort(request, answer, tally, conflicts)

    def _packed(self, body: bytes) -> bytes:
        """The body as it is sent. The client would compress in our thread, and so hold the hub."""
        if "content-encoding" not in self._headers:
            return body
        packed: bytes = gevent.get_hub().threadpool.apply(gzip.compress, (body, _GZIP_LEVEL))
        return packed

    def _halve(
        self, request: Sequence[Operation], error: ApiError, tally: Tally, conflicts: list[Conflict]
    ) -> None:
        """Finds the documents that make Elasticsearch refuse a whole request; the others are written."""
        if len(request) == 1:
            tally.dead[request[0].id] = bulk.refusal(error.meta.status, error.body, len(request[0].body))
            return
        middle = len(request) // 2
        self._send(request[:middle], tally, conflicts)
        self._send(request[middle:], tally, conflicts)

    def _sort(
        self,
        request: Sequence[Operation],
        answer: Mapping[str, Any],
        tally: Tally,
        conflicts: list[Conflict],
    ) -> None:
        if not answer["errors"] and not any(map(_removes, request)):
            return
        for operation, wrapped in zip(request, answer["items"], strict=True):
            (item,) = wrapped.values()
            outcome = bulk.classify(item["status"], item)
            if outcome is Outcome.APPLIED:
                tally.removed += operation.removes and item["status"] < 300
            elif outcome is Outcome.REFUSED:
                conflicts.append((operation, item))
            else:
                self._note(operation, outcome, item, tally)

    def _note(self, operation: Operation, outcome: Outcome, item: Mapping[str, Any], tally: Tally) -> None:
        reason = " ".join(cause_of(item))
        if outcome is Outcome.DEAD:
            tally.dead[operation.id] = reason
        elif outcome is Outcome.RETRY:
            tally.retry[operation.id] = reason
        elif outcome is Outcome.FORBIDDEN:
            raise AccessError(
                f"Elasticsearch does not let us write: {reason}",
                remedy=f"give our user or key the privilege `write` on {self._alias!r}",
            )
        else:
            raise FatalError(f"The index {self._index.plan.name!r} is gone: {reason}", remedy=GONE)

    def _look_up(self, conflicts: Sequence[Conflict], tally: Tally) -> None:
        """Tells for every refused operation what is stored instead."""
        visible = self._versions([operation.id for operation, _ in conflicts])
        for operation, item in conflicts:
            stored = visible.get(operation.id) or self._hidden(operation, item)
            if stored >= operation.write_version:
                tally.refused[operation.id] = max(stored, tally.refused.get(operation.id, 0))
            else:
                tally.retry[operation.id] = "the stored version changed while it was looked up"

    def _hidden(self, operation: Operation, item: Mapping[str, Any]) -> int:
        """The write version of a document that was deleted less than `gc_deletes` ago.

        No request shows it; only the conflict's text does. Should that ever read differently, the
        least that must be true is told instead: a deleted document that is to be deleted is as it
        should be; of one that is to be written, something newer was deleted (of a later epoch only
        if one was claimed). The refusal is then looked at as any other.
        """
        told = bulk.stored_version(item)
        if told is not None and told >= operation.write_version:
            return told
        if operation.removes:
            return operation.write_version
        epoch = self._index.epoch()
        if epoch > epoch_of(operation.write_version):
            return write_version(epoch, leaf_version_of(operation.write_version))
        return operation.write_version + 1

    def _versions(self, ids: Sequence[str]) -> dict[str, int]:
        """The stored versions of those ids that have a document, refreshed or not."""
        with translated():
            answer = self._client.mget(
                index=self._alias,
                ids=list(ids),
                source=False,
                filter_path="docs._id,docs._version,docs.found,docs.error",
            )
        failed = [one["error"] for one in answer["docs"] if "error" in one]
        if failed:
            raise RetryableError(f"Elasticsearch could not look up documents: {failed[0].get('reason')}")
        return {one["_id"]: one["_version"] for one in answer["docs"] if one["found"]}

    def stored(self, ids: Sequence[str] | None) -> Iterator[Sequence[Mapping[str, Any]]]:
        """Pages of all documents, or of these few, with their versions; tombstones are none."""
        query: Mapping[str, Any] = VISIBLE
        if ids is not None:
            query = {"bool": {"must": [{"ids": {"values": list(ids)}}, VISIBLE]}}
        yield from self._pages(query, "_shard_doc")

    def _older_than(self, least: int) -> Iterator[Sequence[Mapping[str, Any]]]:
        """Pages of the documents with a lower version, lowest first, as of now."""
        query = VISIBLE if self._tombstones else {"match_all": {}}
        for hits in self._pages(query, "_version"):
            older = [hit for hit in hits if hit["_version"] < least]
            if older:
                yield older
            if len(older) < len(hits):
                return

    def _pages(self, query: Mapping[str, Any], by: str) -> Iterator[Sequence[Mapping[str, Any]]]:
        """Pages of what the query finds, in some order, as of now."""
        name = self._index.plan.name
        with translated():
            self._client.indices.refresh(index=name)
            pit = self._client.open_point_in_time(index=name, keep_alive="5m")["id"]
        try:
            after: list[Any] | None = None
            while True:
                with translated():
                    answer = self._client.search(
                        pit={"id": pit, "keep_alive": "5m"},
                        query=query,
                        sort=[{by: "asc"}],
                        search_after=after,
                        size=_PAGE,
                        version=True,
                        source=False,
                        track_total_hits=False,
                        allow_partial_search_results=False,
                    )
                hits = answer["hits"]["hits"]
                if hits:
                    yield hits
                if len(hits) < _PAGE:
                    return
                after = hits[-1]["sort"]
        finally:
            with suppress(ApiError, TransportError):  # it ends by itself after its time
                self._client.close_point_in_time(id=pit)


def _removes(operation: Operation) -> bool:
    return operation.removes


def _all_removed(tally: Tally) -> None:
    for id, reason in tally.dead.items():
        raise FatalError(f"Elasticsearch refuses to remove {id!r}: {reason}")
    for id, reason in tally.retry.items():
        raise RetryableError(f"Elasticsearch did not remove {id!r}: {reason}")

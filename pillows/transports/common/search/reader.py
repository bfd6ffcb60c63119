"""Read one index: versions, sources, and all documents page by page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import gevent

from pillows.errors import PillowError, RetryableError
from pillows.halving import send_in_halves
from pillows.models import DocumentRows, leaf_version_of
from pillows.transports.common.same_json import is_same_value
from pillows.transports.common.search.client import AnswerError, LongAnswerError, SearchClient
from pillows.transports.common.search.encoder import DELETED_AT, SOURCE, cut_requests, encode_operations
from pillows.transports.common.search.errors import translate_errors
from pillows.transports.common.search.index.schema import OwnedIndex
from pillows.transports.common.search.index.spec import query_without
from pillows.transports.common.search.misfits import put_back
from pillows.transports.common.search.options import SearchConnection

#: Documents that are compared before other greenlets get their turn.
TURN_DOCUMENTS = 50

#: Hits per page of a search.
_PAGE = 1_000

#: Parameter of a search that is an error unless all shards answer.
_WHOLE = {"allow_partial_search_results": "false"}

#: Part of a search that asks for ids and versions.
_VERSIONS = {"size": _PAGE, "version": True, "_source": False}

#: Parameters of a look-up by ids that asks for versions.
_LOOKUP = {"_source": "false", "filter_path": "docs._id,docs._version,docs.found,docs.error"}

#: How long the server keeps a search between two pages.
_SCROLL = "5m"


class IndexReader:
    """Reads one index.

    Args:
        client: the cluster.
        index: the index.
        connection: size limit of requests.
        source_connection: see `encode_operations`.
    """

    def __init__(
        self,
        client: SearchClient,
        index: OwnedIndex,
        connection: SearchConnection,
        source_connection: str | None = None,
    ) -> None:
        self._client = client
        self._index = index
        self._source_connection = source_connection
        self._max_request = connection.max_request
        self._deleted_field = index.output.deleted_field
        self._visible = query_without(self._deleted_field or DELETED_AT)
        self._keeps_misfits = index.output.on_misfit == "unindexed"
        self._alias = index.spec.write_alias
        self._path = f"/{quote(index.spec.name, safe='')}"

    def find_present(self, ids: Sequence[str]) -> set[str]:
        """Return the ids that have a document, including tombstones."""
        return set(self.get_versions(ids))

    def get_versions(self, ids: Sequence[str]) -> dict[str, int]:
        """Return the stored versions of the ids that have a document, refreshed or not."""
        return {one["_id"]: one["_version"] for one in self._look_up_found(ids, _LOOKUP)}

    def read_documents(self, ids: Sequence[str]) -> dict[str, tuple[int, Mapping[str, Any]]]:
        """Return id -> stored version and source of the ids that have a document, marked ones included.

        One that is too long for an answer is left out.
        """
        found = send_in_halves(ids, self._read_documents, lambda error: isinstance(error, LongAnswerError))
        return {one["_id"]: (one["_version"], one["_source"]) for part in found for one in part}

    def find_altered(self, documents: Sequence[DocumentRows], output: str) -> set[str]:
        """Return the ids of documents that the index holds in the same version, with another `_source`."""
        operations, dead = encode_operations(
            documents, output, 0, deleted_at_ms=None, connection=self._source_connection
        )
        altered = set(dead)
        for request in cut_requests(operations, self._max_request):
            held = self._read_sources([operation.id for operation in request])
            for number, operation in enumerate(request, start=1):
                if number % TURN_DOCUMENTS == 0:
                    gevent.sleep(0)
                version, source = held.get(operation.id, (None, None))
                if version == operation.write_version and not self._is_same(source, operation.read_source()):
                    altered.add(operation.id)
        return altered

    def read_pages(
        self, ids: Sequence[str] | None, source: str | None = None
    ) -> Iterator[Sequence[Mapping[str, Any]]]:
        """Yield pages of all documents, of these few, or of one source; without deleted ones."""
        query = _only_source(self._visible, source)
        if ids is not None:
            query = {"bool": {"must": [{"ids": {"values": list(ids)}}, self._visible]}}
        yield from self._search(query, "_doc")

    def find_older(self, least: int, source: str | None = None) -> Iterator[Sequence[Mapping[str, Any]]]:
        """Yield pages of the documents with a lower version, as of now: all, or those of one source."""
        query: Mapping[str, Any] = self._visible if self._deleted_field else {"match_all": {}}
        order = self._client.SWEEP_ORDER
        for hits in self._search(_only_source(query, source), order):
            older = [hit for hit in hits if hit["_version"] < least]
            if older:
                yield older
            if len(older) < len(hits) and order == "_version":
                return  # all others are newer

    def describe_incomparable(self) -> str:
        """Return why the index doesn't keep a document's source as it was sent; "" if it does.

        Raises:
            FatalError: the index is gone.
            RetryableError, AccessError: see `translate_errors`.
        """
        with translate_errors():
            found = self._index.get()
        settings, source = found["settings"], found["mappings"].get("_source", {})
        pipelines = {settings.get(f"index.{kind}_pipeline", "_none") for kind in ("default", "final")}
        if self._index.output.pipeline or pipelines - {"_none"}:
            return "an ingest pipeline changes its documents"
        modes = settings.get("index.mapping.source.mode", ""), settings.get("index.mode", "standard")
        is_derived = settings.get("index.derived_source.enabled") == "true"  # OpenSearch's name for it
        if is_derived or source or modes[0] in ("synthetic", "disabled") or modes[1] != "standard":
            return "its `_source` isn't stored as it was sent"
        return ""

    def find_tombstones(self, *, before_ms: int) -> Sequence[Mapping[str, Any]]:
        """Return a page of the tombstones that were written before a time, with their versions.

        Raises:
            RetryableError, FatalError: the index cannot be searched.
        """
        with translate_errors():
            answer = self._client.call(
                "POST",
                f"{self._path}/_search",
                params=_WHOLE,
                body={"query": {"range": {DELETED_AT: {"lt": before_ms}}}, **_VERSIONS},
            )
        hits: Sequence[Mapping[str, Any]] = answer["hits"]["hits"]
        return hits

    def _read_documents(self, ids: Sequence[str]) -> list[Any]:
        try:
            return self._look_up_found(ids, {})
        except LongAnswerError:
            if len(ids) > 1:
                raise
            return []

    def _look_up_found(self, ids: Sequence[str], params: Mapping[str, str]) -> list[Any]:
        """Return what `_mget` says of the ids that have a document, refreshed or not."""
        with translate_errors():
            answer = self._client.call(
                "POST", f"/{quote(self._alias, safe='')}/_mget", params=params, body={"ids": list(ids)}
            )
        failed = [one["error"] for one in answer["docs"] if "error" in one]
        if failed:
            raise RetryableError(
                f"{self._client.PRODUCT} could not look up documents: {failed[0].get('reason')}"
            )
        return [one for one in answer["docs"] if one["found"]]

    def _is_same(self, stored: Any, wanted: Any) -> bool:
        if is_same_value(stored, wanted):
            return True
        return self._keeps_misfits and is_same_value(put_back(stored), wanted)

    def _read_sources(self, ids: Sequence[str]) -> dict[str, tuple[int, Any]]:
        """Return id -> leaf version and source of the ids that have a document."""
        return {
            one["_id"]: (leaf_version_of(one["_version"]), one["_source"])
            for one in self._look_up_found(ids, {})
            if not (self._deleted_field and self._deleted_field in one["_source"])
        }

    def _search(self, query: Mapping[str, Any], order: str) -> Iterator[Sequence[Mapping[str, Any]]]:
        """Yield pages of the hits of a query, in the given order, as of now."""
        with translate_errors():
            self._client.call("POST", f"{self._path}/_refresh")
            page = self._client.call(
                "POST",
                f"{self._path}/_search",
                params={**_WHOLE, "scroll": _SCROLL},
                body={"query": query, "sort": [order], **_VERSIONS},
            )
        try:
            while True:
                self._check_shards(page)
                hits = page["hits"]["hits"]
                if hits:
                    yield hits
                if len(hits) < _PAGE:
                    return
                body = {"scroll": _SCROLL, "scroll_id": page["_scroll_id"]}
                with translate_errors():
                    page = self._client.call("POST", "/_search/scroll", body=body)
        finally:
            with suppress(AnswerError, PillowError):  # it expires by itself
                self._client.call("DELETE", "/_search/scroll", body={"scroll_id": page["_scroll_id"]})

    def _check_shards(self, page: Mapping[str, Any]) -> None:
        """Raise an error if a page lacks the hits of a shard, since a later page would not show that."""
        failed = page["_shards"]["failed"]
        if failed or page["timed_out"]:
            raise RetryableError(f"{self._client.PRODUCT} could not search {failed} of the index's shards.")


def _only_source(query: Mapping[str, Any], source: str | None) -> Mapping[str, Any]:
    """Return a query for the documents of one source; the query itself if all are meant."""
    return query if source is None else {"bool": {"must": [{"term": {SOURCE: source}}, query]}}

"""Answers and errors: the outcome of each operation, and failures as ours."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Any

from pillows.couch.errors import retry_after
from pillows.couch.exception_chain import is_untrusted_certificate
from pillows.errors import AccessError, AwayError, ConfigError, FatalError, PillowError, RetryableError
from pillows.models import WriteResult
from pillows.transports.common.search.client import AnswerError

#: Errors that pass, with any status: a blocked index answers 403 or 429, a closed one 400 (all
#: recorded on Elasticsearch 9.5; OpenSearch 3.8 has a name of its own for two of them).
PASSING_ERRORS = frozenset(
    {
        "circuit_breaking_exception",
        "cluster_block_exception",
        "cluster_manager_not_discovered_exception",
        "es_rejected_execution_exception",
        "index_closed_exception",
        "master_not_discovered_exception",
        "no_shard_available_action_exception",
        "opensearch_rejected_execution_exception",
        "process_cluster_event_timeout_exception",
        "rejected_execution_exception",
        "search_context_missing_exception",
        "search_phase_execution_exception",
        "unavailable_shards_exception",
    }
)

#: Statuses of a cluster without a master or with closed shards, and of a balancer without it.
_NOT_SERVING = {502, 503, 504}

RESTORE_REMEDY = "restore the index from a snapshot, or `pillowd checkpoint reset KEY` to fill a new one"

_MEMORY_LIMIT = re.compile(r"operation_bytes=(\d+), max_\w*bytes=(\d+)")

_CURRENT_VERSION = re.compile(r"current version \[(\d+)\]")


class ItemVerdict(Enum):
    """The meaning of an answer for one operation."""

    APPLIED = "applied"
    REFUSED = "refused"  # the index has this version or a newer one
    DEAD = "dead"
    RETRY = "retry"
    ACCESS = "access"
    MISSING = "missing"  # the index is gone


class BulkResult:
    """The outcome of the operations of one batch, over all its outputs.

    Attributes:
        refused, dead, retry: as in `WriteResult`.
        removed: how many documents were removed.
    """

    def __init__(self) -> None:
        self.refused: dict[str, int] = {}
        self.dead: dict[str, str] = {}
        self.retry: dict[str, str] = {}
        self.removed = 0

    def to_write_result(self) -> WriteResult:
        """Return one outcome per document: `retry` goes before the final ones."""
        dead = {id: reason for id, reason in self.dead.items() if id not in self.retry}
        settled = self.retry.keys() | dead.keys()
        refused = {id: stored for id, stored in self.refused.items() if id not in settled}
        return WriteResult(refused=refused, dead=dead, retry=self.retry)


def classify(status: int, item: Mapping[str, Any]) -> ItemVerdict:
    """Return the outcome of an operation.

    Args:
        status: of its item in the answer.
        item: the item, with its `error` if it has one.
    """
    if "error" not in item:  # 404 without an error: a delete of a missing document
        return ItemVerdict.APPLIED if status < 300 or status == 404 else ItemVerdict.RETRY
    type_, _ = get_cause(item)
    if type_ in PASSING_ERRORS or status == 429 or status >= 500:
        return ItemVerdict.RETRY
    if status == 409:
        return ItemVerdict.REFUSED if type_ == "version_conflict_engine_exception" else ItemVerdict.RETRY
    if status in {401, 403}:
        return ItemVerdict.ACCESS
    return ItemVerdict.MISSING if status == 404 else ItemVerdict.DEAD


def is_document_at_fault(error: Exception) -> bool:
    """Return whether a request was rejected for one of its documents, so that parts of it may pass.

    A 413 comes without a body; a 400 without a JSON error comes from a proxy.
    """
    if not isinstance(error, AnswerError):
        return False
    status, (type_, _) = error.status, get_cause(error.body)
    if status == 413 or exceeds_memory_limit(error.body):
        return True
    return status == 400 and bool(type_) and type_ not in PASSING_ERRORS


def exceeds_memory_limit(body: object) -> bool:
    """Return whether an operation alone is larger than the memory that a node has for all of them.

    Args:
        body: of a 429 answer, or of an item with that status. The server (`IndexingPressure`) names the
            operation's size and the limit (`indexing_pressure.memory.limit`) in the reason only.
    """
    found = _MEMORY_LIMIT.search(get_cause(body)[1])
    return found is not None and int(found[1]) > int(found[2])


def describe_rejection(error: AnswerError, size_bytes: int) -> str:
    """Return why a request with one document was rejected."""
    if error.status == 413:
        return f"with {size_bytes} bytes it is larger than the server takes (http.max_content_length)"
    return describe_cause(error.body)


def describe_cause(body: object) -> str:
    """Return the error in an answer or item, with a remedy for one that only the server's settings cure."""
    text = " ".join(get_cause(body))
    if exceeds_memory_limit(body):
        return f"{text}: give the server more heap, or raise indexing_pressure.memory.limit"
    return text


def parse_stored_version(item: Mapping[str, Any]) -> int | None:
    """Return the stored version that a conflict names; None if it names none.

    The number is part of the reason only. The servers show the version of a deleted document
    nowhere else, so this is a last resort, and nothing relies on it.
    """
    found = _CURRENT_VERSION.search(get_cause(item)[1])
    return int(found[1]) if found else None


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise an answer that is an error as one of ours; see `to_pillow_error`."""
    try:
        yield
    except AnswerError as error:
        raise to_pillow_error(error) from error


def to_pillow_error(error: AnswerError) -> PillowError:
    """Return an answer that is an error as one of ours."""
    status, (type_, reason) = error.status, get_cause(error.body)
    text = f"{error.product} answered {status}: {type_} {reason}".strip()
    if type_ in PASSING_ERRORS or status in {408, 429} or status >= 500:
        kind = AwayError if status in _NOT_SERVING else RetryableError
        return kind(text, retry_after_seconds=retry_after(error.headers, now=time.time()))
    if status in {401, 403}:
        return AccessError(text, remedy="check `auth`, and the privileges of that user or key")
    if status == 404:
        return FatalError(text, remedy=RESTORE_REMEDY)
    return ConfigError(text)


def to_connection_error(product: str, cause: BaseException, *, is_late: bool) -> PillowError:
    """Return why a request has no answer, as one of our errors.

    Args:
        product: the server's name.
        cause: what the client's error is caused by.
        is_late: whether the request was sent, and the answer did not come in time: the server may be at work.
    """
    if isinstance(cause, PillowError):
        return cause
    if is_untrusted_certificate(cause):
        return AccessError(
            f"The certificate of {product} is not trusted: {cause}.",
            remedy="set `ca_bundle` to its certificate authority",
        )
    return RetryableError(str(cause)) if is_late else AwayError(str(cause))


def get_cause(body: object) -> tuple[str, str]:
    """Return type and reason of the error in an answer or item; empty if it has none.

    The preview of a field's value at the end of some reasons is cut off: it belongs to the document,
    and reasons are shown in logs.
    """
    error = body.get("error") if isinstance(body, Mapping) else None
    if not isinstance(error, Mapping):
        return "", str(error or "")
    reason, _, _ = str(error.get("reason", "")).partition(" Preview of field's value")
    return str(error.get("type", "")), reason

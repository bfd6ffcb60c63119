"""One dead letter: the failed document's id, where it failed and why, but never its content."""

from __future__ import annotations

from typing import ClassVar

import msgspec
from pydantic import Field

from checkpoints import TailKey
from pillows.models import MAX_LEAF_VERSION, Change, Document
from pillows.options import Options
from pillows.retry.backoff import bound_seconds
from pillows.user_code import MAX_ERROR_CHARACTERS, describe_error

#: The transport of a dead letter whose document failed before any transport saw it.
PIPELINE = "-"

#: Wait before the first retry; it doubles with each retry.
FIRST_RETRY_SECONDS = 60.0
#: Longest wait. `DeadLetters` depends on it: a later time counts as an error of the clock.
LONGEST_RETRY_SECONDS = 3600.0


class ErrorOptions(Options):
    """The limits for documents that cannot be written.

    Attributes:
        max_tries: most attempts for a dead letter; then it waits for the operator.
        max_consecutive: this many dead letters in a row fail the pillow, since they point to a wrong
            configuration rather than to wrong documents.
        max_dead_letters: most dead letters that are kept; one more stops the pillow, since none is ever
            dropped.
        exception_text: also keep and log the text of an exception of filter and transform, which may quote
            the document; otherwise its type and the line that raised it.
    """

    NOT_SHAPING: ClassVar[frozenset[str]] = frozenset({"exception_text"})

    max_tries: int = Field(default=5, ge=1)
    max_consecutive: int = Field(default=1000, ge=1)
    max_dead_letters: int = Field(default=100_000, ge=1)
    exception_text: bool = False


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One document that could not be written.

    Attributes:
        tail: the document's tail; in JSON as text, under `pillow`.
        transport: the transport that refused it; `PIPELINE` if filter or transform failed.
        id, rev, leaf_version: the document's.
        stage: `filter`, `trigger`, `transform` or `transport`.
        error: why, `MAX_ERROR_CHARACTERS` at most: a transport's words; of filter and transform the
            exception's type and line, and its text where `ErrorOptions.exception_text` is set.
        seq: the position behind its change; empty where the feed gave none, or at a further try.
        config: digest of the filter, transform and transports of the last failure.
        at: wall-clock seconds of the last failure.
        first_at: wall-clock seconds of the first.
        failures: how often the document has failed, in all versions.
        tries: attempts for this version since the operator's last `retry`.
        aborted: whether there are no more automatic retries.
        next_retry_at: wall-clock seconds of the next retry.
    """

    tail: TailKey = msgspec.field(name="pillow")
    transport: str
    id: str
    rev: str
    leaf_version: int = msgspec.field(name="version")
    stage: str
    error: str
    seq: str = ""
    config: str = ""
    at: float = 0.0
    first_at: float = 0.0
    failures: int = 1
    tries: int = 1
    aborted: bool = False
    next_retry_at: float = 0.0

    def __post_init__(self) -> None:
        """Cut the error here, so that no log and no store ever gets more of it."""
        if len(self.error) > MAX_ERROR_CHARACTERS:
            msgspec.structs.force_setattr(self, "error", self.error[:MAX_ERROR_CHARACTERS])


def make_dead_letter(
    tail: TailKey, document: Change | Document, stage: str, error: Exception, *, with_text: bool = False
) -> DeadLetter:
    """Return the dead letter of a document that failed before any transport saw it.

    Args:
        tail: the tail's key.
        document: what failed.
        stage: where.
        error: why.
        with_text: as `ErrorOptions.exception_text`.
    """
    return DeadLetter(
        tail=tail,
        transport=PIPELINE,
        id=document.id,
        rev=document.rev,
        leaf_version=min(document.leaf_version, MAX_LEAF_VERSION),
        stage=stage,
        error=describe_error(error, with_text=with_text),
    )


def retry_delay_seconds(tries: int) -> float:
    """Return the wait after `tries` attempts: 60 s, doubling up to an hour, without jitter."""
    return bound_seconds(tries, initial_seconds=FIRST_RETRY_SECONDS, max_seconds=LONGEST_RETRY_SECONDS)

"""The errors of a pillow, ordered by what the caller must do.

PillowError
├── RetryableError    the same request may succeed later: back off and try again
│   ├── AwayError         the server is down, so asking costs nothing: retry soon
│   └── PartlyWrittenError    some documents of a batch were written, the others not yet
├── PermanentError    this document can never be written: dead letter, the others continue
├── StoppedError      a stop was requested during a wait
└── RemediedError     an operator can do something about it; the error says what
    └── FatalError        the pillow must stop; the operator gets the reason and the remedy
        ├── ConfigError           the configuration cannot work
        ├── SourceChangedError    the database is not the one that the checkpoint belongs to
        │   ├── RecreatedError    ... because it was deleted and recreated
        │   └── PurgesMissedError    ... or lost documents that the feed no longer names
        ├── SourceMissingError    the database does not exist
        ├── InvalidSeqError       the server does not take the saved position
        ├── AccessError           the server denies access
        ├── StateLostError        the saved state is unreadable, or contradicts the target
        └── FencedError           another pillowd has taken over this target
            └── LaterEpochError       ... or has raised the epoch of its rows
"""

from __future__ import annotations


class PillowError(Exception):
    """Something went wrong in a pillow.

    The docstring of a class is its default message.
    """

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip().splitlines()[0])


class RemediedError(PillowError):
    """An error that an operator can do something about.

    Attributes:
        detail: the reason alone.
        remedy: what the operator can do, as a sentence or a command.
    """

    def __init__(self, message: str | None = None, *, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy

    @property
    def detail(self) -> str:
        """The reason, without the remedy."""
        return super().__str__()

    def __str__(self) -> str:
        """Return the reason, followed by the remedy."""
        if not self.remedy:
            return self.detail
        return f"{self.detail.removesuffix('.')}. Remedy: {self.remedy}"


class RetryableError(PillowError):
    """The same request may succeed later.

    Attributes:
        retry_after_seconds: the wait that the server asked for, if any.
    """

    def __init__(self, message: str | None = None, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class AwayError(RetryableError):
    """The other side cannot be reached, or says that it does not serve at present.

    Asking it costs almost nothing, so it is asked often and its return is noticed soon.
    """


class PartlyWrittenError(RetryableError):
    """Some documents of a batch were written; the others may be later."""


class PermanentError(PillowError):
    """This document can never be written as it is."""


class StoppedError(PillowError):
    """A stop was requested."""


class FatalError(RemediedError):
    """The pillow must stop."""


class ConfigError(FatalError):
    """The configuration cannot work."""


class SourceChangedError(FatalError):
    """The source database is not the one that this checkpoint belongs to."""


class RecreatedError(SourceChangedError):
    """The source database was deleted and recreated after this checkpoint was saved."""


class PurgesMissedError(SourceChangedError):
    """Purges were missed, and a target cannot list its documents: only a new pass removes the purged ones."""


class SourceMissingError(FatalError):
    """The source database does not exist."""


class InvalidSeqError(FatalError):
    """CouchDB does not take the saved position."""


class AccessError(FatalError):
    """The server denies access."""


class StateLostError(FatalError):
    """The state directory and a target contradict each other."""


class FencedError(FatalError):
    """Another pillowd writes to this target."""


class LaterEpochError(FencedError):
    """The target holds rows of a later epoch than ours.

    Attributes:
        epoch: the later one.
    """

    def __init__(self, message: str | None = None, *, remedy: str = "", epoch: int = 0) -> None:
        super().__init__(message, remedy=remedy)
        self.epoch = epoch

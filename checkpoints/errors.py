"""What can go wrong with durable state, ordered by what the caller must do about it."""

from __future__ import annotations


class StoreError(Exception):
    """A store could not do what was asked.

    The docstring of a class is its default message.
    """

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip().splitlines()[0])


class StoreWriteError(StoreError):
    """The disk refused a write. Nothing was lost: the change is still in memory; write again later."""


class StoreLocked(StoreError):
    """Another process has this store open for writing."""


class StoreClosed(StoreError):
    """The store was used after it was closed."""


class StoreUnavailable(StoreError):
    """The process that owns this store does not answer."""


class IntegrityError(StoreError):
    """What is on disk is not a whole store. Nothing was changed; see `pillowd store check`."""


class NewerFormat(IntegrityError):
    """A newer pillowd has written this store: open it with that."""


class CheckpointMoved(StoreError):
    """Somebody else (an operator) changed this checkpoint: read it again and start from there."""


class DuplicateKeyError(StoreError):
    """A key that is to be added is there already."""


class MessageTooLarge(StoreError):
    """A message to or from the process that owns a store is over 1 MiB; the connection goes on."""


class MalformedMessage(StoreError):
    """What came over a socket is no message; the connection was closed."""


class RemoteError(StoreError):
    """The process at the other end failed while it answered.

    Attributes:
        kind: the name of the error there, as `ConfigError`.
    """

    def __init__(self, message: str | None = None, *, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind

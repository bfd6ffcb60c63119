"""The errors of stores and sockets, ordered by what the caller must do."""

from __future__ import annotations


class StoreError(Exception):
    """The base of all errors of stores and sockets.

    The docstring of a class is its default message.
    """

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip().splitlines()[0])


class StoreWriteError(StoreError):
    """A write to disk failed. Nothing was lost: the change is still in memory; write again later."""


class StoreLocked(StoreError):
    """Another process has this store open for writing."""


class StoreClosed(StoreError):
    """The store was used after it was closed."""


class StoreUnavailable(StoreError):
    """The process that owns this store does not answer."""


class IntegrityError(StoreError):
    """The files of a store are damaged. Nothing was changed; see `pillowd store check`."""


class NewerFormat(IntegrityError):
    """A newer pillowd wrote this store: open it with that one."""


class CheckpointMoved(StoreError):
    """An operator changed this checkpoint: read it again and start from there."""


class DuplicateKeyError(StoreError):
    """The key to be added exists already."""


class MessageTooLarge(StoreError):
    """A message to or from the process that owns a store is over 1 MiB; the connection stays usable."""


class MalformedMessage(StoreError):
    """The bytes from a socket are not a message; the connection was closed."""


class RemoteError(StoreError):
    """The other process raised an error while it handled the call.

    Attributes:
        kind: the name of that error's class, such as `ConfigError`.
    """

    def __init__(self, message: str | None = None, *, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind

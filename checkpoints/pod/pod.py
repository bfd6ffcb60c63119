"""POD, the persistent ordered dictionary: a dict that is on disk.

    with POD("visited.pod") as pod:
        pod["https://example.org"] = {"seen": 1, "links": []}
        pod["https://example.org"]["links"].append("/about")    # persisted as well

It keeps tastypy's interface and files. docs/reference/stores.md lists the differences and their reasons.
The main ones: syncs are due after a number of writes, not of keys; a crash leaves an intact store; reading
never writes; signal handlers are not touched.
"""

from __future__ import annotations

from collections.abc import (
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    MutableMapping,
    Sequence,
    ValuesView,
)
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol, Self, TypedDict, Unpack

from checkpoints.errors import StoreClosed
from checkpoints.pod.atomic_update import PathProxy, apply_update
from checkpoints.pod.codec import Key, is_key
from checkpoints.pod.engine import Settings, StoreEngine
from checkpoints.pod.hooks import EntryHooks
from checkpoints.pod.open_stores import open_stores

PAGE = 1000  # keys that a walk takes at a time

NOTHING: Any = object()  # no default was given

Pairs = Mapping[Any, Any] | Iterable[tuple[Any, Any]]


class OpenOptions(TypedDict, total=False):
    """Keyword options of POD and Tracker.

    Attributes:
        durable: wait for the disk in each sync (the default). Without it a sync survives a crash of the
            process, but not of the machine.
        readonly: read the present content of the disk, also while another process writes.
        overwrite: let `init` replace existing entries.
        close_at_exit: close the store when the interpreter ends (the default).
    """

    durable: bool
    readonly: bool
    overwrite: bool
    close_at_exit: bool


class _Walkable(Protocol):
    """A store whose entries can be walked."""

    def iteritems(self) -> Iterator[tuple[Any, Any]]:
        """Walk the keys in order, with their values."""

    def itervalues(self) -> Iterator[Any]:
        """Walk the values in the order of the keys."""


class _Items(ItemsView[Any, Any]):
    """Keys with their values, without those that are removed meanwhile."""

    _mapping: _Walkable

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return self._mapping.iteritems()


class _Values(ValuesView[Any]):
    """Values, without those of keys that are removed meanwhile."""

    _mapping: _Walkable

    def __iter__(self) -> Iterator[Any]:
        return self._mapping.itervalues()


def list_pairs(other: Any) -> list[tuple[Any, Any]]:
    """Return the entries of a mapping, of anything with `keys()`, or of pairs, as a list of pairs."""
    if hasattr(other, "keys"):
        other = [(key, other[key]) for key in list(other.keys())]
    return [(key, value) for key, value in other]


class POD(MutableMapping[Any, Any]):
    """A dictionary that is on disk.

    Keys are str, int or tuples of them; values are JSON values. An assignment that cannot be stored raises
    TypeError or ValueError. Values become JSON: tuples become lists, and int names in dicts become str.
    Dicts and lists that are read from the store report changes in place, so no assignment is needed.

    Opening a path again in this process gives another handle of the same store. Close every handle.

    Args:
        path: a directory, created if it is missing.
        init: entries to begin with; existing entries stay as they are, unless `overwrite`.
        gzipped: compress the files of a new store; ignored for an existing store.
        file_size: lines per file of a new store; ignored for an existing store.
        sync_at: sync after this many writes; None for never.
        sync_interval: sync at most this many seconds after a write; None for never.
        options: see `OpenOptions`.

    Raises:
        StoreLocked: another process has it open for writing.
        IntegrityError: the files are damaged.
        ValueError: this process has it open with other settings.
        NotADirectoryError: `path` is not a directory.
    """

    _hooks: EntryHooks | None = None

    def __init__(
        self,
        path: str | Path,
        init: Pairs | None = None,
        gzipped: bool = False,
        file_size: int = 1000,
        sync_at: int | None = 100,
        sync_interval: float | None = 5.0,
        **options: Unpack[OpenOptions],
    ) -> None:
        if unknown := options.keys() - OpenOptions.__annotations__:
            raise TypeError(f"{type(self).__name__} has no option {sorted(unknown)[0]!r}")
        settings = Settings(
            gzipped=gzipped,
            file_size=file_size,
            sync_at=sync_at,
            sync_interval=sync_interval,
            durable=options.get("durable", True),
            readonly=options.get("readonly", False),
        )
        self.path = Path(path).expanduser().resolve()
        self._closed = False
        close_at_exit = options.get("close_at_exit", True)
        self._engine = open_stores.acquire(self.path, settings, self._hooks, close_at_exit=close_at_exit)
        self._begin_with(init, options)

    def _begin_with(self, init: Pairs | None, options: OpenOptions) -> None:
        overwrite = options.get("overwrite", False)
        with self._or_given_up():
            entries = [(key, value) for key, value in list_pairs(init or {}) if overwrite or key not in self]
            if entries:
                self.update(entries)

    @contextmanager
    def _or_given_up(self) -> Iterator[None]:
        """Release the store if the block fails: the caller has no object to close."""
        try:
            yield
        except BaseException:
            self._closed = True
            open_stores.release_unopened(self._engine)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    def __getitem__(self, key: Key) -> Any:
        return self._opened.memory.get(key)

    def __setitem__(self, key: Key, value: Any) -> None:
        self._opened.memory.put([(key, value)])

    def __delitem__(self, key: Key) -> None:
        self._opened.memory.remove(key)

    def __contains__(self, key: object) -> bool:
        return is_key(key) and key in self._opened.memory

    def __len__(self) -> int:
        return len(self._opened.memory)

    def __iter__(self) -> Iterator[Key]:
        return self.iterkeys()

    def iterkeys(self) -> Iterator[Key]:
        """Walk the keys in order. Keys that are added during the walk are included, removed ones are not."""
        ordinal = -1
        while page := self.after(ordinal):
            for ordinal, key in page:  # noqa: B007 - where the next page begins
                if key in self._engine.memory:
                    yield key

    def after(self, ordinal: int, count: int = PAGE) -> list[tuple[int, Key]]:
        """Return the next keys of a walk in pages, each with its ordinal; the first page is after -1."""
        return self._opened.memory.after(ordinal, count)

    def text(self, key: Key) -> str:
        """Return the value of a key as JSON.

        Raises:
            KeyError: the key is missing.
        """
        return self._opened.memory.text(key)

    def iteritems(self) -> Iterator[tuple[Key, Any]]:
        """Walk the keys in order, with their values."""
        for key in self.iterkeys():
            try:
                value = self[key]
            except KeyError:  # removed by another thread between the two
                continue
            yield key, value

    def itervalues(self) -> Iterator[Any]:
        """Walk the values in the order of the keys."""
        return (value for _, value in self.iteritems())

    def keys(self) -> KeysView[Key]:
        """Return a view of the keys, in order."""
        return KeysView(self)

    def items(self) -> ItemsView[Key, Any]:
        """Walk the keys in order, with their values."""
        return _Items(self)

    def values(self) -> ValuesView[Any]:
        """Walk the values in the order of the keys."""
        return _Values(self)

    def update(self, *others: Any, **fields: Any) -> None:
        """Store the entries of mappings or pairs, all or none; later ones win, `fields` last.

        Raises:
            TypeError, ValueError: a key or value cannot be stored.
        """
        entries = [pair for other in others for pair in list_pairs(other)]
        self._opened.memory.put([*entries, *fields.items()])

    def setdefault(self, key: Key, default: Any = None) -> Any:
        """Return the value of a key; store `default` first where it is missing, atomically.

        Raises:
            TypeError, ValueError: the key or `default` cannot be stored.
        """
        with self.together():
            if key not in self:
                self[key] = default
            return self[key]

    def pop(self, key: Key, default: Any = NOTHING) -> Any:
        """Remove a key and return its value, atomically.

        Raises:
            KeyError: the key is missing, and no default was given.
        """
        with self.together():
            try:
                value = self[key]
            except KeyError:
                if default is NOTHING:
                    raise
                return default
            del self[key]
            return value

    def popitem(self) -> tuple[Key, Any]:
        """Remove the first key and return it with its value, atomically.

        Raises:
            KeyError: it is empty.
        """
        with self.together():
            for key in self.iterkeys():
                return key, self.pop(key)
            raise KeyError("it is empty")

    def clear(self) -> None:
        """Remove everything."""
        with self.together():
            for key in self.iterkeys():
                del self[key]

    @property
    def set(self) -> PathProxy:
        """Return a proxy whose deep changes are atomic: `pod.set["a"]["n"] += 1`."""
        return PathProxy(self._apply)

    def together(self) -> AbstractContextManager[None]:
        """Keep other threads and greenlets out until the block ends. The block must not wait."""
        return self._opened.memory.together()

    def dirty(self) -> set[Key]:  # type: ignore[valid-type]  # `set` is the property here
        """Return the keys whose last change or removal is not on disk yet."""
        return self._opened.memory.dirty

    def mark_dirty(self, key: Key) -> None:
        """Write a key at the next sync.

        Raises:
            KeyError: the key is missing.
        """
        self._opened.memory.mark_dirty(key)

    def sync(self) -> None:
        """Wait until everything that was stored before is on disk.

        Raises:
            StoreWriteError: the write failed. Nothing is lost: unwritten keys are still dirty.
        """
        self._opened.sync()

    def sync_key(self, *keys: Key) -> None:
        """Wait until the files of these keys are on disk; other keys may stay dirty.

        Raises:
            KeyError: the key is missing.
            StoreWriteError: the write failed.
        """
        self._opened.sync(keys)

    def hold(self) -> None:
        """Stop automatic syncs; `sync` still works."""
        self._opened.hold()

    def unhold(self) -> None:
        """Start automatic syncs again; sync now if that is due."""
        self._opened.unhold()

    def revert(self) -> None:
        """Drop all changes that are not on disk. Values that were read before become ordinary ones."""
        self._opened.revert()

    def close(self) -> None:
        """Sync, and close the store with its last handle; safe to call twice.

        Raises:
            StoreWriteError: the write failed. Nothing is lost and the store is still open: close it again.
        """
        if not self._closed:
            open_stores.release(self._engine)
            self._closed = True

    @property
    def _opened(self) -> StoreEngine:
        if self._closed:
            raise StoreClosed(f"{self.path} is closed")
        self._engine.ensure_open()
        return self._engine

    def _apply(self, path: Sequence[Any], operation: str, arguments: Sequence[Any]) -> Any:
        with self.together():
            return apply_update(self, path, operation, arguments)

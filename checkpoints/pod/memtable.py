"""A store's entries in memory, and which of them are not on disk yet.

Values are kept as lines. A value exists as an object only while a caller references it
(`checkpoints.pod.live_values`), or, after a change in place, until its line is written.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from msgspec import Struct, field

from checkpoints.pod.codec import Key, check_key, encode_value, line_of, text_of, value_of
from checkpoints.pod.hooks import EntryHooks
from checkpoints.pod.live_values import ValueOwner, live
from checkpoints.pod.segment_map import SegmentMap

T = TypeVar("T")


class DirtySegments(Struct, frozen=True, kw_only=True):
    """The segments of one commit.

    Attributes:
        segments: segment number -> the lines to write.
        length: how many segments the store has.
        dirty: the keys that the commit makes durable -> the segment of each.
        writes: how many writes the commit makes durable.
        moved: whether keys moved from one segment to another, so that the order of writing matters.
    """

    segments: dict[int, list[bytes]] = field(default_factory=dict)
    length: int = 0
    dirty: dict[Key, int] = field(default_factory=dict)
    writes: int = 0
    moved: bool = False


class MemTable:
    """The entries of an open store. Any thread or greenlet may call any method.

    Args:
        rules: the hooks of the store's kind.
        refuse: called before each change; raises if changes are not allowed.
        written: called after each change, without the lock.

    Attributes:
        lock: held during each call; reentrant.
        writes: how many changes were made since the last time that everything was written.
    """

    def __init__(
        self,
        hooks: EntryHooks | None,
        *,
        ensure_writable: Callable[[], None],
        on_write: Callable[[], None],
    ) -> None:
        self.lock = threading.RLock()
        self._hooks = hooks
        self._ensure_writable = ensure_writable
        self._on_write = on_write
        self._inside = 0
        self._begin(SegmentMap(1))

    def replace(self, segment_map: SegmentMap, read: Any) -> bool:
        """Replace everything by the disk's content. Values that callers still hold become ordinary ones.

        Args:
            segment_map: the content.
            read: the result of the hooks' `read`.

        Returns:
            Whether `.meta` must be written again.
        """
        with self.lock:
            self._begin(segment_map)
            return self._hooks is not None and self._hooks.begin(read)

    def _begin(self, segment_map: SegmentMap) -> None:
        self._segment_map = segment_map
        self.writes = 0
        self._live: weakref.WeakValueDictionary[Key, Any] = weakref.WeakValueDictionary()
        self._changed: dict[Key, Any] = {}
        self._dirty: dict[Key, int] = {}
        self._in_flight: dict[Key, int] = {}
        self._stale: set[int] = set()
        self._moved = False

    def __len__(self) -> int:
        return len(self._segment_map)

    def __contains__(self, key: Key) -> bool:
        return key in self._segment_map

    @property
    def inside(self) -> bool:
        """Return whether a `together` block is open; the caller's own, if the caller holds the lock."""
        return self._inside > 0

    @property
    def dirty(self) -> set[Key]:
        """Return the keys whose last change or removal is not on disk yet."""
        with self.lock:
            return {*self._dirty, *self._in_flight}

    def get(self, key: Key) -> Any:
        """Return the value of a key: a live dict or list, or a scalar.

        Raises:
            KeyError: the key is missing.
            TypeError: it cannot be a key (True would match 1).
        """
        check_key(key)
        with self.lock:
            value = self._live.get(key)
            if value is None:
                value = live(self, key, value_of(self._segment_map.line(key)))
                if isinstance(value, dict | list):
                    self._live[key] = value
            return value

    def text(self, key: Key) -> str:
        """Return the value of a key as JSON.

        Raises:
            KeyError: the key is missing.
            TypeError: it cannot be a key.
        """
        check_key(key)
        with self.lock:
            self._write_down(key)
            return text_of(self._segment_map.line(key))

    def after(self, ordinal: int, count: int) -> list[tuple[int, Key]]:
        """Return the next keys of a walk (`SegmentMap.after`)."""
        with self.lock:
            return self._segment_map.after(ordinal, count)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Keep other threads out, and hold back a sync that falls due, until the block ends."""
        try:
            with self.lock:
                self._inside += 1
                try:
                    yield
                finally:
                    self._inside -= 1
        finally:
            self._tell()

    def put(self, iter_pairs: Iterable[tuple[Key, Any]]) -> None:
        """Store values by key, all or none.

        Raises:
            TypeError, ValueError: a key or value cannot be stored; the message names it.
        """
        iter_pairs = list(iter_pairs)
        with self.lock:
            self._ensure_writable()
            lines = [self._line_for(key, value) for key, value in iter_pairs]
            for key, line in dict(lines).items():  # later ones win, in the place of the first
                self._store(key, line)
        self._tell()

    def remove(self, key: Key) -> None:
        """Remove a key.

        Raises:
            KeyError: the key is missing.
            TypeError: it cannot be a key.
        """
        with self._changing(key):
            self._mark(key, self._segment_map.remove(key))
            self._forget_live(key)
            if self._hooks:
                self._hooks.removed(key)

    def change(self, owner: ValueOwner, view: Any, change: Callable[[], T]) -> T:
        """Make a change in place, through a live value."""
        with self.lock:
            if self._live.get(owner.key) is not owner.root:
                return change()  # overwritten or removed since: no store owns it
            self._ensure_writable()
            result = self._change_checked(self._hooks, owner, view, change) if self._hooks else change()
            self._touch(owner.key)
            if self._hooks:
                self._hooks.changed(owner.key, owner.root)
        self._tell()
        return result

    def mark_dirty(self, key: Key) -> None:
        """Write a key at the next commit.

        Raises:
            KeyError: the key is missing.
            TypeError: it cannot be a key.
        """
        with self._changing(key):
            self._mark(key, self._segment_map.segment_of(key))

    def segment_of(self, key: Key) -> int:
        """Return the segment in which the last change of a key must be written.

        Raises:
            KeyError: the key is missing, and was not removed.
            TypeError: it cannot be a key.
        """
        check_key(key)
        with self.lock:
            return self._segment_map.segment_of(key) if key in self._segment_map else self._dirty[key]

    def take_dirty(self, requests: set[int] | None, files: int) -> DirtySegments:
        """Return the dirty segments for a commit, and mark them as clean.

        Args:
            requests: only these segments; None for all.
            files: how many segments have a file. Those without one before a written one are returned, too.

        Raises:
            TypeError, ValueError: a value cannot be written, since it was changed behind the store's back;
                the message names the key. Nothing was marked.
        """
        with self.lock:
            for key in list(self._changed):
                self._write_down(key)
            everything = requests is None or bool(self._stale)
            writes = self.writes if everything else 0
            if everything:
                self._close_holes()
            wanted = self._wanted(None if everything else requests, files)
            dirty = {key: at for key, at in self._dirty.items() if everything or at in wanted}
            for key in dirty:
                del self._dirty[key]
            self._in_flight = dirty
            self.writes -= writes
            return DirtySegments(
                segments={number: list(self._segment_map.segments[number].values()) for number in wanted},
                length=len(self._segment_map.segments),
                dirty=dirty,
                writes=writes,
                moved=self._moved,
            )

    def commit_finished(self, taken: DirtySegments) -> None:
        """Mark taken segments as written."""
        with self.lock:
            self._in_flight = {}
            self._stale.difference_update(taken.segments)
            self._stale = {number for number in self._stale if number < taken.length}
            self._moved = bool(self._stale) and self._moved

    def put_back(self, taken: DirtySegments) -> None:
        """Mark taken segments as dirty again: they may not be on disk."""
        with self.lock:
            self._in_flight = {}
            self._stale.update(taken.segments)
            self.writes += taken.writes
            for key, number in taken.dirty.items():
                self._dirty.setdefault(key, number)

    def rewrite(self, segments: set[int]) -> None:
        """Write segments at the next commit, whichever keys it is requested for."""
        with self.lock:
            self._stale |= segments

    def _write_down(self, key: Key) -> None:
        root = self._changed.get(key)
        if root is not None:
            self._segment_map.put(key, line_of(key, encode_value(key, root, stored=True)))
            del self._changed[key]  # only now: a value that cannot be written stays dirty

    def _line_for(self, key: Key, value: Any) -> tuple[Key, bytes | None]:
        """Return the line that stores a value; None for the live value itself, which was changed in place."""
        check_key(key)
        if isinstance(value, dict | list) and self._live.get(key) is value:
            return key, None
        if self._hooks:
            present = self.get(key) if key in self._segment_map else None
            value = self._hooks.complete(key, value, present)
        return key, line_of(key, encode_value(key, value))

    def _store(self, key: Key, line: bytes | None) -> None:
        if line is None:
            self._touch(key)
            return
        self._forget_live(key)
        self._mark(key, self._segment_map.put(key, line))
        self.writes += 1
        if self._hooks:
            self._hooks.changed(key, value_of(line))

    def _forget_live(self, key: Key) -> None:
        self._live.pop(key, None)
        self._changed.pop(key, None)

    def _touch(self, key: Key) -> None:
        self._changed[key] = self._live[key]
        self._mark(key, self._segment_map.segment_of(key))
        self.writes += 1

    def _mark(self, key: Key, number: int) -> None:
        before = self._dirty.get(key, number)
        if before != number:  # removed from there and added here since: both must be written
            self._stale.add(before)
        self._dirty[key] = number

    def _change_checked(self, hooks: EntryHooks, owner: ValueOwner, view: Any, change: Callable[[], T]) -> T:
        """Make a change, and undo it if the hooks refuse the entry."""
        if view is not owner.root:
            return change()
        before = dict(view)
        result = change()
        try:
            hooks.check(owner.key, view)
        except TypeError:
            dict.clear(view)
            dict.update(view, before)
            raise
        return result

    def _close_holes(self) -> None:
        self._segment_map.trim()
        if self._segment_map.is_fragmented:
            self._stale |= self._segment_map.compact()
            self._moved = True
            here = [key for key in self._dirty if key in self._segment_map]
            self._dirty.update({key: self._segment_map.segment_of(key) for key in here})

    def _wanted(self, requests: set[int] | None, files: int) -> list[int]:
        length = len(self._segment_map.segments)
        wanted = {number for number in {*self._dirty.values(), *self._stale} if number < length}
        if requests is not None:
            wanted &= requests
        return sorted(wanted | set(range(files, max(wanted, default=-1) + 1)))

    @contextmanager
    def _changing(self, key: Key) -> Iterator[None]:
        """Hold the lock while a key is changed; afterwards signal that a sync may be due."""
        check_key(key)
        with self.lock:
            self._ensure_writable()
            yield
            self.writes += 1
        self._tell()

    def _tell(self) -> None:
        if not self._inside:
            self._on_write()

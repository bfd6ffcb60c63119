"""One open store: entries in memory, a directory, and the commits between them.

Two locks: that of the memory is never held during a disk write; `_disk` is held by the caller that commits.
Callers that want a commit while one runs share the next one, so saves that fall due together wait for the
disk once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from checkpoints.errors import IntegrityError, StoreClosed, StoreError, StoreWriteError
from checkpoints.files.blocking import run_blocking
from checkpoints.files.directory import Directory
from checkpoints.finding import describe_damage
from checkpoints.pod.codec import Key
from checkpoints.pod.commit import DiskState
from checkpoints.pod.hooks import EntryHooks
from checkpoints.pod.memtable import MemTable
from checkpoints.pod.segments import StoreScan, scan_beside_a_writer, scan_store

_log = logging.getLogger(__name__)


class Settings(Struct, frozen=True, kw_only=True):
    """The settings with which a store is opened.

    Attributes:
        file_size: lines per file of a new store.
        gzipped: whether the files of a new store are compressed.
        sync_at: sync after this many writes; None for never.
        sync_interval: sync at most this many seconds after a write; None for never.
        durable: whether a commit waits for the disk.
        readonly: read the present content of the disk; another process may have the store open for writing.

    Raises:
        ValueError: `file_size` is below 1.
    """

    file_size: int = 1000
    gzipped: bool = False
    sync_at: int | None = 100
    sync_interval: float | None = 5.0
    durable: bool = True
    readonly: bool = False

    def __post_init__(self) -> None:
        if self.file_size < 1:
            raise ValueError(f"file_size must be at least 1, not {self.file_size}")


class StoreEngine:
    """An open store; PODs and trackers are handles of it.

    Attributes:
        directory: where it is.
        settings: how it was opened.
        rules: the hooks of its kind.
        memory: the entries.
    """

    def __init__(self, directory: Directory, settings: Settings, hooks: EntryHooks | None) -> None:
        self.directory = directory
        self.settings = settings
        self.hooks = hooks
        self._held = False
        self._disk = threading.Lock()
        self._timer: threading.Timer | None = None
        self._requests: set[int] = set()
        self._everything = False
        self.memory = MemTable(hooks, ensure_writable=self.ensure_writable, on_write=self._on_write)
        self._load()

    @property
    def kind(self) -> str:
        """The store's kind, as `.meta` names it."""
        return self.hooks.kind if self.hooks else "pod"

    def ensure_open(self) -> None:
        """Raise StoreClosed, or StoreError in a forked child."""
        self.directory.ensure_open()

    def ensure_writable(self) -> None:
        """Raise StoreError where nothing may be changed."""
        self.ensure_open()
        if self.settings.readonly:
            raise StoreError(f"{self.directory.path} is open for reading only")

    def hold(self) -> None:
        """Stop automatic syncs."""
        self._held = True

    def unhold(self) -> None:
        """Start automatic syncs again; sync now if that is due."""
        self._held = False
        self._on_write()

    def rewrite_metadata(self) -> None:
        """Write `.meta` at the next commit: the hooks' settings have changed."""
        self._disk_state.rewrite_metadata()

    def sync(self, keys: Iterable[Key] | None = None) -> None:
        """Wait until everything, or the segments of `keys`, is on disk.

        Raises:
            KeyError: the key is missing.
            StoreWriteError: the write failed; unwritten entries are still dirty.
        """
        with self.memory.lock:
            self.ensure_writable()
            self._ensure_outside_together()
            if keys is None:
                self._everything = True
            else:
                self._requests |= {self.memory.segment_of(key) for key in keys}
        with self._disk:
            self.ensure_open()
            self._commit()  # nothing is left to write where another caller's commit came first

    def revert(self) -> None:
        """Drop all changes that are not on disk, and read the disk again."""
        with self.memory.lock:
            self._ensure_outside_together()
        with self._disk:
            self.ensure_open()
            self._load()

    def close(self) -> None:
        """Sync and close the directory; safe to call twice.

        Raises:
            StoreWriteError: the write failed. Nothing is lost and the store is still open: close it again.
        """
        if self.directory.closed:
            return
        if not self.settings.readonly:
            self.sync()
        self.discard()

    def discard(self) -> None:
        """Close the directory without a sync."""
        with self._disk:
            if self._timer is not None:
                self._timer.cancel()
            self.directory.close()

    def abandon(self) -> None:
        """Close the parent's files, in a forked child. It takes no lock: another thread may have held it."""
        self.directory.close()

    def _ensure_outside_together(self) -> None:
        # A commit needs the memory's lock for a moment: waiting for it with the lock held would never end.
        if self.memory.inside:
            raise StoreError("cannot wait for the disk inside together(); leave the block first")

    def _load(self) -> None:
        scan, read = run_blocking(self._read)
        self._disk_state = DiskState(scan, self.hooks)
        if self.memory.replace(scan.segment_map, read):
            self.rewrite_metadata()
        if scan.segments_with_duplicates and not self.settings.readonly:
            self.memory.rewrite(scan.segments_with_duplicates)
            self._commit()

    def _read(self) -> tuple[StoreScan, Any]:
        """Return the disk's content, and what the hooks made of it."""
        read = scan_beside_a_writer if self.settings.readonly else scan_store
        scan = read(self.directory, file_size=self.settings.file_size, gzipped=self.settings.gzipped)
        if scan.errors:
            raise IntegrityError(describe_damage(self.directory.path, scan.errors))
        for finding in scan.findings:
            _log.warning("%s/%s", self.directory.path, finding)
        kind, settings = (scan.meta.kind, scan.meta.settings) if scan.meta else (None, {})
        if self.hooks:
            return scan, self.hooks.read(kind, settings, scan.segment_map)
        if kind not in (None, "pod") and len(scan.segment_map):
            raise StoreError(f"this is a store of the kind {kind!r}, not 'pod'")
        return scan, None

    def _commit(self) -> None:
        """Write the requested segments. The caller holds `_disk`."""
        with self.memory.lock:
            requests = None if self._everything else self._requests
            dirty = self.memory.take_dirty(requests, len(self._disk_state.bounds))  # or it stays requested
            self._everything, self._requests = False, set()
        commit = self._disk_state.plan(dirty)
        try:
            if commit:
                run_blocking(commit.execute, self.directory)
        except BaseException as error:
            self._disk_state.commit_failed(commit)
            self.memory.put_back(dirty)
            with self.memory.lock:
                self._everything = True  # those who wait for this commit make the next one, of all
            if isinstance(error, OSError):
                raise StoreWriteError(f"cannot write {self.directory.path}: {error}") from error
            raise
        self._disk_state.commit_succeeded(commit)
        self.memory.commit_finished(dirty)

    def _on_write(self) -> None:
        """Sync if the number of writes makes it due, else schedule a sync."""
        if self._held or not self.memory.writes:
            return
        if self.settings.sync_at is not None and self.memory.writes >= max(self.settings.sync_at, 1):
            self.sync()
        elif self._timer is None:
            self._schedule()

    def _schedule(self) -> None:
        with self.memory.lock:
            if self._timer is None and self.settings.sync_interval is not None and not self.directory.closed:
                self._timer = threading.Timer(self.settings.sync_interval, self._on_time)
                self._timer.daemon = True
                self._timer.start()

    def _on_time(self) -> None:
        with self.memory.lock:
            self._timer = None
            idle = self._held or self.directory.closed or not self.memory.writes
        if idle:
            return
        try:
            self.sync()
        except StoreWriteError:
            _log.exception("the sync is retried in %s s", self.settings.sync_interval)
            self._schedule()
        except StoreClosed:
            return

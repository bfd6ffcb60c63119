"""An open journal: entries in memory, and commits that many callers share.

A commit appends one line and waits for one `fsync`, however many entries the journal has. Callers that want
a commit while one runs share the next one. The whole file is rewritten
- once more bytes were appended than the snapshot has (at least `COMPACT_BYTES`), so that each byte is
  written twice at most;
- after a failed commit, because the end of the file is unknown then;
- when the journal is closed.

Two locks: `lock` guards the entries in memory and is never held during a disk write; `_disk` is held by the
caller that commits.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from checkpoints.errors import IntegrityError, StoreError, StoreWriteError
from checkpoints.files.blocking import run_blocking
from checkpoints.files.directory import Directory
from checkpoints.files.fork_safety import register_for_fork
from checkpoints.finding import Finding, describe_damage
from checkpoints.journal.files import keep_damaged, list_damaged, read_journal, write_journal
from checkpoints.journal.records import JOURNAL, Entries, JournalScan, encode_entry, format_commit
from checkpoints.replica import Key, Replica

COMPACT_BYTES = 1024 * 1024

_log = logging.getLogger(__name__)


class Journal:
    """The entries of one directory. One process writes; any number of processes may read.

    When the writer opens a damaged journal, it keeps it under another name and replaces it with one that
    holds every trusted entry.

    Args:
        path: the directory; the writer creates it if it is missing.
        readonly: read the present content of the disk, also while another process writes.

    Attributes:
        lock: guards the entries; reentrant. Hold it to read and put atomically; never wait while holding it.
        damaged: the damaged journals beside this one.

    Raises:
        StoreLocked: another process has it open for writing.
        NewerFormat: a newer pillowd wrote it.
        IntegrityError: it is damaged, and it was opened readonly or the copy of the damaged file failed.
        StoreError: the directory holds a store of another kind.
    """

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        self.lock = threading.RLock()
        self._disk = threading.Lock()
        self._readonly = readonly
        self._unwritten: dict[Key, bytes | None] = {}
        self._replica: Replica | None = None
        self._directory = run_blocking(Directory if readonly else Directory.open_locked, path)
        try:
            self._load()
        except BaseException:
            self._directory.close()
            raise
        register_for_fork(self)

    @property
    def path(self) -> Path:
        """The directory."""
        return self._directory.path

    def keys(self) -> list[Key]:
        """List the keys of all entries.

        Raises:
            StoreClosed: the journal was closed.
        """
        self._directory.ensure_open()
        with self.lock:
            return list(self._entries)

    def get(self, key: Key) -> bytes | None:
        """Return the newest entry of a key as JSON; it may not be on disk yet.

        Raises:
            StoreClosed: the journal was closed.
        """
        self._directory.ensure_open()
        return self._entries.get(key)

    def put(self, values: Mapping[Key, Any]) -> None:
        """Store values, all or none; they are on disk after the next `sync`.

        Raises:
            TypeError, ValueError: a value is not JSON.
            StoreError: the journal is readonly, or belongs to another process.
            StoreClosed: it was closed.
        """
        self.restore({key: encode_entry(key, value) for key, value in values.items()})

    def restore(self, entries: Mapping[Key, bytes | None]) -> None:
        """Store entries as `get` returns them; None removes an entry.

        A commit cannot record a removal, so the next commit after a removal rewrites the whole file.
        """
        with self.lock:
            self._ensure_writable()
            for key, entry in entries.items():
                self._unwritten[key] = entry
                if entry is not None:
                    self._entries[key] = entry
                else:
                    self._entries.pop(key, None)
                    self._rewrite = True

    def attach(self, replica: Replica) -> None:
        """Take the replica's entries in place of our own, or give it ours if it has none; keep both equal.

        Raises:
            StoreWriteError: the disk or the replica cannot be written.
            StoreError: the replica cannot be read.
        """
        self._ensure_writable()
        with self._disk:
            known = replica.read()
            with self.lock:
                if known is not None:
                    self._entries, self._unwritten = Entries(known), {}
                    self.damaged.clear()
                    self._rewrite = True
            self._commit()
            if known is None:
                replica.write(dict(self._entries))
            self._replica = replica

    def sync(self) -> None:
        """Wait until everything that was stored before is on disk.

        Raises:
            StoreWriteError: the write failed. The stored values are still in memory: sync again later.
        """
        self._ensure_writable()
        with self._disk:
            self._directory.ensure_open()
            self._commit()  # writes nothing if another caller's commit has written it already

    def close(self) -> None:
        """Write pending entries and close the directory; safe to call twice.

        Raises:
            StoreWriteError: the write failed. The journal is still open: close it again.
        """
        if self._directory.closed:
            return
        with self._disk:
            if not self._readonly:
                self._write_rest()
            self._directory.close()

    def abandon(self) -> None:
        """Close the parent's files, in a forked child."""
        self._directory.close()

    def _ensure_writable(self) -> None:
        self._directory.ensure_open()
        if self._readonly:
            raise StoreError(f"{self.path} is open for reading only")

    def _load(self) -> None:
        read = run_blocking(read_journal, self._directory)
        scan = read or JournalScan()
        self._entries = scan.entries
        self._snapshot_bytes, self._appended_bytes = scan.snapshot_bytes, scan.appended_bytes
        self._is_new = read is None
        self._rewrite = self._is_new or scan.torn
        if scan.findings:
            self._replace_damaged(scan.findings)
        self.damaged = [self.path / name for name in list_damaged(self._directory)]

    def _replace_damaged(self, findings: list[Finding]) -> None:
        error = IntegrityError(describe_damage(self.path, findings))
        if self._readonly:
            raise error
        try:
            name = run_blocking(keep_damaged, self._directory)
            self._rewrite = True
            self._commit()
        except (OSError, StoreWriteError):
            raise error from None
        _log.error("%s It is kept as %s; every other entry is still used.", error, name)

    def _write_rest(self) -> None:
        if self._unwritten:
            self._commit()
        if self._appended_bytes or (self._rewrite and not self._is_new):
            self._rewrite = True
            with suppress(StoreWriteError):  # every entry is on disk already, in a longer file
                self._commit()

    def _commit(self) -> None:
        """Write pending entries. The caller holds `_disk`."""
        with self.lock:
            taken, self._unwritten = self._unwritten, {}
            whole = self._rewrite or self._appended_bytes > max(COMPACT_BYTES, self._snapshot_bytes)
            written: Mapping[Key, bytes | None] = self._entries if whole else taken
            entries = [entry for entry in written.values() if entry is not None]
            self._rewrite = self._is_new = False
        try:
            if whole:
                self._snapshot_bytes = run_blocking(write_journal, self._directory, entries)
                self._appended_bytes = 0
            elif entries:
                self._appended_bytes += run_blocking(self._append, entries)
            if self._replica is not None and taken:
                self._replica.write(taken)
        except BaseException as error:
            with self.lock:
                self._unwritten = taken | self._unwritten
                self._rewrite = True  # the file may hold any part of the commit
            if isinstance(error, OSError):
                raise StoreWriteError(f"cannot write {self.path}/{JOURNAL}: {error}") from error
            raise

    def _append(self, entries: list[bytes]) -> int:
        line = format_commit(entries)
        self._directory.append(JOURNAL, line)
        return len(line)

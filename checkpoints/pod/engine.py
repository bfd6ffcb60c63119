"""One open store: entries in memory, a directory, and the commits between them.

Two locks. The memory's is never held while the disk works; `_disk` is held by whoever commits. Those
who want a commit while one runs wait for the next, which takes all their wishes at once: many saves
that fall due together are one turn of the disk.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from checkpoints.errors import IntegrityError, StoreClosed, StoreError, StoreWriteError
from checkpoints.files.blocking import run_blocking
from checkpoints.files.directory import Directory
from checkpoints.finding import describe_damage
from checkpoints.pod.codec import Key
from checkpoints.pod.disk_state import OnDisk
from checkpoints.pod.hooks import Rules
from checkpoints.pod.memtable import Memory
from checkpoints.pod.segments import Scan, scan, scan_beside_a_writer

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a store is opened.

    Attributes:
        file_size: lines a file, where the store is new.
        gzipped: whether files are compressed, where the store is new.
        sync_at: after how many writes a sync is made; None for never.
        sync_interval: after how many seconds at the latest; None for never.
        durable: whether a commit waits for the disk.
        readonly: open beside a writer, to read what is on disk now.

    Raises:
        ValueError: a file would hold nothing.
    """

    file_size: int = 1000
    gzipped: bool = False
    sync_at: int | None = 100
    sync_interval: float | None = 5.0
    durable: bool = True
    readonly: bool = False

    def __post_init__(self) -> None:
        if self.file_size < 1:
            raise ValueError(f"file_size is {self.file_size}; it is at least 1")


class Core:
    """An open store. POD and its kin are handles of it.

    Attributes:
        directory: where it is.
        settings: how it was opened.
        rules: what its kind asks of the entries.
        memory: the entries.
        commits: how many commits were made.
    """

    def __init__(self, directory: Directory, settings: Settings, rules: Rules) -> None:
        self.directory = directory
        self.settings = settings
        self.rules = rules
        self.commits = 0
        self._held = False
        self._disk = threading.Lock()
        self._timer: threading.Timer | None = None
        self._requests: set[int] = set()
        self._everything = False
        self._ticket = self._covered = 0
        self.memory = Memory(rules, refuse=self.refuse_readonly, written=self._on_write)
        self._load()

    def refuse_closed(self) -> None:
        """Raises StoreClosed, or StoreError in a forked child, where nothing may be done."""
        self.directory.ensure_open()

    def refuse_readonly(self) -> None:
        """Raises where nothing may be changed."""
        self.refuse_closed()
        if self.settings.readonly:
            raise StoreError(f"{self.directory.path} is open for reading only")

    def hold(self) -> None:
        """No automatic sync from now on."""
        self._held = True

    def unhold(self) -> None:
        """Automatic syncs again; one is made now if it is due."""
        self._held = False
        self._on_write()

    def restate(self) -> None:
        """Has `.meta` written: what the rules keep there is another."""
        self._ondisk.restate()

    def sync(self, keys: Iterable[Key] | None = None) -> None:
        """Everything, or the segments of `keys`, is on disk when this returns.

        Raises:
            KeyError: there is no such key.
            StoreWriteError: the disk refused; what was not written is still dirty.
        """
        with self.memory.lock:
            self.refuse_readonly()
            self._refuse_inside()
            if keys is None:
                self._everything = True
            else:
                self._requests |= {self.memory.segment_of(key) for key in keys}
            self._ticket = ticket = self._ticket + 1
        with self._disk:
            if self._covered < ticket:
                self.refuse_closed()
                self._commit()

    def revert(self) -> None:
        """Forgets what is not on disk, and reads the disk again."""
        with self.memory.lock:
            self._refuse_inside()
        with self._disk:
            self.refuse_closed()
            self._load()

    def close(self) -> None:
        """Syncs, and lets the directory go; safe to call twice.

        Raises:
            StoreWriteError: the disk refused. The store is still open, nothing is lost: close it again.
        """
        if self.directory.closed:
            return
        if not self.settings.readonly:
            self.sync()
        self.discard()

    def discard(self) -> None:
        """Lets the directory go as it is."""
        with self._disk:
            if self._timer is not None:
                self._timer.cancel()
            self.directory.close()

    def abandon(self) -> None:
        """In a forked child: lets the parent's files go. Takes no lock: another thread may have held it."""
        self.directory.close()

    def _refuse_inside(self) -> None:
        # Who commits needs the memory for a moment: waiting for the disk with it would be for ever.
        if self.memory.inside:
            raise StoreError("the disk cannot be waited for within together()")

    def _load(self) -> None:
        loaded, restate, read = run_blocking(self._read)
        self._ondisk = OnDisk(loaded, self.rules)
        self.memory.replace(loaded.layout, read)
        if restate:
            self.restate()
        if loaded.shadowed and not self.settings.readonly:
            self.memory.rewrite(loaded.shadowed)
            self._commit()

    def _read(self) -> tuple[Scan, bool, Any]:
        """The disk's content, whether `.meta` is to be written anew, and what the rules made of it."""
        loaded = self._scan()
        stated = loaded.meta
        restate = self.rules.opened(
            kind=stated.kind if stated else None,
            settings=stated.settings if stated else {},
            empty=not loaded.layout,
        )
        return loaded, restate, self.rules.read(loaded.layout)

    def _scan(self) -> Scan:
        read = scan_beside_a_writer if self.settings.readonly else scan
        loaded = read(self.directory, file_size=self.settings.file_size, gzipped=self.settings.gzipped)
        if loaded.harm:
            raise IntegrityError(describe_damage(self.directory.path, loaded.harm))
        for finding in loaded.findings:
            _log.warning("%s/%s", self.directory.path, finding)
        return loaded

    def _commit(self) -> None:
        """Carries out what was requested. The disk is ours."""
        with self.memory.lock:
            covered, requests = self._ticket, None if self._everything else self._requests
            taken = self.memory.take(requests, len(self._ondisk.bounds))  # or it raises: still requested
            self._everything, self._requests = False, set()
        plan = self._ondisk.plan(taken)
        try:
            if plan:
                run_blocking(plan.carry_out, self.directory)
                self.commits += 1
        except BaseException as error:
            self._ondisk.failed(plan)
            self.memory.give_back(taken)
            with self.memory.lock:
                self._everything = True  # those who wait for this commit make the next one, of all
            if isinstance(error, OSError):
                raise StoreWriteError(f"cannot write {self.directory.path}: {error}") from error
            raise
        self._ondisk.succeeded(plan)
        self.memory.written(taken)
        self._covered = covered

    def _on_write(self) -> None:
        """After each change: a sync if it is due by number, else one that will be by time."""
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
            _log.exception("it will be tried again in %s s", self.settings.sync_interval)
            self._schedule()
        except StoreClosed:
            return

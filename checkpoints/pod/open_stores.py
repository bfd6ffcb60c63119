"""The stores that this process has open: a path that is opened twice gives the same store."""

from __future__ import annotations

import atexit
import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from checkpoints.errors import StoreError
from checkpoints.files.blocking import run_blocking
from checkpoints.files.directory import Directory
from checkpoints.files.fork_safety import register_for_fork
from checkpoints.pod.engine import Settings, StoreEngine
from checkpoints.pod.hooks import EntryHooks

_log = logging.getLogger(__name__)


class OpenStores:
    """The open stores by path, and how many handles each has."""

    def __init__(self) -> None:
        self._guard = threading.RLock()
        self._open: dict[Path, StoreEngine] = {}
        self._handles: dict[Path, int] = {}
        self._at_exit: set[Path] = set()
        self._watching = False

    def acquire(
        self, path: Path, settings: Settings, hooks: EntryHooks | None, *, close_at_exit: bool
    ) -> StoreEngine:
        """Open a store, or return the store that is already open.

        Raises:
            ValueError: it is open with other settings.
            StoreLocked: another process has it.
            IntegrityError: the files are damaged.
        """
        if settings.readonly:
            return _open(Directory(path), settings, hooks)
        with self._guard:
            engine = self._present(path)
            if engine is None:
                self._watch()
                engine = self._open[path] = _open(
                    run_blocking(Directory.open_locked, path, durable=settings.durable), settings, hooks
                )
                self._handles[path] = 0
            elif engine.settings != settings or engine.kind != (hooks.kind if hooks else "pod"):
                raise ValueError(
                    f"{path} is already open as a {engine.kind} with {engine.settings}; open it with the same"
                )
            self._handles[path] += 1
            if close_at_exit:
                self._at_exit.add(path)
            return engine

    def release(self, engine: StoreEngine) -> None:
        """Release a handle of a store; close the store with its last one.

        Raises:
            StoreWriteError: the write failed; the handle is still open.
        """
        path = engine.directory.path
        with self._guard:
            if self._open.get(path) is not engine:
                engine.close()
                return
            if self._handles[path] == 1:
                engine.close()
                self._forget(path)
            else:
                engine.sync()
                self._handles[path] -= 1

    def release_unopened(self, engine: StoreEngine) -> None:
        """Release a handle whose constructor failed, without a sync."""
        path = engine.directory.path
        with self._guard:
            if self._open.get(path) is engine and self._handles[path] > 1:
                self._handles[path] -= 1
                return
            engine.discard()
            if self._open.get(path) is engine:
                self._forget(path)

    def _present(self, path: Path) -> StoreEngine | None:
        engine = self._open.get(path)
        if engine is not None and engine.directory.gone:
            engine.discard()  # the directory was removed: its entries are gone with it
            self._forget(path)
            return None
        return engine

    def _forget(self, path: Path) -> None:
        del self._open[path], self._handles[path]
        self._at_exit.discard(path)

    def _watch(self) -> None:
        """Register for forks and the interpreter's end, with the first store."""
        if not self._watching:
            self._watching = True
            register_for_fork(self)
            _call_at_exit(self._close_all)

    def abandon(self) -> None:
        """Forget all stores and the lock, in a forked child."""
        for engine in self._open.values():
            engine.abandon()
        self._guard = threading.RLock()
        self._open, self._handles, self._at_exit = {}, {}, set()
        self._watching = False

    def _close_all(self) -> None:
        for path in sorted(self._at_exit):
            try:
                self._open[path].close()
            except StoreError:  # logged; the other stores are closed nevertheless
                _log.exception("%s could not be closed at the end", path)


def _open(directory: Directory, settings: Settings, hooks: EntryHooks | None) -> StoreEngine:
    try:
        return StoreEngine(directory, settings, hooks)
    except BaseException:
        directory.close()
        raise


def _call_at_exit(call: Callable[[], None]) -> None:
    atexit.register(call)
    util = sys.modules.get("multiprocessing.util")
    if util is not None:  # its children end without `atexit`; -1: after the children of this process
        util.Finalize(None, call, exitpriority=-1)


open_stores = OpenStores()

"""The files of backfills in the state directory.

`backfills/ID/backfill.json`, and beside it `range-N.json` with the ids of each range.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from gevent.lock import Semaphore

from checkpoints import IntegrityError, TailKey
from checkpoints.files.blocking import run_blocking
from checkpoints.files.directory import replace_file
from checkpoints.replica import Key, Replica
from daemon.backfill.backfill import FORMAT, Backfill
from daemon.errors import NotFoundError
from daemon.state_file import read_state_file

_FILE = "backfill.json"


class BackfillStore:
    """Keeps backfills on disk. Every write is durable when the call returns.

    Args:
        folder: of the files; created with the first backfill.

    Raises:
        IntegrityError: a file is damaged, or a newer pillowd wrote it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._turn = Semaphore(1)  # a write gives way to other greenlets
        found = sorted(folder.glob(f"*/{_FILE}")) if folder.is_dir() else []
        self._all = {each.id: each for each in map(_read, found)}
        self._replica: Replica | None = None

    def attach(self, replica: Replica) -> None:
        """Load the replica's backfills, or copy ours there if it has none. Write to both from then on.

        Call this before any backfill runs.

        Raises:
            StoreError: the replica cannot be read or written.
            OSError: the files cannot be read or written.
        """
        known = replica.read()
        if known is None:
            replica.write(run_blocking(self._read_files))
        else:
            run_blocking(shutil.rmtree, self._folder, ignore_errors=True)
            for (id, name), data in known.items():
                self._write(id, name, data)
            self._all = {
                id: msgspec.json.decode(data, type=Backfill)
                for (id, name), data in known.items()
                if name == _FILE
            }
        self._replica = replica

    def list(self, key: TailKey | None = None) -> Sequence[Backfill]:
        """Return the backfills of a tail, or all, oldest first."""
        found = [each for each in self._all.values() if key is None or each.key == key]
        return sorted(found, key=lambda each: (each.created_at, each.id))

    def get(self, id: str) -> Backfill | None:
        """Return a backfill; None if it does not exist."""
        return self._all.get(id)

    def put(self, backfill: Backfill) -> Backfill:
        """Store a new backfill, and return it.

        Raises:
            OSError, StoreWriteError: it can't be written.
        """
        self._write(backfill.id, _FILE, msgspec.json.encode(backfill))
        self._all[backfill.id] = backfill
        return backfill

    def change(self, id: str, change: Callable[[Backfill], Backfill]) -> Backfill:
        """Change a backfill, and return it. Changes are made one at a time.

        Args:
            id: of the backfill.
            change: returns the changed backfill. If it raises, nothing changes.

        Raises:
            NotFoundError: the backfill does not exist.
            OSError: it can't be written; the backfill is unchanged.
        """
        with self._turn:
            if id not in self._all:
                raise NotFoundError(f"there is no backfill {id}")
            return self.put(change(self._all[id]))

    def put_ids(self, backfill: Backfill, number: int, ids: Sequence[str]) -> None:
        """Store the ids of a range.

        Raises:
            OSError: they can't be written.
        """
        self._write(backfill.id, _name(number), msgspec.json.encode(ids))

    def read_ids(self, backfill: Backfill, number: int) -> Sequence[str]:
        """Return the ids of a range.

        Raises:
            OSError, IntegrityError: they can't be read.
        """
        path = self._folder / backfill.id / _name(number)
        try:
            return msgspec.json.decode(run_blocking(path.read_bytes), type=list[str])
        except msgspec.MsgspecError as error:
            raise IntegrityError(f"{path} is damaged ({error})") from error

    def remove(self, backfill: Backfill) -> None:
        """Remove a backfill, unless it was changed meanwhile. Files that can't be removed stay.

        Its own file goes first: a folder without it is not a backfill.
        """
        folder = self._folder / backfill.id

        def remove() -> None:
            (folder / _FILE).unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)

        with self._turn:
            if self._all.get(backfill.id) != backfill:
                return
            del self._all[backfill.id]
            if self._replica is not None:
                names = [path.name for path in folder.glob("*.json")]
                self._replica.write({(backfill.id, name): None for name in [_FILE, *names]})
            run_blocking(remove)

    def _write(self, id: str, name: str, data: bytes) -> None:
        folder = self._folder / id

        def write() -> None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(folder / name, data)

        run_blocking(write)
        if self._replica is not None:
            self._replica.write({(id, name): data})

    def _read_files(self) -> dict[Key, bytes]:
        files = sorted(self._folder.glob("*/*.json"))
        return {
            (path.parent.name, path.name): path.read_bytes()
            for path in files
            if path.parent.name in self._all
        }


def _name(number: int) -> str:
    return f"range-{number:06}.json"


def _read(path: Path) -> Backfill:
    return read_state_file(path, Backfill, format=FORMAT, what="a backfill", remedy="delete its folder")

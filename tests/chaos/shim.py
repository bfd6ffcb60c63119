"""Start the daemon with changes for a chaos run.

It always counts as far behind after few changes. CHAOS_MUTANT plants a bug, CHAOS_UNDO records unsynced
writes, CHAOS_GREENLETS counts greenlets.

When a process is killed, the kernel keeps everything that it wrote; a power failure loses everything
unsynced. To simulate one by a kill, the shim keeps the replaced file of each rename until the directory is
synced, and the old length of each file that was appended to until the file is synced. `power_off` puts back
what was not synced.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

#: Suffix of the record of a rename that replaced no file.
_ABSENT = ".absent"

#: Suffix of the record of a file's length before it was appended to.
_LENGTH = ".length"

#: Bytes that are appended to a journal before it is compacted. The product's megabyte is too much for a
#: cycle.
COMPACT_BYTES = 2000


#: Changes behind the head that count as far: a page of the stage's pillows. No cycle reaches the product's
#: 10,000.
FAR_BEHIND = LAP_ROWS = 100


def alternate() -> None:
    """Change the fetch mode after each hundred rows, and log `lap.bulk_get` or `lap.include_docs`.

    The product changes it only when a tail is ten thousand changes behind, after about a minute.
    """
    from pillows.feed import catch_up, follow
    from pillows.feed.documents import fetch_mode

    catch_up.FAR_BEHIND = follow.FAR_BEHIND = FAR_BEHIND  # type: ignore[attr-defined]
    fetch_mode.LAP_ROWS = LAP_ROWS
    fetch_mode.TRIAL_SHARE = fetch_mode.MIN_TRIAL_ROWS = 1
    fetch_mode.LAPS_BEFORE_TRIAL = fetch_mode.FIRST_STRETCH_LAPS = fetch_mode.LONGEST_STRETCH_LAPS = 1
    end = fetch_mode.FetchModeTuner.end

    def told(self: Any, at: float, pending: int, *, held_up_seconds: float = 0.0) -> None:
        sys.stderr.write(f'{{"event": "lap.{self.mode}"}}\n')
        end(self, at, pending, held_up_seconds=held_up_seconds)

    fetch_mode.FetchModeTuner.end = told


def compact_often() -> None:
    """Compact checkpoint journals after 2,000 bytes.

    One chaos cycle then compacts as often as weeks of normal operation would.
    """
    from checkpoints.journal import journal

    journal.COMPACT_BYTES = COMPACT_BYTES


def forget_renames(folder: Path) -> None:
    """Record in `folder` how to undo each unsynced rename and append."""
    from checkpoints.files.directory import Directory

    rename, fsync, append = Directory._rename, Directory._fsync, Directory.append
    folder.mkdir(exist_ok=True)

    def kept(self: Any, source: str, target: str) -> None:
        place = folder / self.path.name
        place.mkdir(exist_ok=True)
        (place / ".path").write_text(str(self.path))
        if not any((place / (target + end)).exists() for end in ("", _ABSENT)):
            if (self.path / target).exists():
                os.link(self.path / target, place / target)
            else:
                (place / (target + _ABSENT)).touch()
        rename(self, source, target)

    def appended(self: Any, name: str, data: bytes) -> None:
        place = folder / self.path.name
        place.mkdir(exist_ok=True)
        (place / ".path").write_text(str(self.path))
        (place / (name + _LENGTH)).write_text(str((self.path / name).stat().st_size))
        append(self, name, data)
        (place / (name + _LENGTH)).unlink(missing_ok=True)

    def synced(self: Any, fd: int) -> None:
        fsync(self, fd)
        if fd == self._fd:
            shutil.rmtree(folder / self.path.name, ignore_errors=True)

    Directory._rename = kept
    Directory._fsync = synced
    Directory.append = appended


def power_off(folder: Path) -> int:
    """Undo every rename and append that was not synced; return their number."""
    undone = 0
    for place in folder.glob("*"):
        home = Path((place / ".path").read_text())
        for kept in place.iterdir():
            if kept.name.endswith(_LENGTH):
                os.truncate(home / kept.name.removesuffix(_LENGTH), int(kept.read_text()))
            elif kept.name.endswith(_ABSENT):
                (home / kept.name.removesuffix(_ABSENT)).unlink(missing_ok=True)
            elif kept.name != ".path":
                os.replace(kept, home / kept.name)
            undone += kept.name != ".path"
        shutil.rmtree(place)
    return undone


def count_greenlets(file: Path) -> None:
    """Write the number of greenlets into a file, every two seconds."""
    import gc

    import gevent
    from greenlet import greenlet

    def count() -> None:
        while True:
            gevent.sleep(2.0)
            alive = sum(isinstance(one, greenlet) and not one.dead for one in gc.get_objects())
            file.write_text(str(alive))

    gevent.spawn(count)


def main() -> None:
    from gevent import monkey

    monkey.patch_all()
    alternate()
    compact_often()
    if counted := os.environ.get("CHAOS_GREENLETS"):
        count_greenlets(Path(counted))
    if undo := os.environ.get("CHAOS_UNDO"):
        forget_renames(Path(undo))
    if name := os.environ.get("CHAOS_MUTANT"):
        from tests.chaos import mutants

        mutants.plant(name)
    from daemon.__main__ import start

    start()


if __name__ == "__main__":
    main()

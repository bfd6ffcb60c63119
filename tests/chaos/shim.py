"""The daemon that soon counts as far behind; with a planted bug (CHAOS_MUTANT), or on a disk that forgets
(CHAOS_UNDO), or counting its greenlets (CHAOS_GREENLETS).

A process that is killed leaves what it wrote to the kernel; a power failure takes away what was not
synced. So that a kill can stand for both, the old file of each rename is kept until the directory is
synced, and the old length of each file that is appended to until that is synced; `power_off` puts back
what was not.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

#: What stands for a file that was not there before.
_ABSENT = ".absent"

#: Ends the name of what says how long a file was that was appended to.
_LENGTH = ".length"

#: So many bytes are appended to a journal, or as many as it has, before it is written again: a megabyte
#: would be reached in no cycle.
COMPACT_BYTES = 2000


#: So many changes are a page of the stage's pillows; ten thousand behind are none of its daemons.
FAR_BEHIND = LAP_ROWS = 100


def alternate() -> None:
    """Ways of reading documents that take turns after a hundred rows, and tell: "lap.bulk_get".

    Unchanged it takes ten thousand changes to be far behind, and about a minute to change the way.
    """
    from pillows.feed import catch_up, follow
    from pillows.feed.documents import fetch_mode

    catch_up.FAR_BEHIND = follow.FAR_BEHIND = FAR_BEHIND  # type: ignore[attr-defined]
    fetch_mode.LAP_ROWS = LAP_ROWS
    fetch_mode.FIRST_STRETCH_LAPS = fetch_mode.LONGEST_STRETCH_LAPS = 1
    end = fetch_mode.FetchModeTuner.end

    def told(self: Any, at: float) -> None:
        sys.stderr.write(f'{{"event": "lap.{self.mode}"}}\n')
        end(self, at)

    fetch_mode.FetchModeTuner.end = told


def compact_often() -> None:
    """Writes checkpoints' journals again as often as a run of weeks does."""
    from checkpoints.journal import journal

    journal.COMPACT_BYTES = COMPACT_BYTES


def forget_renames(folder: Path) -> None:
    """Keeps, in `folder`, what every unsynced rename has replaced."""
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
    """Takes back every rename, and all that was appended, that was not synced. Returns how many."""
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
    """Writes every other second into a file how many greenlets there are."""
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

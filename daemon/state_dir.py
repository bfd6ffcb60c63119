"""The state directory: all that must outlive the process, held by one process at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from checkpoints import CheckpointStore, IntegrityError, NewerFormat
from daemon.paused_pillows import Pauses
from pillows.clock import Clock
from pillows.dead_letters.store import DeadLetters


@dataclass(frozen=True, slots=True, kw_only=True)
class StateDir:
    """An open state directory.

    Attributes:
        store: the checkpoints.
        letters: the dead letters.
        pauses: which tails are paused.
    """

    store: CheckpointStore
    letters: DeadLetters
    pauses: Pauses


@contextmanager
def opened(path: Path, clock: Clock) -> Iterator[StateDir]:
    """Opens the state directory for this process alone; made where it is missing.

    Raises:
        StoreLocked: another process has it.
        IntegrityError: something in it cannot be understood.
        OSError: it cannot be made or read.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (
        CheckpointStore(path / "checkpoints") as store,
        closing(_letters(path / "dead-letters", clock)) as letters,
    ):
        yield StateDir(store=store, letters=letters, pauses=Pauses(path / "paused.json"))


def _letters(path: Path, clock: Clock) -> DeadLetters:
    try:
        return DeadLetters(path, clock=clock)
    except NewerFormat:
        raise
    except IntegrityError as error:
        raise IntegrityError(
            f"{error} Put the copy in its place; then `pillowd verify KEY --repair` finds what is "
            "missing in a target and has lost its dead letter."
        ) from error


@contextmanager
def as_owner_of(path: Path) -> Iterator[None]:
    """Lets root act as the user whose directory it is.

    A file that root leaves in the directory of a service's own user could not be read by that
    service afterwards.
    """
    owner = path.stat() if path.exists() else None
    if os.geteuid() != 0 or owner is None or owner.st_uid == 0:
        yield
        return
    group = os.getegid()
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)

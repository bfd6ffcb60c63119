"""The state directory: everything that outlives the process. One process holds it at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from msgspec import Struct

from checkpoints import CheckpointStore, IntegrityError, NewerFormat
from daemon.backfill.backfills import Backfills
from daemon.backfill.store import BackfillStore
from daemon.control.audit import AuditLog
from daemon.coordination.attach import Store, attach_stores, refuse_copy
from daemon.coordination.coordinator import SharedState
from daemon.rebuilds.record import FILE, Rebuilds
from daemon.supervision.paused_pillows import Pauses
from daemon.verification.comparisons import Comparisons
from pillows.clock import Clock
from pillows.dead_letters.store import DeadLetters
from pillows.redaction import Redactor


class StateDir(Struct, frozen=True, kw_only=True):
    """An open state directory.

    Attributes:
        store: the checkpoints.
        dead_letters: the dead letters.
        pauses: which tails are paused.
        audit: who asked for which operation.
        comparisons: the last comparison of each tail with its source.
        rebuilds: the builds of each pillow that was rebuilt.
        backfills: the backfills and their progress.
    """

    store: CheckpointStore
    dead_letters: DeadLetters
    pauses: Pauses
    audit: AuditLog
    comparisons: Comparisons
    rebuilds: Rebuilds
    backfills: Backfills


@contextmanager
def open_state_dir(
    path: Path, clock: Clock, redactor: Redactor | None = None, shared: SharedState | None = None
) -> Iterator[StateDir]:
    """Open the state directory for this process alone; make it if it is missing.

    Args:
        path: the directory.
        clock: for times and ages.
        redactor: knows the secrets that no line of the audit log may hold.
        shared: the state of the service, of which the directory is a cache; None if it is the state.

    Raises:
        StoreLocked: another process holds it.
        IntegrityError: a file in it is damaged.
        StateLostError: it is a cache of another service, or the configuration names no service.
        OSError: it cannot be made or read.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (
        CheckpointStore(path / "checkpoints") as store,
        closing(_open_dead_letters(path / "dead-letters", clock)) as dead_letters,
    ):
        pauses, rebuilds = Pauses(path / "paused.json"), Rebuilds(path / FILE)
        backfills = BackfillStore(path / "backfills")
        if shared is None:
            refuse_copy(path)
        else:
            stores: dict[str, Store] = {
                "checkpoints": store,
                "dead-letters": dead_letters,
                "pauses": pauses,
                "rebuilds": rebuilds,
                "backfills": backfills,
            }
            is_empty = dead_letters.is_empty and pauses.is_empty
            is_empty = is_empty and not any((store.keys(), rebuilds.all, backfills.list()))
            attach_stores(path, shared, stores, is_empty=is_empty)
        yield StateDir(
            store=store,
            dead_letters=dead_letters,
            pauses=pauses,
            audit=AuditLog(path / "audit", clock, redactor),
            comparisons=Comparisons(path / "comparisons.json"),
            rebuilds=rebuilds,
            backfills=Backfills(backfills, clock),
        )


def _open_dead_letters(path: Path, clock: Clock) -> DeadLetters:
    try:
        return DeadLetters(path, clock=clock)
    except NewerFormat:
        raise
    except IntegrityError as error:
        raise IntegrityError(
            f"{error} Put the copy in its place; then `pillowd verify KEY --repair` finds documents that are "
            "missing in a target and have lost their dead letters."
        ) from error


@contextmanager
def run_as_owner(path: Path) -> Iterator[None]:
    """Let root act as the owner of the directory.

    The service, which runs as the owner, could not read a file that root left there.
    """
    owner = path.stat() if path.exists() else None
    if os.geteuid() != 0 or owner is None or owner.st_uid == 0:
        yield
        return
    group, groups = os.getegid(), os.getgroups()
    os.setgroups([owner.st_gid])
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)

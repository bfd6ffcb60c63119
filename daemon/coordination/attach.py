"""Make a state directory the cache of a service's shared state, or refuse what would lose a state.

A file in the directory names the service whose cache it is. The cache of an inactive
machine is outdated, so the shared state replaces it before it is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import msgspec

from checkpoints.replica import Replica
from daemon.coordination.coordinator import SharedState
from daemon.state_file import StateFile, read_state_file
from pillows.errors import StateLostError

#: Names the service, in the state directory.
FILE = "service.json"
#: The file's format; a file with a greater number was written by a newer pillowd.
FORMAT = 1


class _Service(msgspec.Struct, frozen=True):
    format: int
    service: str


class Store(Protocol):
    """A store that can be attached to a replica."""

    def attach(self, replica: Replica) -> None:
        """Take over the replica's entries, and write to both from now on."""


def attach_stores(folder: Path, shared: SharedState, stores: dict[str, Store], *, is_empty: bool) -> None:
    """Attach the stores of a state directory to the shared state of a service.

    The first daemon of a service puts its state there.

    Args:
        folder: the state directory.
        shared: the shared state, which nobody else may write now.
        stores: name in the shared state -> store.
        is_empty: whether the directory holds no state.

    Raises:
        StateLostError: one of two states would be lost.
        StoreError, OSError: something cannot be read or written.
    """
    mine = read_service(folder)
    if shared.is_filled and mine != shared.service and not is_empty:
        raise StateLostError(
            f"{folder} holds a state of its own, and the service {shared.service} has one in the lease "
            "database.",
            remedy=f"move {folder} away to go on with that of the service, or choose another `service`",
        )
    if not shared.is_filled and mine is not None:
        raise StateLostError(
            f"{folder} is a copy of the state of the service {mine}, and the lease database has no state of "
            f"the service {shared.service}.",
            remedy=f"restore the database; or remove {folder / FILE} on the machine that was active last, "
            "and start that one first",
        )
    if shared.is_filled:
        _write_service(folder, shared.service)
    for name, store in stores.items():
        store.attach(shared.open_replica(name))
    if not shared.is_filled:
        shared.set_filled()
        _write_service(folder, shared.service)


def refuse_copy(folder: Path) -> None:
    """Refuse a state directory that is only a copy: another machine may have gone on since.

    Raises:
        StateLostError: it is one.
    """
    service = read_service(folder)
    if service is not None:
        raise StateLostError(
            f"{folder} is a copy of the state of the service {service}, which another machine may have "
            "changed since.",
            remedy=f"if this machine was the last one that was active, remove {folder / FILE}; else bring "
            "back `coordination`",
        )


def read_service(folder: Path) -> str | None:
    """Return the service whose cache a state directory is; None if it is not a cache.

    Raises:
        IntegrityError: the file is damaged, or a newer pillowd wrote it.
    """
    remedy = f"move {folder} away to go on with the state of the service"
    try:
        found = read_state_file(
            folder / FILE, _Service, format=FORMAT, what="the name of a service", remedy=remedy
        )
    except FileNotFoundError:
        return None
    return found.service


def _write_service(folder: Path, service: str) -> None:
    with StateFile(folder / FILE) as file:
        file.write(_Service(FORMAT, service))

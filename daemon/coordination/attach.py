"""Make a state directory a cache of a service's shared state. Refuse this if a state would be lost.

A file in the directory names the service. The cache of an inactive machine is outdated, so it is replaced by
the shared state before use.
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
        """Replace the store's entries by those of the replica, and write to both from then on."""


def attach_stores(folder: Path, shared: SharedState, stores: dict[str, Store], *, is_empty: bool) -> None:
    """Attach the stores of a state directory to the shared state of a service.

    The first daemon of a service copies its own state into the shared state.

    Args:
        folder: the state directory.
        shared: the shared state. No other daemon may write it now.
        stores: name in the shared state -> store.
        is_empty: whether the directory holds no state.

    Raises:
        StateLostError: the directory and the service have different states; one would be lost.
        StoreError, OSError: one of the states cannot be read or written.
    """
    mine = read_service(folder)
    if shared.is_filled and mine != shared.service and not is_empty:
        raise StateLostError(
            f"{folder} holds a state of its own, but the lease database has another state "
            f"of the service {shared.service}.",
            remedy=f"move {folder} away to use the service's state, or choose another `service`",
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
    """Refuse a state directory that is only a cache: another machine may have changed the state since.

    Raises:
        StateLostError: the directory is a cache.
    """
    service = read_service(folder)
    if service is not None:
        raise StateLostError(
            f"{folder} is a copy of the state of the service {service}, which another machine may have "
            "changed since.",
            remedy=f"if this machine was the last active one, remove {folder / FILE}; otherwise restore "
            "`coordination`",
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

"""The record of each pillow's builds, in a small file that outlives the daemon."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import msgspec

from checkpoints import TailKey
from checkpoints.replica import Replica
from daemon.errors import ConflictError, NotFoundError
from daemon.state_file import StateFile, read_state_file
from pillows.transports.common.builds import Exchange, make_key

#: The file's format; a file with a greater number was written by a newer pillowd.
FORMAT = 1
#: Its name in the state directory.
FILE = "rebuilds.json"


class RebuildState(StrEnum):
    """The state of a pillow's builds. Commands, metrics and the API show these values."""

    BUILDING = "building"
    VERIFYING = "verifying"
    READY = "ready"
    SWITCHING = "switching"
    SWITCHED = "switched"
    ROLLED_BACK = "rolled-back"
    DROPPING = "dropping"
    DROPPED = "dropped"


#: The fields of a record that are shown.
_SHOWN = (
    "state",
    "reason",
    "live",
    "other",
    "verify",
    "switch",
    "wanted",
    "workers",
    "keep_seconds",
    "started_at",
    "changed_at",
)
#: The other build has not been live yet.
COMING = frozenset({RebuildState.BUILDING, RebuildState.VERIFYING, RebuildState.READY})
#: The other build was live, or may be live again.
KEPT = frozenset({RebuildState.SWITCHED, RebuildState.ROLLED_BACK})


class Definition(msgspec.Struct, frozen=True):
    """The digests of the definition with which a build is made.

    Attributes:
        settings: digest of the pillow's settings.
        code: digests of the modules of its Python functions.
    """

    settings: str = ""
    code: tuple[str, ...] = ()


class Rebuild(msgspec.Struct, frozen=True, kw_only=True):
    """The builds of one pillow.

    Attributes:
        state: see `RebuildState`.
        live: the number of the live build.
        other: the number of the other build; equal to `live` if there is none.
        last: the highest number that was ever used.
        live_definition, other_definition: of these builds.
        reason: why the rebuild cannot go to its next state yet, and the remedy; "" if it can.
        failure: why the last step failed or was undone, and the remedy; "" if it succeeded.
        verify: whose contents are compared before the switch, in addition to all versions.
        switch: whether it switches by itself, waits for an operator, or copies the rows.
        workers: processes that fill the other build, as `LoadOptions.workers`; None for the pillow's own
            setting.
        keep_seconds: how long the former build is kept.
        wanted: the state that an operator requested, until it is reached: `switched` or `rolled-back`.
        started_at: wall-clock seconds when the rebuild was asked for.
        changed_at: wall-clock seconds of the last change of `state`.
        before: while switching: the state before.
        steps: while switching: the finished steps.
        undoing: while switching: why the steps are being undone; "" unless they are.
    """

    state: RebuildState
    live: int
    other: int
    last: int
    live_definition: Definition = Definition()
    other_definition: Definition = Definition()
    reason: str = ""
    failure: str = ""
    verify: Literal["full", "sample"] = "sample"
    switch: Literal["auto", "manual", "replace-rows"] = "auto"
    workers: int | Literal["auto"] | None = None
    keep_seconds: float = 86400.0
    wanted: Literal["", "switched", "rolled-back"] = ""
    started_at: float = 0.0
    changed_at: float = 0.0
    before: RebuildState | None = None
    steps: tuple[str, ...] = ()
    undoing: str = ""

    @property
    def has_other(self) -> bool:
        """Whether the pillow has a second build."""
        return self.state is not RebuildState.DROPPED

    @property
    def copies(self) -> bool:
        """Whether the switch copies rows, so that the former build is not kept."""
        return self.switch == "replace-rows"

    def name_other(self, key: TailKey) -> TailKey:
        """Return the tail of the other build."""
        return make_key(key, self.other)

    def make_exchange(self, key: TailKey) -> Exchange:
        """Return the exchange which makes the other build live."""
        return Exchange(key=key, outgoing=self.live, incoming=self.other)


class _File(msgspec.Struct, frozen=True):
    format: int
    rebuilds: dict[str, Rebuild]


class Rebuilds:
    """The record of each pillow, written durably with every change.

    Args:
        path: the file; its folder must exist, the file need not.

    Raises:
        IntegrityError: the file is damaged, or a newer pillowd wrote it. Without the file it is unknown which
            build is live.
    """

    def __init__(self, path: Path) -> None:
        self._file = StateFile(path)
        self._all: Mapping[str, Rebuild] = read_rebuilds(path)
        self._replica: Replica | None = None

    def attach(self, replica: Replica) -> None:
        """Load the replica's records, or copy ours there if it has none. Keep both equal from then on.

        Raises:
            StoreError: the replica cannot be read or written.
            OSError: the file cannot be written.
        """
        known = replica.read()
        if known is None:
            replica.write({(name,): msgspec.json.encode(each) for name, each in self._all.items()})
        else:
            self._write({name: msgspec.json.decode(each, type=Rebuild) for (name,), each in known.items()})
        self._replica = replica

    @property
    def all(self) -> Mapping[TailKey, Rebuild]:
        """The records by the tail of the live build."""
        return {parse_key(name): each for name, each in self._all.items()}

    def get(self, key: TailKey) -> Rebuild | None:
        """Return the record of a pillow; None if it was never rebuilt."""
        return self._all.get(str(key))

    def require(self, key: TailKey) -> Rebuild:
        """Return the record of a pillow with a second build.

        Raises:
            NotFoundError: the pillow has no second build.
        """
        record = self.get(key)
        if record is None or not record.has_other:
            raise NotFoundError(f"{key} is not being rebuilt", remedy=f"`pillowd rebuild {key}`")
        return record

    def put(self, key: TailKey, rebuild: Rebuild) -> None:
        """Store the record of a pillow. Durable on return.

        Raises:
            OSError, StoreWriteError: it cannot be written; the former record stays.
        """
        self.change(key, lambda _: rebuild)

    def change(self, key: TailKey, change: Callable[[Rebuild | None], Rebuild]) -> Rebuild:
        """Change the record of a pillow, and return it. Changes are made one at a time. Durable on return.

        Args:
            key: the tail of the live build.
            change: returns the changed record; its argument is the current one, or None if the pillow was
                never rebuilt. If it raises, nothing changes. It must not wait.

        Raises:
            OSError, StoreWriteError: it cannot be written; the former record stays.
        """
        with self._file:
            former = self._all.get(str(key))
            changed = change(former)
            if changed != former:
                if self._replica is not None:
                    self._replica.write({(str(key),): msgspec.json.encode(changed)})
                self._write({**self._all, str(key): changed})
        return changed

    def update(self, key: TailKey, *, at: float, of: Collection[RebuildState] = (), **fields: Any) -> Rebuild:
        """Change some fields of a record; keep concurrent changes of the others.

        Args:
            key: the tail of the live build.
            at: wall-clock seconds.
            of: the states in which the record may be changed; empty for all.
            fields: the new values.

        Raises:
            NotFoundError, ConflictError: there is no record, or its state is not one of `of`.
            OSError, StoreWriteError: the record cannot be written; it is unchanged.
        """

        def change(record: Rebuild | None) -> Rebuild:
            if record is None:
                raise NotFoundError(f"{key} is not being rebuilt")
            if of and record.state not in of:
                raise ConflictError(f"the rebuild of {key} is {record.state} meanwhile")
            is_other = fields.get("state", record.state) != record.state
            more = {"changed_at": at} if is_other else {}
            return msgspec.structs.replace(record, **fields, **more)

        return self.change(key, change)

    def explain(self, key: TailKey, reason: str, *, failed: bool = False) -> None:
        """Store the reason why a rebuild waits. Durable on return.

        Args:
            key: the tail of the live build.
            reason: the reason.
            failed: whether a step failed for that reason.

        Raises:
            OSError, StoreWriteError: the reason cannot be written. It is kept in memory, so that it is shown.
        """

        def change(former: Rebuild | None) -> Rebuild:
            if former is None:
                raise KeyError(str(key))
            failure = reason if failed else former.failure
            changed = msgspec.structs.replace(former, reason=reason, failure=failure)
            self._all = {**self._all, str(key): changed}
            return changed

        self.change(key, change)

    def _write(self, changed: dict[str, Rebuild]) -> None:
        self._file.write(_File(FORMAT, changed))
        self._all = changed


def read_rebuilds(path: Path) -> dict[str, Rebuild]:
    """Return the records in a file by the text of their tails; none if there is no file.

    Raises:
        IntegrityError: see `Rebuilds`.
        OSError: it cannot be read.
    """
    try:
        found = read_state_file(
            path,
            _File,
            format=FORMAT,
            what="a list of rebuilds",
            remedy="put back a good copy. Without one, delete it, and reset the checkpoints of the pillows "
            "that were rebuilt",
        )
    except FileNotFoundError:
        return {}
    return found.rebuilds


def parse_key(text: str) -> TailKey:
    """Return the tail that `str(key)` names."""
    pillow, _, source = text.partition("@")
    return TailKey(pillow, source)


def to_json(record: Rebuild, key: TailKey) -> dict[str, Any]:
    """Return a record as JSON values, without digests."""
    values: dict[str, Any] = msgspec.to_builtins(record)
    other = str(record.name_other(key)) if record.has_other else None
    return {"key": str(key), "other_key": other} | {name: values[name] for name in _SHOWN}

"""The tails that an operator can name, and their status."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, replace
from typing import Any

from checkpoints import IntegrityError, TailKey
from daemon import tail_lookup
from daemon.errors import UnknownPillowError
from daemon.rebuilds import record
from daemon.state_dir import StateDir
from daemon.supervision.supervisor import Supervisor
from daemon.verification import comparisons
from pillows.clock import Clock
from pillows.runtime.status import State, TailStatus

#: Length of a token in a status.
SEQ_CHARACTERS = 64


class Tails:
    """The tails that the control calls work on.

    Args:
        keys: the configured tails; those of the supervisor if it is given, since a reload changes them.
        state: the open state directory.
        clock: for the age of checkpoints.
        supervisor: of the running daemon; None if the calls work on the files alone.
    """

    def __init__(
        self, keys: Collection[TailKey], *, state: StateDir, clock: Clock, supervisor: Supervisor | None
    ) -> None:
        self.state = state
        self.supervisor = supervisor
        self._given = keys
        self._clock = clock

    @property
    def _keys(self) -> Collection[TailKey]:
        return self._given if self.supervisor is None else self.supervisor.keys

    def configured(self, text: str, source: str | None = None) -> TailKey:
        """Return the configured tail that a text names, and a source, if there is one.

        Raises:
            UnknownPillowError: they name no tail, or several.
        """
        return tail_lookup.resolve_tail(f"{text}@{source}" if source else text, self._keys)

    def known(self, text: str, source: str | None = None) -> TailKey:
        """Return a configured tail, or one of which only a checkpoint is left.

        Raises:
            UnknownPillowError: they name no tail, or several.
        """
        try:
            return self.configured(text, source)
        except UnknownPillowError:
            text = f"{text}@{source}" if source else text
            return tail_lookup.resolve_tail(text, dict.fromkeys([*self._keys, *self.state.store.keys()]))

    def list_configured(self) -> list[TailKey]:
        """Return the configured tails."""
        return list(self._keys)

    def statuses(self) -> list[TailStatus]:
        """Return the status of every configured tail, from the tail itself or from its files."""
        return [self._with_saved(status) for status in self._live()]

    def status(self, tail: TailKey) -> TailStatus:
        """Return the status of one configured tail."""
        live = next(each for each in self._live() if (each.pillow, each.source) == (tail.pillow, tail.source))
        return self._with_saved(live)

    def describe(self, status: TailStatus) -> dict[str, Any]:
        """Return a status, the tail's last comparison with its source and its rebuild as JSON values."""
        tail = TailKey(status.pillow, status.source)
        rebuild = self.state.rebuilds.get(tail)
        return to_json(status, self.state.comparisons.get(tail)) | {
            "rebuild": None if rebuild is None else record.to_json(rebuild, tail)
        }

    def _live(self) -> list[TailStatus]:
        if self.supervisor is not None:
            return self.supervisor.statuses()
        return [
            TailStatus(
                pillow=key.pillow,
                source=key.source,
                state=State.PAUSED if key in self.state.pauses else State.STOPPED,
                dead_letters=self.state.dead_letters.count(key),
            )
            for key in self._keys
        ]

    def _with_saved(self, status: TailStatus) -> TailStatus:
        """Complete the status of a tail that has no position yet from its checkpoint."""
        if status.seq is not None:
            return status
        try:
            saved = self.state.store.get(TailKey(status.pillow, status.source))
        except IntegrityError as error:
            return replace(status, reason=status.reason or str(error))
        if saved is None:
            return status
        return replace(
            status,
            seq=str(saved.seq),
            changes=saved.changes,
            epoch=saved.epoch,
            pass_number=None if saved.pass_done else saved.pass_epoch,
            checkpoint_age_seconds=max(0.0, self._clock.wall() - saved.saved_at) if saved.saved_at else None,
            pipeline_changed_at=saved.pipeline_changed_at,
        )


def to_json(status: TailStatus, comparison: comparisons.Comparison | None) -> dict[str, Any]:
    """Return a status and a comparison as JSON values.

    Tokens are shortened: those of 200 tails can be 1 MiB.
    """
    seq = status.seq
    if seq is not None and len(seq) > SEQ_CHARACTERS:
        seq = f"{seq[:SEQ_CHARACTERS]}…"
    shown = None if comparison is None else comparisons.to_json(comparison)
    return asdict(replace(status, seq=seq)) | {"comparison": shown}

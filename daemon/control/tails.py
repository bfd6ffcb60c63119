"""The tails that an operator can name, and how each of them is."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from checkpoints import IntegrityError, TailKey
from daemon import tail_lookup
from daemon.state_dir import StateDir
from daemon.supervisor import Supervisor
from pillows.clock import Clock
from pillows.runtime.status import State, TailStatus


class Tails:
    """What all calls work on.

    Args:
        keys: the configured tails.
        state: the open state directory.
        clock: for the age of what was saved.
        supervisor: of the running daemon; None on the files alone.
    """

    def __init__(
        self, keys: Collection[TailKey], *, state: StateDir, clock: Clock, supervisor: Supervisor | None
    ) -> None:
        self.state = state
        self.supervisor = supervisor
        self._keys = keys
        self._clock = clock

    def configured(self, text: str) -> TailKey:
        """The configured tail that `text` tail_lookup.

        Raises:
            UnknownPillowError: it names none, or several.
        """
        return tail_lookup.find(text, self._keys)

    def known(self, text: str) -> TailKey:
        """A configured tail, or one that only has a checkpoint any more.

        Raises:
            UnknownPillowError: it names none, or several.
        """
        try:
            return self.configured(text)
        except tail_lookup.UnknownPillowError:
            return tail_lookup.find(text, dict.fromkeys([*self._keys, *self.state.store.keys()]))

    def statuses(self) -> list[TailStatus]:
        """How every configured tail is, as far as it or its files can tell."""
        return [self._with_saved(status) for status in self._live()]

    def status(self, tail: TailKey) -> TailStatus:
        """How one of them is."""
        live = next(each for each in self._live() if (each.pillow, each.source) == (tail.pillow, tail.source))
        return self._with_saved(live)

    def _live(self) -> list[TailStatus]:
        if self.supervisor is not None:
            return self.supervisor.statuses()
        return [
            TailStatus(
                pillow=key.pillow,
                source=key.source,
                state=State.PAUSED if key in self.state.pauses else State.STOPPED,
                dead_letters=self.state.letters.count(str(key)),
            )
            for key in self._keys
        ]

    def _with_saved(self, status: TailStatus) -> TailStatus:
        """A status with what its checkpoint says, where the tail itself has not said it."""
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

"""The tails that an operator can name, and their status."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from msgspec.structs import asdict, replace

from checkpoints import IntegrityError, TailKey
from daemon import tail_lookup
from daemon.errors import ConflictError, UnknownPillowError
from daemon.rebuilds import record
from daemon.state_dir import StateDir
from daemon.supervision.supervised_tail import SeveralDatabases
from daemon.supervision.supervisor import Supervisor
from daemon.verification import comparisons
from pillows.change_topics.partition_keys import split_partition
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
        are_shared: whether several daemons share each pillow.
    """

    def __init__(
        self,
        keys: Collection[TailKey],
        *,
        state: StateDir,
        clock: Clock,
        supervisor: Supervisor | None,
        are_shared: bool = False,
    ) -> None:
        self.state = state
        self.supervisor = supervisor
        self.are_shared = are_shared
        self._given = keys
        self._clock = clock

    def list_keys(self) -> Collection[TailKey]:
        """Return the keys of all configured tails."""
        return self._given if self.supervisor is None else self.supervisor.keys

    def configured(self, text: str, source: str | None = None) -> TailKey:
        """Return the configured tail that a text names, and a source, if there is one.

        Also a database of a pillow that reads several.

        Raises:
            UnknownPillowError: they name no tail, or several.
        """
        text = f"{text}@{source}" if source else text
        try:
            return tail_lookup.resolve_tail(text, self.list_keys())
        except UnknownPillowError:
            member = tail_lookup.find_member(text, self.list_keys())
            if member is None or not self._is_known(member):
                raise
            return member

    def known(self, text: str, source: str | None = None) -> TailKey:
        """Return a configured tail, or one of which only a checkpoint is left.

        Raises:
            UnknownPillowError: they name no tail, or several.
        """
        try:
            return self.configured(text, source)
        except UnknownPillowError:
            text = f"{text}@{source}" if source else text
            return tail_lookup.resolve_tail(
                text, dict.fromkeys([*self.list_keys(), *self.state.store.keys()])
            )

    def supervised(self, text: str, source: str | None = None, *, of_one_database: bool = False) -> TailKey:
        """Return the configured tail that a text names, for operations on a whole pillow.

        Args:
            text: names it, as for `configured`.
            source: picks one of its sources.
            of_one_database: refuse a pillow that reads several, or that several daemons share, too.

        Raises:
            UnknownPillowError: as `configured`; or it is one of several databases, or reads several.
            ConflictError: several daemons share it.
        """
        tail = self.configured(text, source)
        if of_one_database and self.are_shared:
            raise ConflictError(
                f"several daemons share {tail}, and this needs one that has all of it",
                remedy=f"`pillowd checkpoint reset {tail.pillow}` writes every document again; or run the "
                "pillow with `coordination: { type: none }` meanwhile",
            )
        if (pattern := self.find_pattern(tail)) is not None:
            raise UnknownPillowError(
                f"{tail} is one database of {pattern}, and this is done with a pillow as a whole",
                remedy=f"name the pillow, {pattern.pillow}",
            )
        if of_one_database and tail_lookup.is_pattern(tail):
            raise UnknownPillowError(
                f"{tail} reads several databases, and this needs a pillow on one",
                remedy=f"`pillowd checkpoint reset {tail.pillow}` reads all of them again",
            )
        return tail

    def of_one_database(self, text: str, source: str | None = None) -> TailKey:
        """Return the configured tail of one database that a text names; the pillow may read several.

        Raises:
            UnknownPillowError: as `configured`; or it reads several databases.
        """
        return tail_lookup.refuse_pattern(self.configured(text, source))

    def find_pattern(self, tail: TailKey) -> TailKey | None:
        """Return the key of the pillow on several databases that a database's tail belongs to; else None."""
        if tail in self.list_keys():
            return None
        candidates = (key for key in self.list_keys() if tail_lookup.find_members(key, [tail]))
        return next(candidates, None)

    def find_databases(self, tail: TailKey) -> SeveralDatabases | None:
        """Return the running tail of several databases, given its key or that of one of them."""
        pattern = self.find_pattern(tail) or tail
        return None if self.supervisor is None else self.supervisor.find_databases(pattern)

    def list_members(self, tail: TailKey) -> list[TailKey]:
        """Return the databases with a checkpoint, of a pillow that reads several; none of another one."""
        return tail_lookup.find_members(tail, self.state.store.keys())

    def list_with_letters(self, tail: TailKey) -> list[TailKey]:
        """Return the tails with dead letters: the given one, or its databases if it reads several.

        Of a pillow that several daemons share, those of the partitions that are here.
        """
        if self.are_shared:
            letters = self.state.dead_letters.list_tails(tail.pillow)
            return [each for each in letters if split_partition(each)[0] == tail]
        if not tail_lookup.is_pattern(tail):
            return [tail]
        return tail_lookup.find_members(tail, self.state.dead_letters.list_tails(tail.pillow))

    def _is_known(self, member: TailKey) -> bool:
        running = self.find_databases(member)
        saved = self.state.store.keys()
        return (running is not None and member.database in running) or member in saved

    def list_configured(self) -> list[TailKey]:
        """Return the configured tails."""
        return list(self.list_keys())

    def statuses(self) -> list[TailStatus]:
        """Return the status of every configured tail, from the tail itself or from its files."""
        return [self._with_saved(status) for status in self._live()]

    def status(self, tail: TailKey) -> TailStatus:
        """Return the status of one configured tail."""
        if self.find_pattern(tail) is not None:
            return self._with_saved(self._member_status(tail))
        live = next(each for each in self._live() if (each.pillow, each.source) == (tail.pillow, tail.source))
        return self._with_saved(live)

    def describe(self, status: TailStatus) -> dict[str, Any]:
        """Return a status, and the tail's last comparison, rebuild and running backfill, as JSON values."""
        tail = TailKey(status.pillow, status.source)
        rebuild = self.state.rebuilds.get(tail)
        return to_json(status, self.state.comparisons.get(tail)) | {
            "rebuild": None if rebuild is None else record.to_json(rebuild, tail),
            "backfill": self.state.backfills.measure(tail),
        }

    def _member_status(self, tail: TailKey) -> TailStatus:
        running = self.find_databases(tail)
        if running is not None and tail.database in running:
            return running.status_of(tail.database)
        return self._from_files(tail)

    def _live(self) -> list[TailStatus]:
        if self.supervisor is not None:
            return self.supervisor.statuses()
        return [self._from_files(key) for key in self.list_keys()]

    def _from_files(self, key: TailKey) -> TailStatus:
        letters = self.state.dead_letters
        several = tail_lookup.is_pattern(key)
        return TailStatus(
            pillow=key.pillow,
            source=key.source,
            state=State.PAUSED if key in self.state.pauses else State.STOPPED,
            dead_letters=letters.count_of_pillow(key.pillow) if several else letters.count(key),
            databases={"parked": len(self.list_members(key))} if several else None,
        )

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

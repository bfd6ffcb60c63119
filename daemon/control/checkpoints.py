"""Control calls that show and edit checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import structlog
from msgspec.structs import replace

from checkpoints import Checkpoint, IntegrityError, Seq, TailKey
from daemon.control.snapshot import Snapshots
from daemon.control.tails import Tails
from daemon.errors import EditedMeanwhileError, InvalidRequestError, NotFoundError
from daemon.tail_lookup import is_pattern
from pillows.clock import Clock

if TYPE_CHECKING:  # few daemons need Kafka's client
    from daemon.kafka.operators.shared_pillows import SharedPillows

_log = structlog.get_logger("pillowd.operator")

#: The generation that the edited checkpoint must have; 0 if there must be none, None if any will do.
Expected = int | None

#: The format of an exported checkpoint.
EXPORT_FORMAT = 1


class CheckpointCalls:
    """Shows and edits checkpoints; a running tail restarts from the edited one.

    Args:
        tails: the tails, and the state directory.
        snapshots: of their states.
        clock: for the time of an edit.
        shared: for pillows that several daemons share; None where one daemon runs all of them.
    """

    def __init__(
        self,
        tails: Tails,
        snapshots: Snapshots,
        *,
        clock: Clock,
        shared: SharedPillows | None = None,
    ) -> None:
        self._tails = tails
        self._snapshots = snapshots
        self._supervisor = tails.supervisor
        self._clock = clock
        self._shared = shared

    def get(self, tail: TailKey) -> dict[str, Any]:
        """Return the saved checkpoint of a tail; of a shared one, a position that all its partitions passed.

        Raises:
            NotFoundError: the tail has no checkpoint.
            NotInTimeError: the partitions of a shared one are behind.
        """
        return self._stored(tail).to_json() | {"key": str(tail)}

    def list_all(self, *, orphans: bool = False) -> list[dict[str, Any]]:
        """Return a line for each saved checkpoint, by key.

        Args:
            orphans: whether to return only those of tails that are not configured.
        """
        configured = {*self._tails.list_configured()}
        configured |= {member for tail in [*configured] for member in self._tails.list_members(tail)}
        saved = self._tails.state.store.keys()
        return [
            {"key": str(key), "configured": key in configured, **self._summarize(key)}
            for key in saved
            if not (orphans and key in configured)
        ]

    def history(self, tail: TailKey) -> list[dict[str, Any]]:
        """Return the earlier positions of a tail, newest first."""
        entries = self._tails.state.store.history(tail)
        return [
            {"seq": entry.seq.value, "saved_at": entry.saved_at, "changes": entry.changes}
            for entry in entries
        ]

    def set_seq(self, tail: TailKey, seq: Any, expected: Expected) -> dict[str, Any]:
        """Set a tail to a position. This ends a running pass: rows that it skips must not be swept."""
        try:
            position = Seq.of(seq)
        except (TypeError, ValueError) as error:
            raise InvalidRequestError(f"this is not a valid position: {error}") from error
        return self._edit("set", tail, lambda stored: _at(stored, position), expected)

    def reset(self, tail: TailKey, expected: Expected) -> dict[str, Any]:
        """Begin a new pass over the whole source, under a new epoch."""
        return self._edit("reset", tail, Checkpoint.reset, expected)

    def rewind(self, tail: TailKey, saved_before: float | None, expected: Expected) -> dict[str, Any]:
        """Set a tail back to an earlier position.

        Args:
            tail: the tail.
            saved_before: wall-clock seconds; the newest position of the history that was saved by
                then. None is the beginning of the source.
            expected: see `Expected`.

        Raises:
            NotFoundError: the history is not that old.
        """
        position = Seq.BEGINNING
        if saved_before is not None:
            history = self._tails.state.store.history(tail)
            older = [entry for entry in history if entry.saved_at <= saved_before]
            if not older:
                raise NotFoundError(
                    "its history is not that old", remedy=f"`pillowd checkpoint history {tail}` shows it"
                )
            position = older[0].seq
        return self._edit("rewind", tail, lambda stored: _at(stored, position), expected)

    def import_(self, tail: TailKey, exported: Mapping[str, Any], expected: Expected) -> dict[str, Any]:
        """Restore an exported checkpoint.

        Raises:
            InvalidRequestError: the checkpoint does not belong to this tail.
        """
        if exported.get("format") != EXPORT_FORMAT:
            raise InvalidRequestError(f"this is not an export of format {EXPORT_FORMAT}")
        if exported.get("key") != str(tail):
            raise InvalidRequestError(f"this is the checkpoint of {exported.get('key')}, not of {tail}")
        try:
            imported = Checkpoint.from_json(exported["checkpoint"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidRequestError(f"this checkpoint is incomplete: {error}") from error
        return self._edit("import", tail, lambda _: imported, expected)

    def _summarize(self, key: TailKey) -> dict[str, Any]:
        try:
            saved = self._tails.state.store.get(key)
        except IntegrityError:  # it must not hide the others
            saved = None
        return {
            "saved_at": None if saved is None else saved.saved_at,
            "changes": None if saved is None else saved.changes,
        }

    def _stored(self, tail: TailKey) -> Checkpoint:
        if self._shared is not None:
            return self._shared.find_checkpoint(tail)
        stored = self._tails.state.store.get(tail)
        if stored is None:
            raise NotFoundError(f"{tail} has no checkpoint yet")
        return stored

    def _edit(
        self,
        what: str,
        tail: TailKey,
        change: Callable[[Checkpoint | None], Checkpoint],
        expected: Expected,
    ) -> dict[str, Any]:
        """Store an edit, log it with the old position, and restart a running tail from it.

        Raises:
            EditedMeanwhileError: the stored checkpoint is not the expected one; nothing was changed.
        """
        if is_pattern(tail) and what != "reset":
            raise InvalidRequestError(
                f"{tail} is several databases, each with a position of its own",
                remedy=f"name one of them: `pillowd databases {tail.pillow}` lists them",
            )
        if self._shared is not None:
            return self._reset_shared(what, tail, expected, self._shared)
        before: list[str] = []

        def noted(stored: Checkpoint | None) -> Checkpoint:
            _check_expected(tail, stored, expected)
            before.append(str(stored.seq) if stored else "none")
            changed = replace(change(stored), saved_at=self._clock.wall())
            if stored is not None:
                return changed
            # The number of earlier edits is lost. The copy in a target must not outrank this edit:
            # count the minutes since 1970, which is more than any number of edits by hand.
            return replace(changed, edits=max(changed.edits, int(changed.saved_at // 60)))

        edited = self._tails.state.store.edit(tail, noted)
        _log.warning("checkpoint.edited", pillow=str(tail), how=what, before=before[0], seq=str(edited.seq))
        if self._supervisor is not None and tail in self._supervisor.keys:
            self._supervisor.restart(tail)
        elif (databases := self._tails.find_databases(tail)) is not None:
            databases.note_edit(tail.database)
        self._snapshots.forget()
        return edited.to_json() | {"key": str(tail), "before": before[0]}

    def _reset_shared(
        self, what: str, tail: TailKey, expected: Expected, shared: SharedPillows
    ) -> dict[str, Any]:
        """Reset a pillow in all daemons that share it; each of its partitions has a position of its own."""
        if what != "reset" or expected is not None:
            raise InvalidRequestError(
                f"several daemons share {tail}, and each of its partitions has a position of its own",
                remedy=f"`pillowd checkpoint reset {tail.pillow}`, without a generation, creates one",
            )
        shared.reset(tail)
        _log.warning("checkpoint.edited", pillow=str(tail), how=what, before="", seq=str(Seq.BEGINNING))
        self._snapshots.forget()
        return Checkpoint.reset(None).to_json() | {"key": str(tail), "before": ""}


def _check_expected(tail: TailKey, stored: Checkpoint | None, expected: Expected) -> None:
    edits = stored.edits if stored else 0
    if expected is not None and expected != edits:
        raise EditedMeanwhileError(
            f"the checkpoint of {tail} has generation {edits}, not {expected}",
            remedy="read it again, and decide again",
        )


def _at(stored: Checkpoint | None, position: Seq) -> Checkpoint:
    """Return the stored checkpoint at another position, with the running pass ended."""
    return replace(stored or Checkpoint(seq=position), seq=position, pass_done=True, first_pass=False)

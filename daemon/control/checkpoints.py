"""Control calls that show and edit checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import structlog

from checkpoints import Checkpoint, Seq, TailKey
from daemon.control.tails import Tails
from pillows.clock import Clock

_log = structlog.get_logger("pillowd.operator")

#: The format of an exported checkpoint.
EXPORT_FORMAT = 1


class CheckpointCalls:
    """Shows and edits checkpoints; a running tail restarts from the edited one.

    Args:
        tails: the tails that can be named.
        clock: for the time of an edit.
    """

    def __init__(self, tails: Tails, *, clock: Clock) -> None:
        self._tails = tails
        self._supervisor = tails.supervisor
        self._clock = clock

    def get(self, key: str) -> dict[str, Any]:
        """Return the saved checkpoint of a tail."""
        tail = self._tails.known(key)
        return self._stored(tail).to_json() | {"key": str(tail)}

    def history(self, key: str) -> list[dict[str, Any]]:
        """Return the earlier positions of a tail, newest first."""
        entries = self._tails.state.store.history(self._tails.known(key))
        return [
            {"seq": entry.seq.value, "saved_at": entry.saved_at, "changes": entry.changes}
            for entry in entries
        ]

    def set_seq(self, key: str, seq: Any) -> dict[str, Any]:
        """Set a tail to a position. This ends a running pass: rows that it skips must not be swept."""
        position = Seq.of(seq)
        return self._edit("set", key, lambda stored: _at(stored, position))

    def reset(self, key: str) -> dict[str, Any]:
        """Begin a new pass over the whole source, under a new epoch."""
        return self._edit("reset", key, Checkpoint.reset)

    def rewind(self, key: str, saved_before: float | None = None) -> dict[str, Any]:
        """Set a tail back to an earlier position.

        Args:
            key: the tail.
            saved_before: wall-clock seconds; the newest position of the history that was saved by
                then. Without it, the beginning of the source.
        """
        position = Seq.BEGINNING
        if saved_before is not None:
            history = self._tails.state.store.history(self._tails.known(key))
            older = [entry for entry in history if entry.saved_at <= saved_before]
            if not older:
                raise ValueError(f"its history is not that old. Remedy: `pillowd checkpoint history {key}`")
            position = older[0].seq
        return self._edit("rewind", key, lambda stored: _at(stored, position))

    def export(self, key: str) -> dict[str, Any]:
        """Return the checkpoint of a tail as `checkpoint.import` takes it."""
        tail = self._tails.known(key)
        return {"format": EXPORT_FORMAT, "key": str(tail), "checkpoint": self._stored(tail).to_json()}

    def import_(self, key: str, exported: dict[str, Any]) -> dict[str, Any]:
        """Restore an exported checkpoint."""
        if exported.get("format") != EXPORT_FORMAT:
            raise ValueError(f"this is not an export of format {EXPORT_FORMAT}")
        tail = self._tails.known(key)
        if exported.get("key") != str(tail):
            raise ValueError(f"this is the checkpoint of {exported.get('key')}, not of {tail}")
        try:
            imported = Checkpoint.from_json(exported["checkpoint"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"this checkpoint is incomplete: {error}") from error
        return self._edit("import", key, lambda _: imported)

    def _stored(self, tail: TailKey) -> Checkpoint:
        stored = self._tails.state.store.get(tail)
        if stored is None:
            raise ValueError(f"{tail} has no checkpoint yet")
        return stored

    def _edit(self, what: str, key: str, change: Callable[[Checkpoint | None], Checkpoint]) -> dict[str, Any]:
        """Store an edit, log it with the old position, and restart a running tail from it."""
        tail = self._tails.known(key)
        before: list[str] = []

        def noted(stored: Checkpoint | None) -> Checkpoint:
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
        return edited.to_json() | {"key": str(tail), "before": before[0]}


def _at(stored: Checkpoint | None, position: Seq) -> Checkpoint:
    """Return the stored checkpoint at another position, with the running pass ended."""
    return replace(stored or Checkpoint(seq=position), seq=position, pass_done=True, first_pass=False)

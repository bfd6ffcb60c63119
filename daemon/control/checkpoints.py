"""The calls about checkpoints: how far tails got, and putting them elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    """Shows and edits checkpoints; a running tail starts again from what was edited.

    Args:
        tails: what there is.
        clock: for when an edit was made.
    """

    def __init__(self, tails: Tails, *, clock: Clock) -> None:
        self._tails = tails
        self._supervisor = tails.supervisor
        self._clock = clock

    @property
    def calls(self) -> Mapping[str, Callable[..., Any]]:
        """Every call by its name."""
        return {
            "checkpoint.get": self.get,
            "checkpoint.history": self.history,
            "checkpoint.set": self.set_seq,
            "checkpoint.reset": self.reset,
            "checkpoint.rewind": self.rewind,
            "checkpoint.export": self.export,
            "checkpoint.import": self.import_,
        }

    def get(self, key: str) -> dict[str, Any]:
        """A tail's saved checkpoint."""
        tail = self._tails.known(key)
        return self._stored(tail).to_json() | {"key": str(tail)}

    def history(self, key: str) -> list[dict[str, Any]]:
        """Where a tail was, newest first."""
        entries = self._tails.state.store.history(self._tails.known(key))
        return [
            {"seq": entry.seq.value, "saved_at": entry.saved_at, "changes": entry.changes}
            for entry in entries
        ]

    def set_seq(self, key: str, seq: Any) -> dict[str, Any]:
        """Puts a tail at a position. A pass that runs is given up: what it skips must not be swept."""
        position = Seq.of(seq)
        return self._edit("set", key, lambda stored: _at(stored, position))

    def reset(self, key: str) -> dict[str, Any]:
        """Begins a new pass over the whole source under a new epoch, whatever is stored."""
        return self._edit("reset", key, Checkpoint.reset)

    def rewind(self, key: str, saved_before: float | None = None) -> dict[str, Any]:
        """Puts a tail back to where it was.

        Args:
            key: the tail.
            saved_before: wall-clock seconds: the newest entry of its history that is as old; the
                beginning of the source unless given.
        """
        position = Seq.BEGINNING
        if saved_before is not None:
            history = self._tails.state.store.history(self._tails.known(key))
            older = [entry for entry in history if entry.saved_at <= saved_before]
            if not older:
                raise ValueError("its history does not go back so far. Remedy: `pillowd checkpoint history`")
            position = older[0].seq
        return self._edit("rewind", key, lambda stored: _at(stored, position))

    def export(self, key: str) -> dict[str, Any]:
        """A tail's checkpoint as `checkpoint.import` takes it."""
        tail = self._tails.known(key)
        return {"format": EXPORT_FORMAT, "key": str(tail), "checkpoint": self._stored(tail).to_json()}

    def import_(self, key: str, exported: dict[str, Any]) -> dict[str, Any]:
        """Puts an exported checkpoint back."""
        if exported.get("format") != EXPORT_FORMAT:
            raise ValueError(f"this is no export of format {EXPORT_FORMAT}")
        tail = self._tails.known(key)
        if exported.get("key") != str(tail):
            raise ValueError(f"this is the checkpoint of {exported.get('key')}, not of {tail}")
        try:
            imported = Checkpoint.from_json(exported["checkpoint"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is no whole checkpoint: {error}") from error
        return self._edit("import", key, lambda _: imported)

    def _stored(self, tail: TailKey) -> Checkpoint:
        stored = self._tails.state.store.get(tail)
        if stored is None:
            raise ValueError(f"{tail} has no checkpoint yet")
        return stored

    def _edit(self, what: str, key: str, change: Callable[[Checkpoint | None], Checkpoint]) -> dict[str, Any]:
        """Stores an edit, says so with the old position, and lets a running tail start from it."""
        tail = self._tails.known(key)
        before: list[str] = []

        def noted(stored: Checkpoint | None) -> Checkpoint:
            before.append(str(stored.seq) if stored else "none")
            changed = replace(change(stored), saved_at=self._clock.wall())
            if stored is not None:
                return changed
            # How often it was edited before is lost. A target's own copy must not outrank this edit,
            # and nobody edits once a minute for ever.
            return replace(changed, edits=max(changed.edits, int(changed.saved_at // 60)))

        edited = self._tails.state.store.edit(tail, noted)
        _log.warning("checkpoint.edited", pillow=str(tail), how=what, before=before[0], seq=str(edited.seq))
        if self._supervisor is not None and tail in self._supervisor.keys:
            self._supervisor.restart(tail)
        return edited.to_json() | {"key": str(tail), "before": before[0]}


def _at(stored: Checkpoint | None, position: Seq) -> Checkpoint:
    """What is stored, at another position, with the running pass given up."""
    return replace(stored or Checkpoint(seq=position), seq=position, pass_done=True, first_pass=False)

"""The observer that writes the log: each hook is one event with the pillow's name bound."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from checkpoints import Checkpoint
from pillows.observer import Observer
from pillows.runtime.status import State

_log = structlog.get_logger("pillowd.pillow")


class LogObserver(Observer):
    """Writes what the pillows tell. What happens all the time is at level debug."""

    def change(self, pillow: str, *, count: int, kept: int) -> None:
        """Changes went through filter and transform."""
        _log.debug("changes.taken", pillow=pillow, count=count, kept=kept)

    def batch(self, pillow: str, *, documents: int, refused: int, dead: int, seconds: float) -> None:
        """Every transport has acknowledged a batch."""
        _log.debug(
            "batch.written",
            pillow=pillow,
            documents=documents,
            refused=refused,
            dead=dead,
            seconds=round(seconds, 4),
        )

    def retry(self, pillow: str, *, where: str, error: str, attempt: int, delay_seconds: float) -> None:
        """Something is tried again."""
        _log.warning(
            "retry",
            pillow=pillow,
            where=where,
            error=error,
            attempt=attempt,
            delay_seconds=round(delay_seconds, 3),
        )

    def rewind(self, pillow: str, *, reason: str) -> None:
        """The source seems to serve again what was read before."""
        _log.warning("source.rewound", pillow=pillow, reason=reason)

    def dead_letter(self, pillow: str, *, transport: str, id: str, stage: str, error: str) -> None:
        """A document was stored as a dead letter."""
        _log.warning("dead_letter.added", pillow=pillow, transport=transport, id=id, stage=stage, error=error)

    def checkpoint(self, pillow: str, *, checkpoint: Checkpoint, seconds: float) -> None:
        """A checkpoint was saved."""
        _log.debug(
            "checkpoint.saved",
            pillow=pillow,
            seq=str(checkpoint.seq),
            changes=checkpoint.changes,
            seconds=round(seconds, 4),
        )

    def state(self, pillow: str, *, state: str, reason: str) -> None:
        """A pillow is in another state."""
        write = _log.error if state == State.FAILED else _log.info
        write("pillow.state", pillow=pillow, state=str(state), **({"reason": reason} if reason else {}))

    def warning(self, pillow: str, *, event: str, details: Mapping[str, object]) -> None:
        """Something that an operator should see."""
        _log.warning(event, pillow=pillow, **_facts(details))

    def notice(self, pillow: str, *, event: str, details: Mapping[str, object]) -> None:
        """Something rare that is good to know."""
        _log.info(event, pillow=pillow, **_facts(details))


def _facts(details: Mapping[str, object]) -> dict[str, object]:
    """Details whose names do not clash with those of the event itself."""
    return {name + "_" if name in {"event", "pillow"} else name: v for name, v in details.items()}

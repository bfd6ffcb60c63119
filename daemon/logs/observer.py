"""The observer that writes the log: each hook is one event, with the tail's key as `pillow`."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from checkpoints import Checkpoint, TailKey
from daemon.tail_lookup import name_tail
from pillows.observer import Observer, Rewind
from pillows.runtime.status import State

_log = structlog.get_logger("pillowd.pillow")


class LogObserver(Observer):
    """Writes the log. Frequent events have the level debug."""

    def change(self, tail: TailKey, *, count: int, kept: int, filtered: int) -> None:
        """Log changes that went through filter and transform."""
        _log.debug("changes.taken", pillow=str(tail), count=count, kept=kept, filtered=filtered)

    def batch(self, tail: TailKey, *, documents: int, refused: int, dead: int, seconds: float) -> None:
        """Log a batch that every transport has acknowledged."""
        _log.debug(
            "batch.written",
            pillow=str(tail),
            documents=documents,
            refused=refused,
            dead=dead,
            seconds=round(seconds, 4),
        )

    def retry(self, tail: TailKey, *, where: str, error: str, attempt: int, delay_seconds: float) -> None:
        """Log a retry."""
        _log.warning(
            "retry",
            pillow=str(tail),
            where=where,
            error=error,
            attempt=attempt,
            delay_seconds=round(delay_seconds, 3),
        )

    def workers(self, tail: TailKey, *, count: int) -> None:
        """Log the number of worker processes."""
        _log.debug("workers.running", pillow=str(tail), count=count)

    def worker_ended(self, tail: TailKey, *, pid: int, cause: str, how: str) -> None:  # noqa: ARG002 - an observer's
        """Log a worker process that is replaced."""
        _log.warning("worker.ended", pillow=str(tail), pid=pid, how=how)

    def rewind(self, tail: TailKey, *, kind: Rewind, reason: str) -> None:
        """Log that changes come again."""
        _log.warning("source.rewound", pillow=str(tail), kind=str(kind), reason=reason)

    def dead_letter(self, tail: TailKey, *, transport: str, id: str, stage: str, error: str) -> None:
        """Log a stored dead letter."""
        _log.warning(
            "dead_letter.added", pillow=str(tail), transport=transport, id=id, stage=stage, error=error
        )

    def checkpoint(self, tail: TailKey, *, checkpoint: Checkpoint, seconds: float) -> None:
        """Log a saved checkpoint."""
        _log.debug(
            "checkpoint.saved",
            pillow=str(tail),
            seq=str(checkpoint.seq),
            changes=checkpoint.changes,
            seconds=round(seconds, 4),
        )

    def verified(self, tail: TailKey, *, differences: Mapping[str, Mapping[str, int]]) -> None:
        """Log the result of a comparison; a warning if the targets differ."""
        total = sum(sum(counts.values()) for counts in differences.values())
        write = _log.warning if total else _log.info
        write("pillow.verified", pillow=str(tail), differences=total)

    def state(self, tail: TailKey, *, state: str, reason: str) -> None:
        """Log a change of state."""
        write = _log.error if state == State.FAILED else _log.info
        write("pillow.state", pillow=str(tail), state=str(state), **({"reason": reason} if reason else {}))

    def warning(self, tail: TailKey, *, event: str, details: Mapping[str, object]) -> None:
        """Log an event that an operator should see."""
        _log.warning(event, pillow=str(tail), **_facts(tail, details))

    def notice(self, tail: TailKey, *, event: str, details: Mapping[str, object]) -> None:
        """Log a rare event, such as a start or a completed pass."""
        _log.info(event, pillow=str(tail), **_facts(tail, details))

    def removed(self, tail: TailKey) -> None:
        """Log that a tail has ended for good."""
        _log.info("pillow.removed", pillow=str(tail))


def _facts(tail: TailKey, details: Mapping[str, object]) -> dict[str, object]:
    """Rename details that clash with fields of the event itself, and complete the commands of remedies."""
    return {
        name + "_" if name in {"event", "pillow"} else name: name_tail(v, tail) if isinstance(v, str) else v
        for name, v in details.items()
    }

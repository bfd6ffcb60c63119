"""What an operator can ask for: the same calls in the running daemon and on its files.

The daemon serves `Operations.calls` on its control socket; a command that finds no daemon makes them
itself on the state directory. Every call takes and returns what JSON can hold.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import structlog
from gevent.event import Event

from checkpoints import Checkpoint, IntegrityError, Seq, TailKey
from daemon import keys as names
from daemon.state_dir import StateDir
from daemon.supervisor import Supervisor
from pillows.clock import Clock
from pillows.deadletters import DeadLetter
from pillows.state import State, TailStatus

_log = structlog.get_logger("pillowd.operator")

#: So much of a token is shown in a status.
SEQ_CHARACTERS = 64
#: How long a tail may take to rest for a repair.
_REST_SECONDS = 20.0
#: The format of an exported checkpoint.
EXPORT_FORMAT = 1


class Operations:
    """Answers the operator's calls.

    Args:
        keys: the configured tails.
        state: the open state directory.
        clock: for what is shown and noted.
        supervisor: of the running daemon; None on the files alone.
        repair: sends documents of a tail that does not run through its pipeline again.
    """

    def __init__(
        self,
        *,
        keys: Collection[TailKey],
        state: StateDir,
        clock: Clock,
        supervisor: Supervisor | None,
        repair: Callable[[TailKey, Sequence[str]], None] | None = None,
    ) -> None:
        self._keys = keys
        self._state = state
        self._clock = clock
        self._supervisor = supervisor
        self._repair = repair
        self._began_at = clock.monotonic()

    @property
    def calls(self) -> Mapping[str, Callable[..., Any]]:
        """Every call by its name."""
        return {
            "ping": lambda: "pillowd",
            "status": self.status,
            "pause": self.pause,
            "resume": self.resume,
            "restart": self.restart,
            "checkpoint.get": self.checkpoint_get,
            "checkpoint.history": self.checkpoint_history,
            "checkpoint.set": self.checkpoint_set,
            "checkpoint.reset": self.checkpoint_reset,
            "checkpoint.rewind": self.checkpoint_rewind,
            "checkpoint.export": self.checkpoint_export,
            "checkpoint.import": self.checkpoint_import,
            "dead-letter.list": self.dead_letter_list,
            "dead-letter.show": self.dead_letter_show,
            "dead-letter.retry": self.dead_letter_retry,
            "dead-letter.discard": self.dead_letter_discard,
            "verify.repair": self.verify_repair,
        }

    # --- pillows

    def status(self) -> dict[str, Any]:
        """The facts of the daemon and of every tail."""
        running = self._supervisor is not None
        return {
            "running": running,
            "pid": os.getpid() if running else None,
            "up_seconds": self._clock.monotonic() - self._began_at if running else None,
            "pillows": [_shown(self._with_saved(status)) for status in self._statuses()],
        }

    def pause(self, key: str) -> dict[str, Any]:
        """Stops a tail until `resume`, also over restarts of the daemon."""
        tail = self._configured(key)
        if self._supervisor is not None:
            self._supervisor.pause(tail)
        else:
            self._state.pauses.add(tail)
        return self._told("pause", tail)

    def resume(self, key: str) -> dict[str, Any]:
        """Ends a pause."""
        tail = self._configured(key)
        if self._supervisor is not None:
            self._supervisor.resume(tail)
        else:
            self._state.pauses.discard(tail)
        return self._told("resume", tail)

    def restart(self, key: str) -> dict[str, Any]:
        """Stops a tail and starts it afresh; revives a failed one."""
        tail = self._configured(key)
        if self._supervisor is None:
            raise ValueError("the daemon is not running. Remedy: `pillowd run`")
        self._supervisor.restart(tail)
        return self._told("restart", tail)

    # --- dead letters

    def dead_letter_list(self, key: str) -> list[dict[str, Any]]:
        """The documents of a tail that could not be written, oldest first; never their bodies."""
        return [_shown_letter(letter) for letter in self._letters(key, None)]

    def dead_letter_show(self, key: str, id: str) -> list[dict[str, Any]]:
        """The letters of one document, one for each transport that refused it."""
        return [_shown_letter(letter) for letter in self._letters(key, [id])]

    def dead_letter_retry(self, key: str, ids: list[str] | None = None) -> dict[str, Any]:
        """Has documents tried again, all of a tail's unless named: at once, or when the tail runs."""
        tail = str(self._known(key))
        count = self._state.letters.retry(tail, self._named(key, ids))
        _log.warning("dead_letter.retried", pillow=tail, count=count, ids=ids or "all")
        return {"key": tail, "retried": count}

    def dead_letter_discard(self, key: str, ids: list[str] | None = None) -> dict[str, Any]:
        """Forgets dead letters of a tail: of these documents, or all. They are not written."""
        tail = str(self._known(key))
        count = self._state.letters.discard(tail, self._named(key, ids))
        _log.warning("dead_letter.discarded", pillow=tail, count=count, ids=ids or "all")
        return {"key": tail, "discarded": count}

    def _named(self, key: str, ids: list[str] | None) -> list[tuple[str, str]]:
        return [(letter.transport, letter.id) for letter in self._letters(key, ids)]

    def _letters(self, key: str, ids: list[str] | None) -> list[DeadLetter]:
        tail = str(self._known(key))
        letters = [each for each in self._state.letters.of(tail) if ids is None or each.id in ids]
        missing = sorted(set(ids or ()) - {each.id for each in letters})
        if missing:
            raise ValueError(f"{tail} has no dead letter of {', '.join(missing)}")
        return letters

    def verify_repair(self, key: str, ids: list[str]) -> dict[str, Any]:
        """Sends documents through the pipeline again, as they are now; a running tail rests meanwhile."""
        tail = self._configured(key)
        if self._repair is None:
            raise ValueError("nothing can be repaired from here")
        _log.warning("verify.repair", pillow=str(tail), documents=len(ids))
        with self._resting(tail):
            self._repair(tail, ids)
        return {"key": str(tail), "sent": len(ids)}

    @contextmanager
    def _resting(self, tail: TailKey) -> Iterator[None]:
        """Stops a running tail for as long as the block takes."""
        if self._supervisor is None or tail not in self._supervisor.running:
            yield
            return
        self._supervisor.stop(tail)
        try:
            give_up_at = self._clock.monotonic() + _REST_SECONDS
            while tail in self._supervisor.running:
                if self._clock.monotonic() > give_up_at:
                    raise ValueError(f"{tail} could not be stopped within {_REST_SECONDS:g} s")
                self._clock.wait(Event(), 0.05)
            yield
        finally:
            self._supervisor.start(tail)

    # --- checkpoints

    def checkpoint_get(self, key: str) -> dict[str, Any]:
        """A tail's saved checkpoint."""
        tail = self._known(key)
        return self._stored(tail).to_json() | {"key": str(tail)}

    def checkpoint_history(self, key: str) -> list[dict[str, Any]]:
        """Where a tail was, newest first."""
        entries = self._state.store.history(self._known(key))
        return [
            {"seq": entry.seq.value, "saved_at": entry.saved_at, "changes": entry.changes}
            for entry in entries
        ]

    def checkpoint_set(self, key: str, seq: Any) -> dict[str, Any]:
        """Puts a tail at a position. A pass that runs is given up: what it skips must not be swept."""
        position = Seq.of(seq)
        return self._edit("set", key, lambda stored: _at(stored, position))

    def checkpoint_reset(self, key: str) -> dict[str, Any]:
        """Begins a new pass over the whole source under a new epoch, whatever is stored."""
        return self._edit("reset", key, Checkpoint.reset)

    def checkpoint_rewind(self, key: str, saved_before: float | None = None) -> dict[str, Any]:
        """Puts a tail back to where it was.

        Args:
            key: the tail.
            saved_before: wall-clock seconds: the newest entry of its history that is as old; the
                beginning of the source unless given.
        """
        position = Seq.BEGINNING
        if saved_before is not None:
            history = self._state.store.history(self._known(key))
            older = [entry for entry in history if entry.saved_at <= saved_before]
            if not older:
                raise ValueError("its history does not go back so far. Remedy: `pillowd checkpoint history`")
            position = older[0].seq
        return self._edit("rewind", key, lambda stored: _at(stored, position))

    def checkpoint_export(self, key: str) -> dict[str, Any]:
        """A tail's checkpoint as `checkpoint.import` takes it."""
        tail = self._known(key)
        return {"format": EXPORT_FORMAT, "key": str(tail), "checkpoint": self._stored(tail).to_json()}

    def checkpoint_import(self, key: str, exported: dict[str, Any]) -> dict[str, Any]:
        """Puts an exported checkpoint back."""
        if exported.get("format") != EXPORT_FORMAT:
            raise ValueError(f"this is no export of format {EXPORT_FORMAT}")
        tail = self._known(key)
        if exported.get("key") != str(tail):
            raise ValueError(f"this is the checkpoint of {exported.get('key')}, not of {tail}")
        try:
            imported = Checkpoint.from_json(exported["checkpoint"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is no whole checkpoint: {error}") from error
        return self._edit("import", key, lambda _: imported)

    # --- helpers

    def _configured(self, text: str) -> TailKey:
        return names.find(text, self._keys)

    def _known(self, text: str) -> TailKey:
        """A configured tail, or one that only has a checkpoint any more."""
        try:
            return self._configured(text)
        except names.UnknownPillowError:
            return names.find(text, dict.fromkeys([*self._keys, *self._state.store.keys()]))

    def _statuses(self) -> list[TailStatus]:
        if self._supervisor is not None:
            return self._supervisor.statuses()
        return [
            TailStatus(
                pillow=key.pillow,
                source=key.source,
                state=State.PAUSED if key in self._state.pauses else State.STOPPED,
                dead_letters=self._state.letters.count(str(key)),
            )
            for key in self._keys
        ]

    def _with_saved(self, status: TailStatus) -> TailStatus:
        """A status with what its checkpoint says, where the tail itself has not said it."""
        if status.seq is not None:
            return status
        try:
            saved = self._state.store.get(TailKey(status.pillow, status.source))
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

    def _stored(self, tail: TailKey) -> Checkpoint:
        stored = self._state.store.get(tail)
        if stored is None:
            raise ValueError(f"{tail} has no checkpoint yet")
        return stored

    def _edit(self, what: str, key: str, change: Callable[[Checkpoint | None], Checkpoint]) -> dict[str, Any]:
        """Stores an edit, says so with the old position, and lets a running tail start from it."""
        tail = self._known(key)
        before: list[str] = []

        def noted(stored: Checkpoint | None) -> Checkpoint:
            before.append(str(stored.seq) if stored else "none")
            changed = replace(change(stored), saved_at=self._clock.wall())
            if stored is not None:
                return changed
            # How often it was edited before is lost. A target's own copy must not outrank this edit,
            # and nobody edits once a minute for ever.
            return replace(changed, generation=max(changed.generation, int(changed.saved_at // 60)))

        edited = self._state.store.edit(tail, noted)
        _log.warning("checkpoint.edited", pillow=str(tail), how=what, before=before[0], seq=str(edited.seq))
        if self._supervisor is not None and tail in self._supervisor.keys:
            self._supervisor.restart(tail)
        return edited.to_json() | {"key": str(tail), "before": before[0]}

    def _told(self, what: str, tail: TailKey) -> dict[str, Any]:
        _log.info("pillow.told", pillow=str(tail), what=what)
        status = next(
            each for each in self._statuses() if (each.pillow, each.source) == (tail.pillow, tail.source)
        )
        return _shown(self._with_saved(status))


def _shown(status: TailStatus) -> dict[str, Any]:
    """A status as JSON values. Tokens are cut: those of 200 tails can be 1 MiB, `checkpoint get` has them."""
    seq = status.seq
    if seq is not None and len(seq) > SEQ_CHARACTERS:
        seq = f"{seq[:SEQ_CHARACTERS]}…"
    return asdict(replace(status, seq=seq))


def _shown_letter(letter: DeadLetter) -> dict[str, Any]:
    return {name: getattr(letter, name) for name in letter.__struct_fields__}


def _at(stored: Checkpoint | None, position: Seq) -> Checkpoint:
    """What is stored, at another position, with the running pass given up."""
    return replace(stored or Checkpoint(seq=position), seq=position, pass_done=True, first_pass=False)

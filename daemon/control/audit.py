"""The audit log: who asked for which operation, recorded before it starts and when it ends.

`STATE_DIR/audit/NUMBER.jsonl`. Each act has two lines with one `id`: `intent`, which is on disk before
anything is done, and its end, `done`, `refused` or `failed`. An intent without an end is an act that a crash
cut short, with an unknown result. Only the process that holds the state directory writes.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import structlog
from gevent.lock import Semaphore
from msgspec import Struct
from msgspec.structs import asdict

from checkpoints import StoreError, StoreWriteError
from checkpoints.files.blocking import run_blocking
from checkpoints.files.directory import sync_directory
from daemon.errors import RequestError
from pillows.clock import Clock
from pillows.errors import PillowError
from pillows.redaction import Redactor

#: A file that reaches this size is closed, and the oldest beyond `FILES` is removed.
FILE_BYTES = 10 * 2**20
FILES = 10
#: Characters of a text in a line: tokens of positions have up to 4 kB.
TEXT_CHARACTERS = 64
#: Entries of a list in a line.
LIST_ENTRIES = 10

#: How an act can end; `unknown` if a crash ended it.
Outcome = Literal["done", "refused", "failed", "unknown"]

_log = structlog.get_logger("pillowd.operator")


class Actor(Struct, frozen=True, kw_only=True):
    """The person or program that asked for an act.

    Attributes:
        via: `unix` or `tcp` (a listener), `cli` (a command on the files), `signal`, or `schedule`.
        uid, pid: the peer's process, if the system reports it.
        token: the name of the client's token.
        address: the client's address.
    """

    via: Literal["unix", "tcp", "http", "cli", "signal", "schedule"]
    uid: int | None = None
    pid: int | None = None
    token: str | None = None
    address: str | None = None

    @classmethod
    def this_process(cls, via: Literal["cli", "signal", "schedule"]) -> Actor:
        """Return this process itself as the actor."""
        return cls(via=via, uid=os.getuid(), pid=os.getpid())

    def to_json(self) -> dict[str, Any]:
        """Return the actor as JSON values, without unknown ones."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class Act:
    """An act whose intent is written.

    Args:
        log: where its end is written.
        id: names it.
        name: the operation's id.
        pillow: which pillow it concerns.

    Attributes:
        before, after: the value that was changed, such as a checkpoint's position; set during the act.
    """

    def __init__(self, log: AuditLog, id: str, name: str, pillow: str | None) -> None:
        self.name, self.pillow = name, pillow
        self.before: Any = None
        self.after: Any = None
        self._log, self._id = log, id
        self._is_open = True

    def end(self, outcome: Outcome, reason: str | None = None) -> None:
        """Write the end, once; a failed write is logged only, since the act is done.

        Args:
            outcome: how it ended.
            reason: why it was refused, or failed.
        """
        if not self._is_open:
            return
        self._is_open = False
        end = {"act": self.name, "pillow": self.pillow, "before": self.before, "after": self.after}
        self._log.write_end(self._id, outcome, end | {"reason": reason})

    def end_with(self, error: BaseException) -> None:
        """Write the end of an act that raised an error: `refused` for a `RequestError`."""
        is_refusal = isinstance(error, RequestError) and error.answer_status < 500
        reason = str(error) if isinstance(error, PillowError | StoreError) else type(error).__name__
        self.end("refused" if is_refusal else "failed", reason)


class AuditLog:
    """Writes acts, and lists them.

    Args:
        folder: of its files; made with the first act.
        clock: for the time of a line.
        redactor: masks secrets in every line.

    Attributes:
        unfinished: the intents without an end that it contained when it was opened, oldest first.
    """

    def __init__(self, folder: Path, clock: Clock, redactor: Redactor | None = None) -> None:
        self._folder = folder
        self._clock = clock
        self._redactor = redactor or Redactor()
        self._turn = Semaphore(1)
        self._is_whole = False
        self.unfinished = find_unfinished(self._files()[-2:])

    def begin(
        self, name: str, *, by: Actor, pillow: str | None = None, details: Mapping[str, Any] | None = None
    ) -> Act:
        """Write the intent of an act. The caller must call its `end` in any case.

        Args:
            name: the operation's id.
            by: who asked for it.
            pillow: which pillow it concerns.
            details: the arguments; long texts and lists are cut.

        Raises:
            StoreWriteError: the intent cannot be written, so nothing may be done.
        """
        id = secrets.token_hex(8)
        intent = {"act": name, "pillow": pillow, "by": by.to_json(), "details": dict(details or {})}
        self._write({"id": id, "phase": "intent", **intent})
        _log.info("operator.act", id=id, **_cut({name: each for name, each in intent.items() if each}))
        return Act(self, id, name, pillow)

    @contextmanager
    def act(
        self, name: str, *, by: Actor, pillow: str | None = None, details: Mapping[str, Any] | None = None
    ) -> Iterator[Act]:
        """Write the intent, have the act done in the `with` block, and write its end; see `begin`.

        Yields:
            the act; set its `before` and `after`.
        """
        act = self.begin(name, by=by, pillow=pillow, details=details)
        try:
            yield act
        except BaseException as error:
            act.end_with(error)
            raise
        act.end("done")

    def write_end(self, id: str, outcome: Outcome, end: Mapping[str, Any]) -> None:
        """Write the end of an act; see `Act.end`."""
        known = {name: each for name, each in end.items() if each is not None}
        _log.info("operator.act_ended", id=id, outcome=outcome, **_cut(known))
        try:
            self._write({"id": id, "phase": outcome, **end})
        except StoreWriteError as error:
            _log.error("audit.not_written", id=id, error=str(error))

    def close_unfinished(self) -> None:
        """Log the acts that a crash cut short, and end them as `unknown`; this run still shows them."""
        for intent in self.unfinished:
            known = {name: intent.get(name) for name in ("id", "at", "act", "pillow", "by")}
            _log.warning("audit.unfinished", **known)
            end = {
                "act": intent.get("act"),
                "pillow": intent.get("pillow"),
                "reason": "pillowd ended meanwhile",
            }
            self.write_end(intent["id"], "unknown", end)

    def read(self, after: str = "", limit: int = 1000) -> tuple[list[dict[str, Any]], str]:
        """Return lines, oldest first, and the place after the last one.

        Args:
            after: a place that an earlier call returned; the beginning if it is empty.
            limit: most lines.

        Raises:
            ValueError: `after` is not a valid place.
        """
        name, _, offset = after.partition("-")
        number, start = (int(name), int(offset)) if after else (0, 0)
        found: list[dict[str, Any]] = []
        for path in self._files():
            if int(path.stem) < number:
                continue
            position = start if int(path.stem) == number else 0
            with path.open("rb") as file:
                file.seek(position)
                for line in file:
                    if len(found) == limit or not line.endswith(b"\n"):
                        return found, f"{path.stem}-{position}"
                    position += len(line)
                    found += filter(None, [_parse(line)])
            after = f"{path.stem}-{position}"
        return found, after

    def _files(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        return sorted(path for path in self._folder.glob("*.jsonl") if path.stem.isdecimal())

    def _write(self, entry: dict[str, Any]) -> None:
        at = datetime.fromtimestamp(self._clock.wall(), UTC).isoformat(timespec="milliseconds")
        masked = self._redactor.redact_value(_cut({"at": at, **entry}))
        line = json.dumps(masked, ensure_ascii=False, separators=(",", ":")) + "\n"
        try:
            with self._turn:
                run_blocking(self._append, line.encode("utf-8", "backslashreplace"))
        except OSError as error:
            raise StoreWriteError(
                f"the audit log in {self._folder} cannot be written: {error.strerror}. "
                "Remedy: make room on the disk, or give this user the folder"
            ) from error

    def _append(self, line: bytes) -> None:
        files = self._files()
        if files and files[-1].stat().st_size < FILE_BYTES:
            path = files[-1]
        else:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            path = self._folder / f"{int(files[-1].stem) + 1 if files else 1:08}.jsonl"
            for old in files[: len(files) - FILES + 1]:
                old.unlink()
        is_new = not path.exists()
        with open(path, "ab+", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            if not self._is_whole and file.tell():
                file.seek(-1, os.SEEK_END)
                line = line if file.read() == b"\n" else b"\n" + line  # a crash cut the last line
            self._is_whole = False
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._is_whole = True
        if is_new:
            sync_directory(self._folder)


def find_unfinished(files: Iterable[Path]) -> list[dict[str, Any]]:
    """Return the intents in these files that no later line ends, oldest first."""
    open_acts: dict[str, dict[str, Any]] = {}
    for path in files:
        with path.open("rb") as lines:
            for entry in filter(None, map(_parse, lines)):
                if entry["phase"] == "intent":
                    open_acts[entry["id"]] = entry
                else:
                    open_acts.pop(entry["id"], None)
    return list(open_acts.values())


def _parse(line: bytes) -> dict[str, Any] | None:
    """Return an entry; None for a line that a crash cut."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and {"id", "phase"} <= entry.keys() else None


def _cut(value: Any) -> Any:
    """Return a value with its long texts and lists cut."""
    if isinstance(value, str):
        return value if len(value) <= TEXT_CHARACTERS else f"{value[:TEXT_CHARACTERS]}…"
    if isinstance(value, Mapping):
        return {name: _cut(child) for name, child in value.items()}
    if isinstance(value, list | tuple):
        cut = [_cut(child) for child in value[:LIST_ENTRIES]]
        return cut if len(value) <= LIST_ENTRIES else [*cut, f"and {len(value) - LIST_ENTRIES} more"]
    return value

"""Read `_db_updates`, the server's feed of databases that were created, updated or deleted.

The feed may lose updates: CouchDB keeps pending ones in the memory of one process, and coalesces them
(`src/global_changes/src/global_changes_server.erl`). Sweeps find the databases whose updates were lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from checkpoints import Seq
from pillows.couch.client import SMALL_ANSWER_BYTES, CouchClient
from pillows.couch.errors import ForbiddenError, MissingError, RejectedError
from pillows.couch.http.response import ActivityMonitor
from pillows.errors import FatalError, RetryableError

#: CouchDB sends a newline at this interval. It sends no headers before the first line.
HEARTBEAT_SECONDS = 15.0

#: Longest line of the feed, in bytes. A name has at most 238 characters, and a token a few thousand.
MAX_LINE_BYTES = 2**17


class Update(msgspec.Struct, frozen=True):
    """One line of the feed.

    Attributes:
        db_name: its name.
        type: `created`, `updated` or `deleted`.
        seq: the position after it.
    """

    db_name: str
    type: str = ""
    seq: str | int | list[object] | None = None


class _Page(msgspec.Struct):
    last_seq: str | int | list[object] | None = None


class NoUpdatesError(FatalError):
    """The server has no `_db_updates`, or refuses it to our user."""


class UpdatesReader:
    """Reads the feed of one server.

    Args:
        couch: the server.
        since: a position of an earlier reading; None for none.

    Attributes:
        since: the position of the last line.
        activity: records every block that arrives, heartbeats included.
    """

    def __init__(self, couch: CouchClient, since: Seq | None = None) -> None:
        self._couch = couch
        self.since = since
        self.activity = ActivityMonitor(couch.clock)

    def begin(self) -> None:
        """Ask for the current position, if there is no earlier one.

        Raises:
            NoUpdatesError: the server has no such feed, or refuses it to our user.
            RetryableError: the server is unreachable or busy.
        """
        with _translated():
            if self.since is None:
                page = self._couch.json(
                    "GET", "/_db_updates?since=now&limit=1&timeout=1", _Page, max_bytes=SMALL_ANSWER_BYTES
                )
                if page.last_seq is None:  # CouchDB 1.x
                    raise NoUpdatesError(
                        "The server's `_db_updates` has no positions.",
                        remedy="upgrade to CouchDB 2.1 or later",
                    )
                self.since = Seq.of(page.last_seq)

    def read(self, on_update: Callable[[Update], None]) -> None:
        """Read until the response ends.

        Args:
            on_update: called with each line.

        Raises:
            NoUpdatesError, RetryableError: as `begin`.
        """
        since = "now" if self.since is None else self.since.query
        query = f"feed=continuous&heartbeat={HEARTBEAT_SECONDS * 1000:.0f}&since={since}"
        rest = b""
        with (
            _translated(),
            self._couch.open(
                "GET", f"/_db_updates?{query}", silent_seconds=HEARTBEAT_SECONDS, activity=self.activity
            ) as response,
        ):
            for block in response.blocks():
                *lines, rest = (rest + block).split(b"\n")
                for line in filter(None, map(bytes.strip, lines)):
                    self._take(line, on_update)
                if len(rest) > MAX_LINE_BYTES:
                    raise RetryableError(f"`_db_updates` sent a line of more than {MAX_LINE_BYTES} bytes.")

    def _take(self, line: bytes, on_update: Callable[[Update], None]) -> None:
        try:
            update = msgspec.json.decode(line, type=Update)
        except (msgspec.DecodeError, UnicodeDecodeError):  # such as the `last_seq` at the end
            return
        on_update(update)
        if update.seq is not None:
            self.since = Seq.of(update.seq)


@contextmanager
def _translated() -> Iterator[None]:
    """Turn the refusals of the feed into `NoUpdatesError`."""
    try:
        yield
    except (MissingError, RejectedError) as error:
        raise NoUpdatesError(
            f"The server has no `_db_updates`: {error.args[0]}",
            remedy="create the database `_global_changes`, or let the proxy in between pass it",
        ) from None
    except ForbiddenError as error:
        raise NoUpdatesError(
            f"The server shows `_db_updates` to administrators only: {error.args[0]}",
            remedy="make the user a server administrator",
        ) from None

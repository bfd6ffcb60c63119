"""Write to a database and to its truth all the time, even while the server fails."""

from __future__ import annotations

import random
import time
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

import gevent
import requests
from gevent.event import Event

from tests.chaos.truth import Document, Truth, is_bad
from tests.servers.couch_client import CouchDatabase

#: Changes that a writer sends at full speed, and its pause between single changes after that.
AT_ONCE, TRICKLE_SECONDS = 400, 0.5

#: Longest wait for a killed server. It is back much sooner, even on a busy machine.
AWAY_SECONDS = 240.0

#: Attempts to draw a possible change: a deleted document, for example, cannot be deleted.
DRAWS = 10

KINDS = {"create": 12, "update": 40, "delete": 9, "revive": 6, "conflict": 6, "resolve": 4}


class Writer:
    """Writes to one database.

    Args:
        database: an existing one.
        seed: of the changes.
        most: most documents.
        batch: most changes in one request.
        pause_seconds: longest pause between two requests.
        at_once: changes to send at full speed after each `resume`. Later ones are slow, so that a slow
            machine does not fall behind.
        purges: whether to purge documents too; pillowd takes seconds to confirm a purge.

    Attributes:
        truth: the documents of the database once no request is in flight.
        counts: kind of change -> how many were drawn.
        sent: number of changes sent.
    """

    def __init__(
        self,
        database: CouchDatabase,
        seed: int,
        *,
        most: int,
        batch: int = 40,
        pause_seconds: float = 0.3,
        at_once: int = AT_ONCE,
        purges: bool = True,
    ) -> None:
        self.truth = Truth()
        self.counts: Counter[str] = Counter()
        self.sent = 0
        self.database = database
        self._random = random.Random(seed)
        self._most = most
        self._batch = batch
        self._pause_seconds = pause_seconds
        self._purges = self._may_purge = purges
        self._ids: list[str] = []
        self._at_once = self._left = at_once
        self._may_write = Event()
        self._idle = Event()
        self._idle.set()
        self._greenlet = gevent.spawn(self._run)

    def resume(self, *, purges: bool = True) -> None:
        """Start or continue to write.

        Args:
            purges: whether to purge; without effect if the writer never purges.

        Raises:
            Exception: the error that ended the writer.
        """
        self._check_running()
        self._left = self._at_once
        self._may_purge = self._purges and purges
        self._may_write.set()

    def pause(self) -> None:
        """Stop writing; return once no request is in flight.

        Raises:
            Exception: the error that ended the writer.
        """
        self._may_write.clear()
        while not self._idle.wait(1.0):
            self._check_running()

    def _check_running(self) -> None:
        if self._greenlet.ready():
            raise self._greenlet.exception or AssertionError("the writer has ended")

    def close(self) -> None:
        self._greenlet.kill()
        self.database.close()

    def heal(self) -> None:
        """Replace the body of each document that some target cannot store."""
        bad = [document for document in self.truth.list_live() if is_bad(document.winner.n)]
        self._send([self.truth.grow(document, document.winner, self._next_good()) for document in bad])

    def write_one(self) -> str:
        """Create one document; return its id."""
        document = self._create()
        self._send([self.truth.grow(document, None, self._next_good())])
        return document.id

    def recreate(self) -> None:
        """Replace the database by a new one of the same name, with other documents."""
        self.pause()
        self._try(self.database.drop if self._try_exists() else lambda: None)
        self._try(self.database.create)
        self.truth.documents.clear()
        self.truth.bad.clear()
        self._ids.clear()
        self.counts["recreate"] += 1
        self._send([self.truth.grow(self._create(), None, self._next_good()) for _ in range(10)])
        self.resume()

    def _run(self) -> None:
        while True:
            self._may_write.wait()
            if not self._may_write.is_set():  # paused before it was our turn
                continue
            self._idle.clear()
            if self._may_purge and self._random.random() < 0.05 and self.truth.documents:
                self._purge()
            else:
                count = self._random.randint(1, self._batch if self._left > 0 else 1)
                self._left -= count
                self._send([change for _ in range(count) if (change := self._draw_possible())])
            self._idle.set()
            pause_seconds = (
                self._pause_seconds if self._left > 0 else max(TRICKLE_SECONDS, self._pause_seconds)
            )
            gevent.sleep(self._random.random() * pause_seconds)

    def _draw_possible(self) -> dict[str, Any] | None:
        """Return a random change; None if `DRAWS` attempts found no possible one."""
        for _ in range(DRAWS):
            if (change := self._draw()) is not None:
                return change
        return None

    def _draw(self) -> dict[str, Any] | None:
        """Draw a kind of change and a document; return the change, or None if it is not possible."""
        kind = self._random.choices(list(KINDS), list(KINDS.values()))[0]
        if kind == "create" or not self._ids:
            if len(self._ids) >= self._most:
                return None
            self.counts["create"] += 1
            return self.truth.grow(self._create(), None, self.truth.next_number())
        # Some documents change all the time, as in life.
        at = int(len(self._ids) * self._random.random() ** 2)
        document = self.truth.documents[self._ids[at]]
        change = self._make_change(document, kind)
        self.counts[kind] += change is not None
        return change

    def _make_change(self, document: Document, kind: str) -> dict[str, Any] | None:
        winner, n = document.winner, self.truth.next_number()
        if kind == "update" and not winner.deleted:
            return self.truth.grow(document, winner, n)
        if kind == "delete" and not winner.deleted:
            return self.truth.grow(document, winner, n, deleted=True)
        if kind == "revive" and winner.deleted:
            return self.truth.grow(document, winner, n)
        if kind == "conflict" and len(document.leaves) < 4:
            return self.truth.grow(document, None, n)
        losers = [leaf for leaf in document.leaves if leaf is not winner and not leaf.deleted]
        if kind == "resolve" and losers:
            return self.truth.grow(document, losers[0], n, deleted=True)
        return None

    def _create(self) -> Document:
        id = f"{self._random.getrandbits(48):012x}-{len(self._ids)}"
        document = self.truth.documents[id] = Document(id)
        self._ids.append(id)
        return document

    def _next_good(self) -> int:
        while is_bad(n := self.truth.next_number()):
            pass
        return n

    def _purge(self) -> None:
        """Purge a document and create it again, with revision number 1."""
        document = self.truth.documents[self._random.choice(self._ids)]
        body = {document.id: [leaf.rev for leaf in document.leaves]}
        self._try(lambda: self.database.request("POST", "/_purge", json=body, timeout=10))
        self.truth.purged.add(document.id)
        document.leaves = []
        self._send([self.truth.grow(document, None, self._next_good())])
        self.counts["purge"] += 1

    def _send(self, changes: list[dict[str, Any]]) -> None:
        if changes:
            # As replication writes: revisions are ours, so the same request may come twice.
            body = {"docs": changes, "new_edits": False}
            self._try(lambda: self.database.request("POST", "/_bulk_docs", json=body, timeout=10))
            self.sent += len(changes)

    def _try_exists(self) -> bool:
        return bool(self._try(lambda: self.database.session.get(self.database.url, timeout=10)).ok)

    def _try(self, attempt: Callable[[], Any]) -> Any:
        """Retry until the server answers: it may just be restarting.

        Raises:
            TimeoutError: the server did not come back.
        """
        until = time.monotonic() + AWAY_SECONDS
        while time.monotonic() < until:
            try:
                return attempt()
            except requests.HTTPError as error:
                if error.response.status_code in (404, 412):
                    return None  # an earlier attempt succeeded
                if error.response.status_code < 500:
                    raise
                gevent.sleep(0.2)  # the server is ending, or the database is being deleted
            except requests.RequestException:
                gevent.sleep(0.2)  # the server is down
        raise TimeoutError(f"{self.database.url} has been away for {AWAY_SECONDS:g} s")


def create_database(server: Any, kind: str) -> CouchDatabase:
    """Create a database with a new name."""
    return CouchDatabase(server.url, f"{kind}-{uuid.uuid4().hex[:8]}", auth=server.auth).create()

"""Writes to a database and to its truth, all the time, whatever happens to the server."""

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

#: A writer's changes before it trickles, and its pause then.
AT_ONCE, TRICKLE_SECONDS = 400, 0.5

#: A server that was killed is back long before, however busy the machine is.
AWAY_SECONDS = 240.0

#: So often a change is drawn: a deleted document cannot be deleted.
DRAWS = 10

KINDS = {"create": 12, "update": 40, "delete": 9, "revive": 6, "conflict": 6, "resolve": 4}


class Writer:
    """One database's writer.

    Args:
        database: it is there.
        seed: of what is written.
        most: documents at most.
        batch: changes in one request, at most.
        pause_seconds: between two requests, at most.
        at_once: after so many changes it only trickles, until it is resumed: a slow machine is not to fall
            behind.
        purges: documents are purged, too; pillowd takes seconds to believe that one went back.

    Attributes:
        truth: what the database holds once no request is on its way.
        counts: how often each kind of change was made.
        sent: how many changes the database was given.
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
        self._going = Event()
        self._idle = Event()
        self._idle.set()
        self._greenlet = gevent.spawn(self._run)

    def resume(self, *, purges: bool = True) -> None:
        """Writes (again).

        Args:
            purges: whether it may purge, if it ever does.

        Raises:
            What has ended the writing.
        """
        self._look()
        self._left = self._at_once
        self._may_purge = self._purges and purges
        self._going.set()

    def pause(self) -> None:
        """Returns once nothing is on its way.

        Raises:
            What has ended the writing.
        """
        self._going.clear()
        while not self._idle.wait(1.0):
            self._look()

    def _look(self) -> None:
        if self._greenlet.ready():
            raise self._greenlet.exception or AssertionError("the writer has ended")

    def close(self) -> None:
        self._greenlet.kill()
        self.database.close()

    def heal(self) -> None:
        """Gives every document that can't be stored everywhere a body that can."""
        bad = [document for document in self.truth.live() if is_bad(document.winner.n)]
        self._send([self.truth.grow(document, document.winner, self._good()) for document in bad])

    def write_one(self) -> str:
        """Creates one document, at once; returns its id."""
        document = self._create()
        self._send([self.truth.grow(document, None, self._good())])
        return document.id

    def recreate(self) -> None:
        """Deletes the database, creates another one under its name, and writes other documents."""
        self.pause()
        self._try(self.database.drop if self._try_exists() else lambda: None)
        self._try(self.database.create)
        self.truth.documents.clear()
        self.truth.bad.clear()
        self._ids.clear()
        self.counts["recreate"] += 1
        self._send([self.truth.grow(self._create(), None, self._good()) for _ in range(10)])
        self.resume()

    def _run(self) -> None:
        while True:
            self._going.wait()
            if not self._going.is_set():  # paused before it was our turn
                continue
            self._idle.clear()
            if self._may_purge and self._random.random() < 0.05 and self.truth.documents:
                self._purge()
            else:
                count = self._random.randint(1, self._batch if self._left > 0 else 1)
                self._left -= count
                self._send([change for _ in range(count) if (change := self._change())])
            self._idle.set()
            pause_seconds = (
                self._pause_seconds if self._left > 0 else max(TRICKLE_SECONDS, self._pause_seconds)
            )
            gevent.sleep(self._random.random() * pause_seconds)

    def _change(self) -> dict[str, Any] | None:
        """A change; nothing in the rare case that what was drawn again and again cannot be done."""
        for _ in range(DRAWS):
            if (change := self._drawn()) is not None:
                return change
        return None

    def _drawn(self) -> dict[str, Any] | None:
        """A change of a kind and a document that were drawn; nothing if they do not go together."""
        kind = self._random.choices(list(KINDS), list(KINDS.values()))[0]
        if kind == "create" or not self._ids:
            if len(self._ids) >= self._most:
                return None
            self.counts["create"] += 1
            return self.truth.grow(self._create(), None, self.truth.next())
        # Some documents change all the time, as in life.
        at = int(len(self._ids) * self._random.random() ** 2)
        document = self.truth.documents[self._ids[at]]
        change = self._changed(document, kind)
        self.counts[kind] += change is not None
        return change

    def _changed(self, document: Document, kind: str) -> dict[str, Any] | None:
        winner, n = document.winner, self.truth.next()
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

    def _good(self) -> int:
        while is_bad(n := self.truth.next()):
            pass
        return n

    def _purge(self) -> None:
        """Purges a document and creates it anew, at generation 1."""
        document = self.truth.documents[self._random.choice(self._ids)]
        body = {document.id: [leaf.rev for leaf in document.leaves]}
        self._try(lambda: self.database.request("POST", "/_purge", json=body, timeout=10))
        self.truth.purged.add(document.id)
        document.leaves = []
        self._send([self.truth.grow(document, None, self._good())])
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
        """Tries until it is done: the server may be being killed.

        Raises:
            TimeoutError: the server did not come back.
        """
        until = time.monotonic() + AWAY_SECONDS
        while time.monotonic() < until:
            try:
                return attempt()
            except requests.HTTPError as error:
                if error.response.status_code in (404, 412):
                    return None  # an earlier try had arrived
                if error.response.status_code < 500:
                    raise
                gevent.sleep(0.2)  # it is being killed, or the database is
            except requests.RequestException:
                gevent.sleep(0.2)  # the server is being killed
        raise TimeoutError(f"{self.database.url} has been away for {AWAY_SECONDS:g} s")


def fresh(server: Any, kind: str) -> CouchDatabase:
    """A new database of a server."""
    return CouchDatabase(server.url, f"{kind}-{uuid.uuid4().hex[:8]}", auth=server.auth).create()

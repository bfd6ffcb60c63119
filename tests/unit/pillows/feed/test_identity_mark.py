"""A database that is recognised by a document of ours in it, where servers do not tell its age."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pillows.errors import RecreatedError
from tests.servers.scripted import HANG, Request, Script, ScriptedServer, chunk, head, json_reply
from tests.support.list_feed import ListFeed
from tests.support.memory_transport import MemoryTransport
from tests.support.tails import Parts, plan
from tests.unit.pillows.feed.wire import MARK, couchdb, feed_of, page, reply, row


class OldCouch:
    """A server before 3.3, which does not tell when a database was created, and takes any position.

    Attributes:
        docs: the numbers of the documents in its database.
        marked: whether our document is there.
        marks: how often it was written.
    """

    def __init__(self, server: ScriptedServer) -> None:
        self.server = couchdb(server, start="0")
        self.marks = 0
        self.recreate(1, 2, 3)
        server.on("GET", MARK, lambda _: json_reply({}, 200 if self.marked else 404))
        server.on("PUT", MARK, self._mark)
        server.on("GET", "/db/_changes", self._changes)

    def recreate(self, *docs: int) -> None:
        self.docs, self.marked, self.created = docs, False, f"{docs}"

    def _mark(self, _: Request) -> Script:
        self.marked, self.marks = True, self.marks + 1
        return json_reply({"ok": True}, 201)

    def _changes(self, request: Request) -> Script:
        if request.query["feed"] != "normal":
            return [head(chunked=True) + chunk(b"\n"), HANG]
        rows = [] if request.query["since"] == self.created else [row(n, None) for n in self.docs]
        return reply(page(rows, self.created))


@pytest.fixture
def couch(scripted_server: Callable[[], ScriptedServer]) -> OldCouch:
    return OldCouch(scripted_server())


def marking(folder: Path, couch: OldCouch, memory: MemoryTransport, **settings: Any) -> Parts:
    def make_feed() -> Any:
        return feed_of(couch.server.url, identity_token=True)

    return plan(folder, ListFeed(), memory, **({"make_feed": make_feed} | settings))


def synced(running: Any, plan_: Parts) -> Any:
    """Runs a tail to the head of its feed; the checkpoint that it leaves."""
    run = running(plan_)
    run.until(lambda: run.tail.state == "live")
    return run.finish()


def test_a_database_recreated_while_nobody_looked_is_noticed(tmp_path, running, couch):
    """Each start once marked whatever database was there, so that none was ever found to be another."""
    memory = MemoryTransport()
    settings = marking(tmp_path, couch, memory)
    assert synced(running, settings).marked

    couch.recreate(8, 9)
    again = running(settings)
    with pytest.raises(RecreatedError):
        again.until(lambda: again.tail.state == "live")
    assert set(memory.live()) == {"doc-1", "doc-2", "doc-3"}
    assert (couch.marked, couch.marks) == (False, 1)


def test_a_recreated_database_that_is_read_anew_is_marked_anew(tmp_path, running, couch):
    memory = MemoryTransport()
    settings = marking(tmp_path, couch, memory, reload_recreated=True)
    synced(running, settings)

    couch.recreate(8, 9)
    assert synced(running, settings).marked
    assert set(memory.live()) == {"doc-8", "doc-9"}
    assert (couch.marked, couch.marks) == (True, 2)


def test_the_mark_may_be_asked_for_once_a_checkpoint_is_there(tmp_path, running, couch):
    """The pillow failed: its database did not have the document, which nobody had written."""
    memory = MemoryTransport()
    before = marking(tmp_path, couch, memory, make_feed=lambda: feed_of(couch.server.url))
    assert not synced(running, before).marked
    assert couch.marks == 0

    after = marking(tmp_path, couch, memory, store=before.store, dead_letters=before.dead_letters)
    assert synced(running, after).marked
    couch.recreate(8, 9)
    again = running(after)
    with pytest.raises(RecreatedError):
        again.until(lambda: again.tail.state == "live")


def test_who_only_asks_which_database_it_is_writes_nothing_into_it(couch):
    """`pillowd check`, and whoever looks for purges, marked a database that was created anew."""
    feed_of(couch.server.url, identity_token=True).identify()
    assert not couch.marked

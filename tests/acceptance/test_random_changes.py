"""Anything that can happen to documents, at random, while a daemon runs: targets equal the source."""

from __future__ import annotations

import random
import signal
import time
from typing import Any

import pytest

from tests.acceptance.process import Pillowd
from tests.acceptance.stores import Rows, couchdb, differences
from tests.acceptance.world import TARGETS, World, live
from tests.servers.couch_client import CouchDatabase
from tests.support.sizes import size

#: Few documents, so that much happens to each; names that paths and JSON must take care of.
IDS = [*(f"d{n}" for n in range(40)), "a/b+c d", "q?x=1&y#z%2F", "lin\ne", "\u2028é", "x" * 300]


class Script:
    """Does random things to documents.

    Args:
        couch: where they are.
        seed: the same does the same.
    """

    def __init__(self, couch: CouchDatabase, seed: int) -> None:
        self.couch = couch
        self.random = random.Random(seed)
        self.leaves: dict[str, set[str]] = {id: set() for id in IDS}
        self.done = 0

    def step(self) -> None:
        """One thing to one document."""
        doing = self.random.choices(
            [self.update, self.delete, self.conflict, self.delete_leaf, self.revive, self.design],
            weights=[10, 3, 4, 4, 2, 1],
        )[0]
        doing(self.random.choice(IDS))
        self.done += 1

    def body(self) -> dict[str, Any]:
        pad = "x" * self.random.choice([0, 10, 500, 20_000])
        return {"n": self.done, "in": self.random.random() < 0.7, "pad": pad}

    def update(self, id: str) -> None:
        self.couch.put(id, self.body())

    def delete(self, id: str) -> None:
        """The winner; a conflict may win then."""
        if winner := self.winner(id):
            self.couch.delete(id, winner)

    def revive(self, id: str) -> None:
        while winner := self.winner(id):
            self.couch.delete(id, winner)
        self.couch.put(id, self.body())

    def conflict(self, id: str) -> None:
        """Another leaf, as replication brings it; it may win at once, be a deletion, or start anew."""
        length = self.random.randint(1, 4)
        revs = [f"{generation}-{self.random.getrandbits(64):016x}" for generation in range(length, 0, -1)]
        self.couch.leaf(id, *revs, deleted=self.random.random() < 0.2, **self.body())

    def delete_leaf(self, id: str) -> None:
        """Any leaf, the winner or not."""
        if leaves := self.live_leaves(id):
            self.couch.delete(id, self.random.choice(leaves))

    def design(self, id: str) -> None:
        self.couch.put("_design/views", views={"a": {"map": f"function(doc) {{ emit({self.done}) }}"}})

    def winner(self, id: str) -> str | None:
        rows = self.couch.request("POST", "/_all_docs", json={"keys": [id]}).json()["rows"]
        value = rows[0].get("value")
        return value["rev"] if value and not value.get("deleted") else None

    def live_leaves(self, id: str) -> list[str]:
        if not self.winner(id):
            return []
        document = self.couch.get(id, conflicts="true")
        return [document["_rev"], *document.get("_conflicts", [])]


def expected(world: World) -> Rows:
    """Every live document that belongs to the set."""
    return {id: row for id, row in couchdb(world.couch).items() if row.body.get("in") is not False}


def wrong(world: World, name: str) -> dict[str, list[str]]:
    want = expected(world)
    found = {target: differences(want, world.read(target, name)) for target in TARGETS}
    return {target: each for target, each in found.items() if each}


def settle(world: World, daemon: Pillowd) -> None:
    """Waits until all targets equal the source."""
    give_up_at = time.monotonic() + 60
    while not live(daemon) or wrong(world, "cases"):
        assert time.monotonic() < give_up_at, wrong(world, "cases")
        time.sleep(0.1)


@pytest.mark.timeout(size(ci=300, proof=1200))
@pytest.mark.parametrize("seed", range(size(ci=1, proof=5)))
def test_targets_follow_whatever_happens_to_documents(world: World, seed: int) -> None:
    """Updates, deletes, revivals, conflicts, winners that change, departures, design documents; kills too."""
    script = Script(world.couch, seed)
    daemon = world.pillowd({"cases": world.pillow("cases", filter={"jmespath": "doc.in != `false`"})}).start()
    for part in range(size(ci=3, proof=10)):
        for _ in range(size(ci=80, proof=500)):
            script.step()
        if part % 2:
            daemon.signal(random.Random(part).choice([signal.SIGKILL, signal.SIGTERM]))
            daemon.ended()
            for _ in range(20):
                script.step()
            daemon.start()
        settle(world, daemon)

    present = expected(world)
    print(f"\nseed {seed}: {script.done} steps, {len(present)} of {len(IDS)} documents left, 3 targets equal")
    assert not any(id.startswith("_design/") for target in TARGETS for id in world.read(target, "cases"))
    assert daemon.stop() == 0
    assert not daemon.events("dead_letter.added")

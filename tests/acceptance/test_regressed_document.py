"""A document is purged and created again: its old state in a target has no lower version than the new one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from tests.acceptance.world import TARGETS, World, live
from tests.servers.couch_client import CouchDatabase

GENERATIONS = 4


def higher(couch: CouchDatabase) -> None:
    for number in range(GENERATIONS):
        couch.put("case", n=number)


def same(couch: CouchDatabase) -> None:
    couch.put("case", n="old")


def deleted(couch: CouchDatabase) -> None:
    higher(couch)
    couch.delete("case")


def conflicting(couch: CouchDatabase) -> None:
    couch.leaf("case", "2-bb", "1-aa", n="b")
    couch.leaf("case", "2-cc", "1-aa", n="c")


def cases() -> Iterator[Any]:
    """Three say most; every combination is tried at full size."""
    for before, ends in product((higher, same, deleted, conflicting), ("there", "deleted")):
        marks = [] if ends == "there" and before is not conflicting else [pytest.mark.proof]
        yield pytest.param(before, ends, id=f"{before.__name__}-{ends}", marks=marks)


@pytest.mark.parametrize(("before", "ends"), list(cases()))
def test_what_was_purged_and_created_anew_reaches_every_target(world: World, before: Any, ends: str) -> None:
    """The new document begins at revision 1, whatever the targets hold of the former one."""
    couch = world.couch
    before(couch)
    couch.put("by-the-way", n=0)
    daemon = world.pillowd({"cases": world.pillow("cases")}).start()
    daemon.wait_for(lambda: live(daemon) and not world.differences("cases"))

    couch.purge("case")
    assert couch.put("case", n="new").startswith("1-")
    if ends == "deleted":
        couch.delete("case")

    daemon.wait_for(lambda: not world.differences("cases"))
    for target in TARGETS:
        bodies = {id: row.body for id, row in world.read(target, "cases").items()}
        expected = {"case": {"n": "new"}} if ends == "there" else {}
        assert bodies == {"by-the-way": {"n": 0}, **expected}
    assert daemon.stop() == 0

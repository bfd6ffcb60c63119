"""Tools for tests of a service: its daemons, somebody who writes, and the comparison."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.acceptance.process import Pillowd
from tests.acceptance.world import World, statuses
from tests.support.waiting import wait_until

MakeDaemon = Callable[..., Pillowd]


def make_for(world: World, servers: Sequence[str], service: str) -> MakeDaemon:
    """Returns what makes daemons of one service, each with a state directory of its own."""
    world.connections["bus"] = {"type": "kafka", "servers": list(servers)}

    def make(pillows: dict[str, Any], **more: Any) -> Pillowd:
        coordination = {"type": "kafka", "connection": "bus", "service": service, "partitions": 4, **more}
        return world.pillowd(pillows, coordination=coordination)

    return make


def pillows_of(world: World) -> dict[str, Any]:
    """The pillow `cases`, into Elasticsearch and PostgreSQL."""
    pillow = world.pillow("cases", "elasticsearch", "postgres")
    pillow["transport"][0]["deletes"] = "tombstone"
    return {"cases": pillow}


def reason(daemon: Pillowd) -> str:
    """The reason of the state of `cases`; of one that is well, how many partitions are here."""
    return str(statuses(daemon).get("cases", {}).get("reason", ""))


def equal(world: World, *targets: str) -> bool:
    """Whether the targets are equal to the source."""
    return world.differences("cases", *(targets or ("postgres", "elasticsearch"))) == {}


class Writer:
    """Writes, edits, deletes and conflicts documents."""

    def __init__(self, world: World, seed: int) -> None:
        self._couch = world.couch
        self._chance = random.Random(seed)
        self._next = 0

    def write(self, count: int) -> None:
        """Writes some documents, in one round of each kind."""
        chance, couch = self._chance, self._couch
        couch.bulk({"_id": f"d{number}", "n": number} for number in range(self._next, self._next + count))
        self._next += count
        known = chance.sample(range(self._next), min(self._next, count // 2))
        for number in known:
            id = f"d{number}"
            match chance.randrange(3):
                case 0:
                    couch.put(id, {"n": -number})
                case 1:
                    couch.leaf(id, f"9-{chance.randrange(16**8):08x}", "8-aa", conflict=True)
                case _ if couch.session.get(f"{couch.url}/{id}", timeout=60).ok:
                    couch.delete(id)

    def write_until(
        self,
        holds: Callable[[], object],
        *,
        seconds: float = 90.0,
        explain: Callable[[], object] = lambda: "",
    ) -> float:
        """Writes until something holds; returns the seconds."""
        began = time.monotonic()
        while not holds():
            assert time.monotonic() - began < seconds, explain()
            self.write(10)
        return time.monotonic() - began


class Service:
    """Three daemons of one service."""

    def __init__(self, make: MakeDaemon, pillows: dict[str, Any]) -> None:
        self.daemons = [make(pillows) for _ in range(3)]
        self.running = list[Pillowd]()

    def counts(self) -> list[int]:
        """How many partitions each running daemon has."""
        found = [re.match(r"(\d+) of \d+ partitions here", reason(each)) for each in self.running]
        return [int(each[1]) if each else -1 for each in found]

    def describe(self) -> str:
        """What each running daemon says, and the end of its log."""
        return "\n".join(f"{statuses(each)}\n{each.log.read_text()[-3000:]}" for each in self.running)

    def start(self, daemon: Pillowd) -> None:
        daemon.start()
        self.running.append(daemon)

    def until_shared(self) -> float:
        """Waits until every partition has a tail, evenly. Returns the seconds."""
        began = time.monotonic()
        wait_until(self.is_even, seconds=90, explain=lambda: str(self.counts()))
        return time.monotonic() - began

    def is_even(self) -> bool:
        counts = self.counts()
        return sum(counts) == 4 and max(counts) - min(counts) <= 1

    def stop(self) -> None:
        assert [each.stop() for each in self.running] == [0] * len(self.running)


def latest_lines(folder: Path) -> dict[str, Any]:
    """The documents that the newest lines of all files leave, by id."""
    lines = [json.loads(line) for file in folder.glob("*.jsonl") for line in file.read_text().splitlines()]
    newest: dict[str, Any] = {}
    for line in lines:
        if line["_id"] not in newest or line["_version"] >= newest[line["_id"]]["_version"]:
            newest[line["_id"]] = line
    return {
        id: {name: value for name, value in line["doc"].items() if name not in ("_id", "_rev")}
        for id, line in newest.items()
        if "doc" in line
    }

"""A random history of a target, compared with a model of it."""

from __future__ import annotations

import random
from typing import Any

from pillows.models import Batch, write_version
from pillows.transports.base import Transport
from tests.conformance.steps import opened, rows
from tests.conformance.target import Target, at, batch, document, gone


class History:
    """A random history of one target, compared with a model: the newest (epoch, version) of each id wins."""

    OUTPUTS = ("docs", "other")

    def __init__(self, target: Target, random: random.Random) -> None:
        self.target = target
        self.random = random
        self.epoch = 1
        self.versions: dict[str, int] = {}
        self.newest: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {}
        self.past: list[Batch] = []

    def play(self, *, steps: int) -> None:
        """Plays, and compares at the end of each life of a transport."""
        while steps > 0:
            lived = min(steps, self.random.randint(3, 10))
            steps -= lived
            with opened(self.target, *self.OUTPUTS, epoch=self.epoch) as transport:
                for _ in range(lived):
                    self._step(transport)
            self._compare()

    def _step(self, transport: Transport) -> None:
        kind = self.random.random()
        if kind < 0.25 and self.past:
            written = self.random.choice(self.past)
        elif kind < 0.3:
            self.epoch += 1
            transport.acquire(at("0", epoch=self.epoch))
            return
        else:
            written = self._new_batch()
            self.past.append(written)
        refused = transport.write(written).refused
        for one in written.documents:
            mine, known = (written.epoch, one.leaf_version), self.newest.get(one.id, ((0, 0), {}))[0]
            assert (one.id in refused) == (mine <= known), (one.id, mine, known)
            if mine > known:
                self.newest[one.id] = (mine, dict(one.rows))
            else:
                assert refused[one.id] == write_version(*known)

    def _new_batch(self) -> Batch:
        ids = self.random.sample([f"id{n}" for n in range(12)], self.random.randint(1, 8))
        return batch(*(self._new_document(id) for id in ids), epoch=self.epoch)

    def _new_document(self, id: str) -> Any:
        version = self.versions[id] = self.versions.get(id, 0) + self.random.randint(1, 3)
        if self.random.random() < 0.3:
            return gone(id, version)
        return document(id, version, {"v": version}, output=self.random.choice(self.OUTPUTS))

    def _compare(self) -> None:
        for output in self.OUTPUTS:
            expected = {id: list(its[output]) for id, (_, its) in self.newest.items() if its.get(output)}
            assert rows(self.target, output) == expected

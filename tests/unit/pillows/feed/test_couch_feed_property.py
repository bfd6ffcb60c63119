"""Whatever a cluster does that it may do, the target ends with the source's content.

The target here is the smallest that keeps the design's promise: it takes a document only at a
higher version, and what was not acknowledged is read again.
"""

from __future__ import annotations

from contextlib import closing
from random import Random
from statistics import median

import gevent
import msgspec
import pytest
from gevent.event import Event
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from checkpoints import Seq
from pillows.models import ChangeBatch
from tests.servers.scripted import ScriptedServer
from tests.support.clock import FakeClock
from tests.support.sizes import size
from tests.unit.pillows.feed.fake_couch import FakeCouch, Nuisance, version, winner
from tests.unit.pillows.feed.wire import feed_of

EXAMPLES = size(ci=25, proof=2000)
SHARES = st.sampled_from([0.05, 0.0, 0.1, 0.3])


class Target:
    """Keeps the newest state of each document."""

    def __init__(self) -> None:
        self.versions: dict[str, int] = {}
        self.docs: dict[str, dict] = {}

    def apply(self, batch: ChangeBatch) -> None:
        for change in batch.changes:
            if change.leaf_version <= self.versions.get(change.id, 0):
                continue
            self.versions[change.id] = change.leaf_version
            if change.deleted:
                self.docs.pop(change.id, None)
            else:
                assert change.raw is not None
                self.docs[change.id] = msgspec.json.decode(change.raw)


def run(couch: FakeCouch, random: Random, url: str, *, crashes: int, **options) -> Target:
    """Reads until everything that will ever be written is acknowledged, with crashes on the way."""
    target, acked = Target(), Seq.BEGINNING
    while True:
        with (
            closing(feed_of(url, clock=FakeClock(), page=100, **options)) as feed,
            closing(feed.batches(acked, None, Event())) as batches,
        ):
            for batch in batches:
                crash = crashes and random.random() < 0.1
                crashes -= bool(crash)
                if crash and random.random() < 0.5:
                    break  # before anything was applied
                target.apply(batch)
                if crash:
                    break  # applied, and never acknowledged
                acked = batch.seq or acked
                for id, leaves in couch.changed_by(str(acked)).items():
                    assert target.versions.get(id, 0) >= version(leaves), "acknowledged and never seen"
                if couch.to_come == 0 and couch.positions(str(acked)) == couch.head():
                    return target


@pytest.mark.timeout(1800)
def test_the_target_equals_the_source_under_shuffles_rewinds_stale_copies_and_cuts():
    seen = []

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
    )
    @given(
        st.integers(0, 2**64),
        st.integers(1, 4),
        st.integers(22, 40),
        st.integers(100, 250),
        st.builds(
            Nuisance,
            rewind=st.sampled_from([0.03, 0.0, 0.1]),
            stale=st.just(0.1),
            cut=SHARES,
            error=st.sampled_from([0.0, 0.1]),
            missing=SHARES,
        ),
        st.sampled_from(["include_docs", "bulk_get", "auto"]),
        st.sampled_from(["continuous", "longpoll"]),
        st.integers(0, 3),
    )
    def example(seed, shards, documents, writes, nuisance, how, mode, crashes):
        random = Random(seed)
        couch = FakeCouch(
            random, shards=shards, documents=documents, nuisance=nuisance, page_rows=random.randint(3, 60)
        )
        couch.to_come = writes
        with ScriptedServer() as server:
            couch.serve(server)
            target = run(couch, random, server.url, crashes=crashes, documents=how, mode=mode)
        live = {id: winner(leaves) for id, leaves in couch.docs.items() if not leaves[winner(leaves)]}
        assert target.docs == {id: couch.body(id, rev) for id, rev in live.items()}
        for name in ("rewinds", "stale", "cuts", "missing"):
            if getattr(couch.seen, name):
                event(name)
        seen.append((len(couch.docs), couch.seen))
        gevent.sleep(0)

    example()
    assert median(documents for documents, _ in seen) >= 20
    assert median(one.rows for _, one in seen) >= 100
    least = size(ci=0.1, proof=0.3)  # of few examples fewer may see it, by chance
    for name in ("rewinds", "stale", "cuts"):
        share = sum(bool(getattr(one, name)) for _, one in seen) / len(seen)
        assert share >= least, f"only {share:.0%} of the examples saw {name}"

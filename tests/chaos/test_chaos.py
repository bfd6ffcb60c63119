"""Nothing is lost, whatever is killed and whatever fails; and the harness would notice."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.faults import FAULTS
from tests.chaos.mutants import MUTANTS
from tests.chaos.plan import Cycle
from tests.chaos.run import Chaos
from tests.chaos.score import ChaosError
from tests.chaos.soak import soak
from tests.chaos.stage import Stage
from tests.conftest import start_for_tests
from tests.servers.couch_peer import CouchPeer
from tests.servers.elasticsearch import Elasticsearch
from tests.servers.postgres import Postgres
from tests.sizes import proving, size

#: Ends of a run that show a planted bug come so often at most.
TRIES = 3


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Any]]:
    """Of our own, to kill."""
    with ExitStack() as stack:
        made = {
            "couch": CouchPeer(admin="chaos:monkey"),
            "postgres": Postgres(),
            "elasticsearch": Elasticsearch(),
        }
        for server in made.values():
            start_for_tests(stack, server)
        yield made


@pytest.fixture
def staged(servers: dict[str, Any], tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    with ExitStack() as stack:

        def build(**more: Any) -> Stage:
            settings = {"seed": 1, "documents": 3000, **servers, **more}
            return stack.enter_context(Stage(tmp_path, **settings))

        yield build


#: How long a machine that is busy with other tests may take for what is promised within 60 and 10 seconds.
PATIENT = {"recovery_seconds": size(ci=300.0, proof=60.0), "probe_seconds": size(ci=120.0, proof=10.0)}


@pytest.mark.proof  # random: what it finds is to be looked at, and not to hold up somebody's unrelated change
@pytest.mark.timeout(3600)
def test_nothing_is_lost_phantom_stale_corrupted_or_resurrected(staged: Callable[..., Stage]) -> None:
    """CHAOS_SEED replays a run; `make chaos` does a longer one and writes it down."""
    seed = int(os.environ.get("CHAOS_SEED") or secrets.randbelow(2**31))
    print(f"\nCHAOS_SEED={seed}")
    score = Chaos(staged(seed=seed), seed, **PATIENT).run(300)

    assert not score.verdict
    assert max(score.stop_seconds) < 10, "under faults too: shutdown_timeout is 8 s"


def drawn() -> list[str]:
    """All planted bugs at full size; two a day otherwise."""
    if proving():
        return list(MUTANTS)
    day = datetime.now(UTC).toordinal()
    return [list(MUTANTS)[(2 * day + n) % len(MUTANTS)] for n in range(2)]


def test_without_a_planted_bug_the_same_is_green(staged: Callable[..., Stage]) -> None:
    chaos = Chaos(staged(purges=False), seed=2, **PATIENT)
    chaos.insist(Cycle(FAULTS["elasticsearch: items busy"], "kill"), 1)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", drawn())
def test_a_planted_bug_is_noticed(staged: Callable[..., Stage], mutant: str) -> None:
    _, fault, end = MUTANTS[mutant]
    # Each step of what shows a bug is waited for, however busy the machine is.
    waits = {"pace_seconds": 1.5, "recovery_seconds": 15.0, "patience_seconds": 3.0, "wait_seconds": 60.0}
    hasty = {"at_once": 100_000, "pause_seconds": 0.03}  # there is always something in the batcher
    chaos = Chaos(staged(mutant=mutant, purges=False, **hasty), seed=2, **waits)
    began = time.monotonic()
    with pytest.raises(ChaosError) as red:
        chaos.insist(Cycle(FAULTS[fault], end), TRIES)
    print(f"\n{mutant}: red after {time.monotonic() - began:.0f} s: {str(red.value)[:300]}")


@pytest.mark.soak
@pytest.mark.timeout(14_400)
def test_under_dense_faults_one_process_stays_as_small_as_it_was(staged: Callable[..., Stage]) -> None:
    minutes = float(os.environ.get("MINUTES") or 20)
    seed = secrets.randbelow(2**31)
    chaos = Chaos(staged(documents=20_000, at_once=10**9), seed)  # never only trickles
    early, late = soak(chaos, seed, minutes)
    print(f"\n{minutes:g} min, {chaos.score.changes:,} changes: {early} early, {late} late")
    assert late.mib <= early.mib * 1.1 + 5
    assert late.descriptors <= early.descriptors + 10
    assert late.threads <= early.threads + 4
    assert late.greenlets <= early.greenlets * 1.1 + 10

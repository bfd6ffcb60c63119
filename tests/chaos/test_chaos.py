"""Test that no crash or fault loses a document, and that the harness would notice a loss."""

from __future__ import annotations

import math
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from docs.measured import write_between_marks
from tests.chaos.faults import FAULTS
from tests.chaos.mutants import MUTANTS
from tests.chaos.note import PAGE, format_soak_table
from tests.chaos.plan import Cycle
from tests.chaos.run import Chaos
from tests.chaos.score import STOP_SECONDS, ChaosError, p99
from tests.chaos.soak import soak
from tests.chaos.stage import Stage
from tests.conftest import start_for_tests
from tests.servers.couchdb.process import CouchDB
from tests.servers.elasticsearch import Elasticsearch
from tests.servers.postgres import Postgres
from tests.support.sizes import proving, size

#: The same commit gets the same verdict: `make test` always plays this run, `make proof` a new one each time.
CI_SEED = 20_261_129

#: A soak of so many minutes is written down.
NOTED_MINUTES = 20

#: Meanwhile what is wrong in the targets may stay the same: 20,000 documents on a busy machine.
REREADING_SECONDS = 300.0

#: Ends of a run that show a planted bug come so often at most.
TRIES = 3


# When a server is killed, the garbage collector closes the sockets of the harness.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Any]]:
    """Servers for these tests alone, which may kill them."""
    with ExitStack() as stack:
        made = {
            "couch": CouchDB(admin="chaos:monkey"),
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


#: 60 and 10 seconds are promised. A machine that is busy with other tests may take longer.
PATIENT = {
    "recovery_seconds": size(ci=300.0, proof=60.0),
    "settled_seconds": size(ci=120.0, proof=60.0),
    "probe_seconds": size(ci=120.0, proof=10.0),
}


@pytest.mark.timeout(3600)
def test_nothing_is_lost_phantom_stale_corrupted_or_resurrected(staged: Callable[..., Stage]) -> None:
    """CHAOS_SEED replays a run; `make chaos` does a longer one and writes it down."""
    seed = int(os.environ.get("CHAOS_SEED") or size(ci=CI_SEED, proof=secrets.randbelow(2**31)))
    print(f"\nCHAOS_SEED={seed}")
    score = Chaos(staged(seed=seed), seed, **PATIENT).run(size(ci=40, proof=300))

    print(f"{score.cycles} cycles, {score.changes:,} changes, {score.checks} comparisons")
    assert not score.verdict
    assert p99(score.stop_seconds) < size(ci=60, proof=STOP_SECONDS), "under faults too"


#: The planted bugs: all at full size, otherwise always the same two. One loses changes when the daemon is
#: killed, the other when it stops cleanly.
PLANTED = list(MUTANTS) if proving() else ["checkpoint before ack", "batch dropped on stop"]

#: A writer that never pauses for long: there is always something in the batcher. It purges nothing.
HASTY = {"at_once": 100_000, "pause_seconds": 0.03, "purges": False}

#: Wait long for each step that shows a bug, since the machine may be busy.
INSISTENT = {"pace_seconds": 1.5, "wait_seconds": 60.0}

#: Longest time with the same differences while the pillows are live or failed: short, since there is a bug.
HASTY_PATIENCE_SECONDS = 5.0


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("mutant", PLANTED[: size(ci=1, proof=len(MUTANTS))])
def test_without_a_planted_bug_the_same_is_green(staged: Callable[..., Stage], mutant: str) -> None:
    """Run the same writers, fault and end, equally often."""
    chaos = Chaos(staged(**HASTY), seed=2, **INSISTENT, **PATIENT)
    chaos.repeat(Cycle(FAULTS[MUTANTS[mutant].fault], MUTANTS[mutant].end), size(ci=1, proof=TRIES))
    assert not chaos.score.verdict


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("mutant", PLANTED)
def test_a_planted_bug_is_noticed(staged: Callable[..., Stage], mutant: str) -> None:
    """The targets must differ; a daemon that ended, hangs or is late does not count."""
    bug = MUTANTS[mutant]
    limits = {**PATIENT, "settled_seconds": HASTY_PATIENCE_SECONDS}
    chaos = Chaos(staged(mutant=mutant, **HASTY), seed=2, **INSISTENT, **limits)
    began = time.monotonic()
    with pytest.raises(ChaosError) as red:
        chaos.repeat(Cycle(FAULTS[bug.fault], bug.end), TRIES)
    taken = time.monotonic() - began

    print(f"\n{mutant}: red after {taken:.0f} s: {str(red.value)[:300]}")
    assert bug.shows & set(chaos.score.verdict.counts), red.value
    assert taken < size(ci=math.inf, proof=30.0)


@pytest.mark.soak
@pytest.mark.timeout(14_400)
def test_under_dense_faults_one_process_stays_as_small_as_it_was(staged: Callable[..., Stage]) -> None:
    minutes = float(os.environ.get("MINUTES") or 20)
    seed = secrets.randbelow(2**31)
    # The writers never slow down; and after a rewound feed, all changes may be read again.
    stage = staged(documents=20_000, at_once=10**9)
    chaos = Chaos(stage, seed, recovery_seconds=REREADING_SECONDS, settled_seconds=REREADING_SECONDS)
    soaked = soak(chaos, seed, minutes)
    text = format_soak_table(soaked, chaos.score, seed=seed)
    print(f"\n{text}")
    if minutes >= NOTED_MINUTES:
        write_between_marks(PAGE, text, mark="soak")
    early, late = soaked.early, soaked.late
    assert late.mib <= early.mib * 1.1 + 5
    assert late.descriptors <= early.descriptors + 10
    assert late.threads <= early.threads + 4
    assert late.greenlets <= early.greenlets * 1.1 + 10

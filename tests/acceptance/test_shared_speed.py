"""Three daemons do more than one, where a transform holds its process."""

from __future__ import annotations

import time

import psycopg
import pytest

from tests.acceptance.process import Pillowd
from tests.acceptance.shared_service import equal, make_for, reason
from tests.acceptance.world import World, statuses
from tests.support.waiting import wait_until

#: Holds the whole process for 2 ms a document, without CPU: the `sleep` of gevent would let others run.
SLOW = """
from gevent import monkey

sleep = monkey.get_original("time", "sleep")


def rows(document):
    sleep(0.002)
    return document
"""
PARTITIONS = 12
DOCUMENTS = 18_000
#: Of the documents: the first come while the partitions start, the last while some of them are done.
BEGIN, END = DOCUMENTS // 6, DOCUMENTS * 7 // 10


def count_here(daemon: Pillowd) -> int:
    """How many partitions a daemon has."""
    words = reason(daemon).split()
    return int(words[0]) if words[-1:] == ["here"] else -1


def measure(world: World, kafka: str, service: str, daemons: int) -> float:
    """Documents per second that so many daemons write together."""
    # Rows are counted as they are committed, so in small batches.
    batch = {"max_docs": 50}
    pillow = world.pillow("cases", "postgres", transform=[{"python": "slow:rows"}], batch=batch)
    make = make_for(world, [kafka], service)
    running = [make({"cases": pillow}, partitions=PARTITIONS).start() for _ in range(daemons)]
    share = PARTITIONS // daemons
    wait_until(
        lambda: [count_here(each) for each in running] == [share] * daemons,
        seconds=90,
        explain=lambda: str([statuses(each) for each in running]),
    )
    world.fill(DOCUMENTS)
    with psycopg.connect(world.postgres_dsn, autocommit=True) as connection:

        def wait_for(documents: int) -> float:
            query = "select count(*) from cases"
            wait_until(lambda: (connection.execute(query).fetchone() or (0,))[0] >= documents, seconds=120)
            return time.monotonic()

        began = wait_for(BEGIN)
        ended = wait_for(END)
        wait_until(lambda: equal(world, "postgres"), seconds=60)
        assert [each.stop() for each in running] == [0] * daemons
        connection.execute("drop table cases")
    world.couch.recreate()
    return (END - BEGIN) / (ended - began)


@pytest.mark.proof
@pytest.mark.timeout(600)
def test_three_daemons_do_at_least_2_4_times_as_much_as_one(
    world: World, kafka: str, kafka_prefix: str
) -> None:
    (world.folder / "slow.py").write_text(SLOW)
    alone = measure(world, kafka, f"{kafka_prefix}one", 1)
    together = measure(world, kafka, f"{kafka_prefix}three", 3)
    print(f"one {alone:.0f}/s, three {together:.0f}/s: {together / alone:.2f} times")
    assert alone <= 500, "each document holds its process for 2 ms"
    assert together / alone >= 2.4

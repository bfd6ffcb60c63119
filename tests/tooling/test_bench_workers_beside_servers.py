"""What is computed from the runs of `python -m bench.workers_beside_servers`."""

from __future__ import annotations

import pytest

from bench.meter import Reading
from bench.workers_beside_servers import TARGETS, compare, find_bound, format_costs

DOCS = 1000


def reading(rate: float, **micros: float) -> Reading:
    """A run at a rate, with each process's CPU microseconds per document."""
    cpu = {process: each * DOCS / 1e6 for process, each in micros.items()}
    return Reading(name="a run", docs=DOCS, wall_seconds=DOCS / rate, cpu_seconds=cpu)


READ = reading(21_000, client=10, couchdb=99)
LOAD = reading(90_000, client=5, postgres=11)


@pytest.mark.parametrize(
    ("read", "load", "cores", "bound"),
    [(READ, LOAD, 2, 2e6 / (99 + 11 + 50)), (READ, LOAD, 64, 21_000), (READ, reading(8_000), 64, 8_000)],
    ids=["the cores", "the raw read", "the raw load"],
)
def test_the_bound_is_the_narrowest(read: Reading, load: Reading, cores: int, bound: float):
    fetching = reading(10_000, client=50, couchdb=120, postgres=20)
    assert find_bound(read, load, fetching, "postgres", cores) == pytest.approx(bound)


def test_rates_are_compared_within_a_round():
    """A slow round slows both runs: the ratio is that of the pairs, and not of the medians."""
    none = [reading(rate, client=20) for rate in (20_000, 10_000, 30_000)]
    given = [reading(rate, client=20) for rate in (19_000, 9_500, 28_500)]
    fetching = [reading(rate, client=50) for rate in (10_000, 9_000, 11_000)]
    cost = compare(TARGETS[0], READ, LOAD, [none, given, fetching], 2)
    assert cost.of_none == pytest.approx(0.95)
    assert cost.of_bound == pytest.approx(10_000 / 12_500)
    assert format_costs([cost]).endswith("| PostgreSQL | 0.95 | 10,000 | 12,500 | 0.80 |")

"""`python -m bench.workers` measures what it says, on few documents."""

from __future__ import annotations

import json

from bench.workers import Measured, Target, compare, format_figures, plot, to_json


def test_a_pair_carries_all_documents_and_gives_every_figure():
    gains = compare(300, [1], 1, Target())
    (figures,) = json.loads(json.dumps(to_json(gains, 2)))
    assert figures["workers"] == 1
    assert figures["worker_us"] > 900  # the transform takes a millisecond of CPU, in the worker
    assert figures["coordinator_us"] < 900
    assert gains[0].none.coordinator_us > 900
    shown = format_figures(gains, 2)
    assert [line.split("|")[1].strip() for line in shown.splitlines() if line.startswith("|")][2:] == [
        "0",
        "1",
    ]
    assert shown.count("Extrapolated, not measured") == 2
    picture = plot(gains, 2)
    assert picture.count('class="line"') == 4
    assert all(f">{each}</text>" in picture for each in ("bound", "measured", "daemon", "workers"))


def test_the_bound_is_the_narrowest_of_coordinator_workers_and_cores():
    found = Measured(workers=2, documents=1000, seconds=1.0, coordinator_us=50.0, worker_us=1000.0)
    assert found.bound(2, 2) == 1e6 / 525
    assert found.bound(2, 64) == 2000
    assert found.bound(63, 64) == 20_000

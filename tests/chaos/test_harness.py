"""Test the parts of the chaos harness."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from docs.measured import write_between_marks
from tests.acceptance.stores import Row
from tests.chaos import note
from tests.chaos.ends import shows_memory_error
from tests.chaos.faults import FAULTS
from tests.chaos.lines import Line, State
from tests.chaos.oracle import judge
from tests.chaos.plan import ENDS, FULL_CYCLES, Cycle, Plan
from tests.chaos.replays import Replays
from tests.chaos.run import Chaos
from tests.chaos.score import SOMETIMES, ChaosError, Score
from tests.chaos.soak import Sizes, SoakResult
from tests.chaos.stage import REPLAY_BOUND, to_original
from tests.chaos.truth import NUL, Document, Truth, make_body
from tests.chaos.writer import Writer
from tests.servers.tcp_proxy import Passed


def test_everything_happens_often_enough_even_if_it_often_comes_to_nothing() -> None:
    for seed in range(20):
        chance = random.Random(seed)
        plan, hit = Plan(chance), Counter[str]()
        for _ in range(FULL_CYCLES):
            cycle = plan.draw()
            struck, ended = chance.random() < 0.75, chance.random() < 0.75
            plan.record(cycle, fault_hit=struck, end_hit=ended)
            hit.update({cycle.fault.name: struck, cycle.end: ended})

        assert plan.find_lacking(hit) == []


def test_the_same_seed_draws_the_same() -> None:
    one, other = Plan(random.Random(3)), Plan(random.Random(3))
    for _ in range(99):
        cycle = one.draw()
        assert other.draw() == cycle
        one.record(cycle, fault_hit=True, end_hit=True)
        other.record(cycle, fault_hit=True, end_hit=True)


def test_what_never_happened_is_named() -> None:
    plan = Plan(random.Random(1))
    hit = Counter(dict.fromkeys([*plan.faults, *ENDS], 9)) - Counter({"couch: killed": 7, "at drain": 9})

    assert plan.find_lacking(hit) == ["couch: killed: 2 of 3", "at drain: 0 of 5"]


def test_an_old_row_that_postgresql_keeps_in_disguise_is_stale_not_corrupted() -> None:
    truth = Truth()
    document = truth.documents["a"] = Document("a")
    truth.grow(document, None, NUL + 5)
    old = truth.make_rows()["a"]
    truth.grow(document, document.winner, NUL + 6)
    stored = {**make_body("a", NUL + 5), "nul": "\x010\x011"}  # as `pillows.transports.postgres.encoder` does

    verdict = judge(truth, {"postgres": {"a": Row(old.rev, old.version, to_original(stored))}})

    assert dict(verdict.counts) == {"stale": 1}


def test_a_writer_nearly_always_finds_something_to_change() -> None:
    """A change that is not possible is drawn again, so a run sends as many changes as it draws."""
    writer = Writer(cast("Any", SimpleNamespace(close=lambda: None)), 1, most=1_000)
    try:
        assert sum(writer._draw_possible() is not None for _ in range(2_000)) >= 1_950
    finally:
        writer.close()


def test_what_is_written_is_read_off_the_line() -> None:
    line = Line(("127.0.0.1", 1))
    epoch, rev = 7 << 40, "3-" + "0" * 32
    copied = f'd\0\0\1a0123456789ab-5\t{rev}\t{epoch + 9}\t{{"n":1}}\n'
    external = '"version_type":"external"'
    bulk = f'{{"index":{{"_id":"0123456789ab-6","version":{epoch + 4},{external}}}}}\n{{}}\n'
    bulk += f'{{"delete":{{"_id":"0123456789ab-7","version":{epoch + 2},{external}}}}}\n'
    line.connections = [Passed(to_server=bytearray(text.encode())) for text in (copied, bulk)]

    assert line.find_written() == {("0123456789ab-5", 9), ("0123456789ab-6", 4), ("0123456789ab-7", 2)}

    line.forget()
    assert line.find_written() == set()


def wrote(*numbers: int) -> dict[str, set[State]]:
    return {"elasticsearch": {(f"doc-{n}", 1) for n in numbers}, "sqlite": set()}


def test_what_is_written_again_after_a_clean_stop_is_trouble() -> None:
    score = Score()
    replays = Replays(score)
    assert replays.count(wrote(1, 2), cycle=None, stopped=True) == "2 written, 0 again"
    assert replays.count(wrote(2, 3), cycle=None, stopped=True) == "2 written, 1 again"
    assert (score.stop_replays, score.replays) == ([1], [0])
    (trouble,) = score.troubles
    assert "after a clean stop 1 were written again: {'elasticsearch': [('doc-2', 1)]}" in trouble


@pytest.mark.parametrize(("end", "most"), [("kill", REPLAY_BOUND), ("power", 2 * REPLAY_BOUND)])
def test_more_than_a_kill_can_explain_is_trouble(end: str, most: int) -> None:
    score = Score()
    replays, cycle = Replays(score), Cycle(FAULTS["none"], end)
    for count in (most + 1, most, most + 1):
        replays.count(wrote(*range(count)), cycle=cycle, stopped=False)
    assert score.replays == [0, most, most + 1]
    assert score.troubles == [f"{most + 1} were written again after a kill, at most {most} may"]


@pytest.mark.parametrize("fault", ["couch: rewound feed", "state: EIO"])
def test_where_reading_again_is_right_nothing_is_counted_until_all_was_compared(fault: str) -> None:
    score = Score()
    replays = Replays(score)
    for cycle in (Cycle(FAULTS["none"], "kill"), Cycle(FAULTS[fault], "kill"), None):
        replays.count(wrote(1, 2, 3), cycle=cycle, stopped=False)
    assert score.replays == [0]
    replays.count(wrote(3, 4), cycle=Cycle(FAULTS["none"], "kill"), stopped=False)
    assert score.replays == [0, 1]


class Unmoved(Chaos):
    """A run whose cycles do nothing."""

    def __init__(self) -> None:
        super().__init__(cast("Any", SimpleNamespace(small_disk=True)), 1, say=lambda _: None)

    def cycle(self, cycle: Cycle) -> None:
        """Record that fault and end took effect."""
        self.score.hit.update([cycle.fault.name, cycle.end])
        self.plan.record(cycle, fault_hit=True, end_hit=True)

    def check(self) -> None:
        """Compare nothing."""

    def check_clean_stops(self) -> None:
        """Stop nothing."""


def test_a_run_that_is_out_of_time_ends() -> None:
    assert Unmoved().run(40, minutes=0).cycles == 0
    assert Unmoved().run(40, minutes=60).cycles == 40


def enough(cycles: int) -> Unmoved:
    """Return a run that meets all requirements after this many cycles."""
    run = Unmoved()
    run.score.events.update(SOMETIMES)
    run.score.replays = [1]
    run.score.changes = 200 * cycles
    run.score.stop_seconds = [0.3] * 99 + [9.9]
    return run


def test_a_full_run_that_comes_to_all_it_must_is_green() -> None:
    assert enough(FULL_CYCLES).run(FULL_CYCLES).cycles == FULL_CYCLES


def test_a_full_run_with_too_few_changes_is_red() -> None:
    run = enough(FULL_CYCLES)
    run.score.changes -= 1
    with pytest.raises(ChaosError, match="changes: 59999 in 300 cycles, 200 each wanted"):
        run.run(FULL_CYCLES)


def test_a_full_run_with_stops_that_take_too_long_is_red() -> None:
    run = enough(FULL_CYCLES)
    run.score.stop_seconds += [10.5, 12.0]
    with pytest.raises(ChaosError, match=r"stops: p99 10.50 s, 10 promised"):
        run.run(FULL_CYCLES)


def test_a_full_run_that_never_changed_its_way_of_reading_is_red() -> None:
    run = enough(FULL_CYCLES)
    del run.score.events["lap.bulk_get"]
    with pytest.raises(ChaosError, match=r"lap.bulk_get: never"):
        run.run(FULL_CYCLES)


def test_a_short_run_need_not_come_to_so_much() -> None:
    run = enough(0)
    run.score.stop_seconds = [12.0]
    assert run.run(40).cycles == 40


@pytest.mark.parametrize(
    ("log", "short"),
    [
        ('{"reason": "MemoryError", "event": "pillow.crashed"}', True),
        ("OSError: [Errno 12] Cannot allocate memory", True),
        ("RuntimeError: can't start new thread", True),
        ('{"reason": "the server has little memory", "event": "retry"}', False),
        ("", False),
    ],
)
def test_memory_was_short_if_the_log_says_so(log: str, short: bool) -> None:
    assert shows_memory_error(log) is short


def test_a_soak_is_written_beside_the_last_run(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    run = "<!-- run: begin -->\n1\n<!-- run: end -->\n"
    page.write_text(f"a\n{run}<!-- soak: begin -->\n<!-- soak: end -->\nz\n")
    soaked = SoakResult(20, Sizes(81.25, 40, 7, 90), Sizes(82.0, 41, 7, 91))
    score = Score(drawn=Counter(a=3), hit=Counter(a=2), changes=12_345, documents=99)

    text = note.format_soak_table(soaked, score, seed=7)
    write_between_marks(page, text, mark="soak")

    for line in (
        "| soak | 20 min, seed 7 |",
        "| changes | 12,345 to 99 documents |",
        "| faults | 2 took effect of 3 |",
        "| MiB | 81.2 early, 82 late |",
        "| descriptors | 40 early, 41 late |",
        "| missing | 0 |",
    ):
        assert line in text.splitlines()
    written = page.read_text()
    assert f"<!-- soak: begin -->\n{text}\n<!-- soak: end -->\nz\n" in written
    assert run in written

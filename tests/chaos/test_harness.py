"""What the harness itself relies on."""

from __future__ import annotations

import random
from collections import Counter

from tests.acceptance.stores import Row
from tests.chaos.lines import Line
from tests.chaos.oracle import judge
from tests.chaos.plan import ENDS, FULL_CYCLES, Plan
from tests.chaos.stage import revealed
from tests.chaos.truth import NUL, Document, Truth, body
from tests.servers.tcp_proxy import Passed


def test_everything_happens_often_enough_even_if_it_often_comes_to_nothing() -> None:
    for seed in range(20):
        chance = random.Random(seed)
        plan, hit = Plan(chance), Counter[str]()
        for _ in range(FULL_CYCLES):
            cycle = plan.draw()
            felt, ended = chance.random() < 0.75, chance.random() < 0.75
            plan.happened(cycle, felt=felt, hit=ended)
            hit.update({cycle.fault.name: felt, cycle.end: ended})

        assert plan.lacking(hit) == []


def test_the_same_seed_draws_the_same() -> None:
    one, other = Plan(random.Random(3)), Plan(random.Random(3))
    for _ in range(99):
        cycle = one.draw()
        assert other.draw() == cycle
        one.happened(cycle, felt=True, hit=True)
        other.happened(cycle, felt=True, hit=True)


def test_what_never_happened_is_named() -> None:
    plan = Plan(random.Random(1))
    hit = Counter(dict.fromkeys([*plan.faults, *ENDS], 9)) - Counter({"couch: killed": 7, "at drain": 9})

    assert plan.lacking(hit) == ["couch: killed: 2 of 3", "at drain: 0 of 5"]


def test_an_old_row_that_postgresql_keeps_in_disguise_is_stale_not_corrupted() -> None:
    truth = Truth()
    document = truth.documents["a"] = Document("a")
    truth.grow(document, None, NUL + 5)
    old = truth.rows()["a"]
    truth.grow(document, document.winner, NUL + 6)
    stored = {**body("a", NUL + 5), "nul": "\x010\x011"}  # as `pillows.transports._postgres_rows` does

    verdict = judge(truth, {"postgres": {"a": Row(old.rev, old.version, revealed(stored))}})

    assert dict(verdict.counts) == {"stale": 1}


def test_what_is_written_is_read_off_the_line() -> None:
    line = Line(("127.0.0.1", 1))
    epoch, rev = 7 << 40, "3-" + "0" * 32
    copied = f'd\0\0\1a0123456789ab-5\t{rev}\t{epoch + 9}\t{{"n":1}}\n'
    external = '"version_type":"external"'
    bulk = f'{{"index":{{"_id":"0123456789ab-6","version":{epoch + 4},{external}}}}}\n{{}}\n'
    bulk += f'{{"delete":{{"_id":"0123456789ab-7","version":{epoch + 2},{external}}}}}\n'
    line.connections = [Passed(to_server=bytearray(text.encode())) for text in (copied, bulk)]

    assert line.written() == {("0123456789ab-5", 9), ("0123456789ab-6", 4), ("0123456789ab-7", 2)}

    line.forget()
    assert line.written() == set()

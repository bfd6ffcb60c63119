"""What a transport says when the target refuses, is away, or the writer is stopped."""

from __future__ import annotations

import gc
import random
import time

import gevent
import pytest

from pillows.models import write_version
from tests.conformance.history import History
from tests.conformance.steps import (
    assert_applied,
    assert_not_final,
    assert_whole,
    opened,
    pair,
    rows,
    write_until_answered,
)
from tests.conformance.target import Target, at, batch, document, gone
from tests.support.sizes import size
from tests.support.waiting import wait_until


class FailureConformance:
    """Dead, busy, cut, killed, closed."""

    def test_one_permanent_failure_among_a_thousand_is_the_only_one_dead(self, target: Target) -> None:
        documents = [document(f"d{n:04}", 1, target.good_row, output="typed") for n in range(1000)]
        documents[613] = document("d0613", 1, target.bad_row, output="typed")
        with opened(target, "typed") as transport:
            result = transport.write(batch(*documents))
            assert set(result.dead) == {"d0613"}
            assert result.dead["d0613"].strip(), "it says why"
            assert not result.retry
            assert not result.refused
            assert set(target.read("typed")) == {d.id for d in documents} - {"d0613"}
            mended = document("d0613", 1, target.good_row, output="typed")
            assert_applied(transport.write(batch(mended)))
        assert len(target.read("typed")) == 1000

    def test_a_dead_version_leaves_the_older_row_and_its_guard(self, target: Target) -> None:
        with opened(target, "typed") as transport:
            transport.write(batch(document("a", 1, target.good_row, output="typed")))
            result = transport.write(batch(document("a", 2, target.bad_row, output="typed")))
        assert set(result.dead) == {"a"}
        assert set(target.read("typed")) == {"a"}
        assert target.write_version("typed", "a") == write_version(1, 1)

    def test_a_busy_target_is_retryable_and_nothing_is_dead(self, target: Target) -> None:
        if not target.busy_faults:
            pytest.skip("this target is never busy")
        for fault in target.busy_faults:
            written = batch(document(f"{fault}-a", 1, {"n": 1}), document(f"{fault}-b", 1, {"n": 2}))
            with opened(target, "docs") as transport:
                with target.busy(fault):
                    assert_not_final(transport, written)
                assert_applied(write_until_answered(transport, written))
            assert rows(target)[f"{fault}-a"] == [{"n": 1}], fault
            assert rows(target)[f"{fault}-b"] == [{"n": 2}], fault

    def test_a_lost_connection_is_retryable_and_the_repeated_write_converges(self, target: Target) -> None:
        """Whether the target had applied the batch is not known; writing it again must be right."""
        if not target.cut_places:
            pytest.skip("this target has no connection")
        for place in target.cut_places:
            first, changed, deleted = f"{place}-new", f"{place}-changed", f"{place}-deleted"
            with opened(target, "docs") as transport:
                transport.write(batch(document(changed, 1, {"n": 1}), document(deleted, 1, {"n": 1})))
                written = batch(
                    document(first, 1, {"n": 2}), document(changed, 2, {"n": 2}), gone(deleted, 2)
                )
                with target.cut(place):
                    assert_not_final(transport, written)
                result = write_until_answered(transport, written)
                assert not result.dead
                assert not result.retry
                assert set(result.refused.values()) <= {write_version(1, 1), write_version(1, 2)}, place
            stored = rows(target)
            assert (stored[first], stored[changed]) == ([{"n": 2}], [{"n": 2}]), place
            assert deleted not in stored, place

    # A client that is killed while it connects leaves the socket to Python's collector, which closes it.
    @pytest.mark.filterwarnings("ignore:unclosed <:ResourceWarning")
    def test_a_stop_in_mid_write_leaves_whole_documents(self, target: Target) -> None:
        outputs = ("docs", "lines") if target.has_many else ("docs", "other")
        for delay_seconds in (0.0, 0.002, 0.01, 0.03, 0.1):
            with opened(target, *outputs) as transport:
                before = [pair(f"k{delay_seconds}-{n}", 1, outputs[1]) for n in range(300)]
                after = [pair(d.id, 2, outputs[1]) for d in before]
                transport.write(batch(*before))
                writer = gevent.spawn(transport.write, batch(*after))
                gevent.sleep(delay_seconds)
                writer.kill(timeout=60)
                assert writer.dead
                assert_whole(target, [d.id for d in before], outputs)
                write_until_answered(transport, batch(*after))
            for stored in [rows(target, output) for output in outputs]:
                assert all(stored[d.id] == [{"n": 2}] for d in after)

    # A client that is killed while it connects leaves the socket to Python's collector, which closes it.
    @pytest.mark.filterwarnings("ignore:unclosed <:ResourceWarning")
    def test_a_stop_in_mid_write_does_not_hold_up_the_next_transport(self, target: Target) -> None:
        many = [document(f"d{n}", 1, {"n": n}) for n in range(500)]
        transport = target.transport("docs")
        transport.open()
        transport.acquire(at("0"))
        writer = gevent.spawn(transport.write, batch(*many))
        gevent.sleep(0.005)
        writer.kill(timeout=60)
        transport.close()
        with opened(target, "docs") as second:
            write_until_answered(second, batch(*many))
        assert len(rows(target)) == 500

    def test_no_connection_is_left_open_after_close(self, target: Target) -> None:
        before = target.open_connections()
        with opened(target, "docs") as transport:
            transport.write(batch(document("a", 1, {"n": 1})))
            transport.finish_pass(1)
        transport.close()
        target.transport("docs").close()
        del transport
        gc.collect()
        wait_until(lambda: target.open_connections() <= before)

    def test_the_hub_goes_on_during_a_write(self, target: Target) -> None:
        """A write of 2,000 documents lets other greenlets run, and no turn computes for long."""
        turns_seconds = []

        def tick() -> None:
            last = time.thread_time()
            while True:
                gevent.sleep(0.005)
                now = time.thread_time()
                turns_seconds.append(now - last)
                last = now

        with opened(target, "docs") as transport:
            ticking = gevent.spawn(tick)
            transport.write(batch(*(document(f"d{n}", 1, {"n": n, "t": "x" * 300}) for n in range(2000))))
            ticking.kill()
        assert turns_seconds, "nothing else ran meanwhile"
        assert max(turns_seconds) < size(ci=0.5, proof=0.2)

    def test_the_outputs_digest_is_stable(self, target: Target) -> None:
        assert target.transport("docs").outputs_digest() == target.transport("docs").outputs_digest()

    @pytest.mark.parametrize("seed", range(3))
    def test_any_history_converges_to_the_newest_versions(self, target: Target, seed: int) -> None:
        """Random writes, deletes, moves, replays of old batches, reopenings and raised epochs."""
        History(target, random.Random(seed)).play(steps=40)

"""The suite that every keyed transport passes against its real target.

A transport's test class inherits it and gives one fixture, `target` (see `tests.targets.Target`):

    class TestSqlite(TransportConformance):
        @pytest.fixture
        def target(self, tmp_path):
            return SqliteTarget(tmp_path / "target.db")

Each test writes through the transport and reads with the target's own client, never through the
transport. What a target cannot do by its nature it says in the attributes of its `Target`.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import msgspec
import pytest

from pillows.errors import FencedError, RetryableError
from pillows.models import Batch, WriteResult, guard
from pillows.transports.base import Transport
from tests.targets import OTHER_KEY, Target, at, batch, document, gone

#: Ids that CouchDB takes and careless writers break on.
AWKWARD_IDS = [
    "a/b",
    "a+b c%20d",
    "line\nbreak",
    "para\u2028graph",
    "quote'\"`",
    "tab\there",
    "back\\slash\\n\\N\\.",
    "naïve-名前-🦉",
    " spaces ",
    "{}",
    "null",
    "x" * 4096,
]


class TransportConformance:
    """Inherit this, and give a fixture `target`."""

    @pytest.fixture
    def target(self) -> Target:
        raise NotImplementedError("the subclass gives the target")

    # ------------------------------------------------------------------ insert, replace, delete

    def test_inserts_and_replaces(self, target: Target) -> None:
        with opened(target, "docs") as transport:
            assert_applied(transport.write(batch(document("a", 1, {"n": 1}), document("b", 1, {"n": 2}))))
            assert_applied(transport.write(batch(document("a", 2, {"m": 3}))))
        assert rows(target) == {"a": [{"m": 3}], "b": [{"n": 2}]}
        assert target.guard("docs", "a") == guard(1, 2)
        assert target.guard("docs", "b") == guard(1, 1)

    def test_keeps_raw_and_mapping_rows_of_every_json_type(self, target: Target) -> None:
        value = {
            "text": "naïve 名前 🦉 \u2028 \\ \" ' \n \t \x7f",
            "number": -12.5,
            "large": 2**53,
            "yes": True,
            "nothing": None,
            "nested": {"list": [{"a": 1}, {"a": [2, {"b": None}]}], "": {}},
        }
        with opened(target, "docs") as transport:
            raw = document("raw", 1, msgspec.json.encode({"_id": "raw", "_rev": "1-a"} | value))
            assert_applied(transport.write(batch(raw, document("mapping", 1, value))))
        assert rows(target) == {"raw": [value], "mapping": [value]}

    def test_a_nul_character_is_stored_or_dead_and_never_breaks_its_batch(self, target: Target) -> None:
        with opened(target, "docs") as transport:
            nul = document("nul", 1, b'{"text": "a\\u0000b"}')
            result = transport.write(batch(nul, document("fine", 1, {"n": 1})))
        assert not result.retry
        assert set(rows(target)) | set(result.dead) == {"nul", "fine"}
        assert "fine" in rows(target)

    def test_a_delete_removes_every_row_and_keeps_the_guard(self, target: Target) -> None:
        with opened(target, "docs", "other") as transport:
            transport.write(batch(document("a", 1, {"n": 1}, other=[{"n": 2}])))
            assert_applied(transport.write(batch(gone("a", 2))))
        assert rows(target) == {}
        assert rows(target, "other") == {}
        assert target.guard("docs", "a") == guard(1, 2)

    def test_a_delete_of_a_missing_id_is_applied(self, target: Target) -> None:
        with opened(target, "docs") as transport:
            assert_applied(transport.write(batch(gone("never-seen", 2))))
            refused = transport.write(batch(document("never-seen", 1, {"n": 1})))
        assert refused.refused == {"never-seen": guard(1, 2)}
        assert rows(target) == {}

    def test_the_first_pass_leaves_no_tombstones_for_what_was_never_there(self, target: Target) -> None:
        with opened(target, "docs") as transport:
            transport.write(batch(document("seen", 1, {"n": 1}), first_pass=True))
            result = transport.write(batch(gone("never", 2), gone("seen", 2), first_pass=True))
        assert_applied(result)
        assert rows(target) == {}
        assert target.guard("docs", "never") is None
        assert target.guard("docs", "seen") == guard(1, 2)

    def test_an_empty_batch_changes_nothing(self, target: Target) -> None:
        with opened(target, "docs") as transport:
            assert_applied(transport.write(batch()))
        assert rows(target) == {}

    # ------------------------------------------------------------------ the guard

    def test_a_replay_of_an_equal_version_is_refused_with_the_equal_guard(self, target: Target) -> None:
        again = batch(document("a", 3, {"n": 1}), gone("b", 4))
        with opened(target, "docs") as transport:
            assert_applied(transport.write(again))
            result = transport.write(again)
            assert result == WriteResult(refused={"a": guard(1, 3), "b": guard(1, 4)})
        assert rows(target) == {"a": [{"n": 1}]}

    def test_an_older_version_is_refused_with_the_stored_guard(self, target: Target) -> None:
        with opened(target, "docs") as transport:
            transport.write(batch(document("a", 5, {"n": 5})))
            result = transport.write(batch(document("a", 4, {"n": 4}), document("new", 1, {"n": 1})))
        assert result == WriteResult(refused={"a": guard(1, 5)})
        assert rows(target) == {"a": [{"n": 5}], "new": [{"n": 1}]}

    def test_an_older_delete_is_refused(self, target: Target) -> None:
        with opened(target, "docs") as transport:
            transport.write(batch(document("a", 5, {"n": 5})))
            assert transport.write(batch(gone("a", 4))).refused == {"a": guard(1, 5)}
        assert rows(target) == {"a": [{"n": 5}]}

    def test_an_older_version_does_not_resurrect_a_deleted_document(self, target: Target) -> None:
        with opened(target, "docs") as transport:
            transport.write(batch(document("a", 1, {"n": 1})))
            transport.write(batch(gone("a", 2)))
            assert transport.write(batch(document("a", 1, {"n": 1}))).refused == {"a": guard(1, 2)}
            assert rows(target) == {}
            assert_applied(transport.write(batch(document("a", 3, {"n": 3}))))
        assert rows(target) == {"a": [{"n": 3}]}

    def test_an_older_version_is_refused_after_a_restart_of_the_target(self, target: Target) -> None:
        with opened(target, "docs") as transport:
            transport.write(batch(document("a", 5, {"n": 5}), document("d", 5, {"n": 5})))
            transport.write(batch(gone("d", 6)))
        target.restart()
        with opened(target, "docs") as transport:
            result = write_until_answered(
                transport, batch(document("a", 4, {"n": 4}), document("d", 5, {"n": 5}))
            )
        assert result.refused["a"] == guard(1, 5)
        if target.remembers_deletes:
            assert result.refused["d"] == guard(1, 6)
            assert rows(target) == {"a": [{"n": 5}]}

    @pytest.mark.parametrize("order", [1, -1], ids=["older-first", "newer-first"])
    def test_of_two_versions_in_a_batch_the_newer_counts(self, target: Target, order: int) -> None:
        """The batcher hands over one entry an id; a transport must not depend on it."""
        both = [document("a", 1, {"n": 1}), document("a", 2, {"n": 2})][::order]
        with_delete = [document("b", 1, {"n": 1}), gone("b", 2)][::order]
        with opened(target, "docs") as transport:
            assert_applied(transport.write(batch(*both, *with_delete)))
        assert rows(target) == {"a": [{"n": 2}]}
        assert target.guard("docs", "a") == guard(1, 2)

    # ------------------------------------------------------------------ ids and sizes

    def test_awkward_ids_are_stored_or_dead_never_lost(self, target: Target) -> None:
        """A target with a limit names the document and the limit; the others are written."""
        with opened(target, "docs") as transport:
            written = batch(*(document(id, 1, {"id": id}) for id in AWKWARD_IDS))
            result = transport.write(written)
            assert not result.retry
            stored = rows(target)
            assert stored == {id: [{"id": id}] for id in AWKWARD_IDS if id not in result.dead}
            assert all(result.dead.values())
            assert set(result.dead) <= {"x" * 4096}, "only an id's length is a reason"
            transport.write(batch(*(gone(id, 2) for id in stored)))
        assert rows(target) == {}

    def test_a_document_of_five_megabytes(self, target: Target) -> None:
        large = {"text": "0123456789abcdé\n" * (5 * 2**20 // 17)}
        with opened(target, "docs") as transport:
            result = transport.write(batch(document("small", 1, {"n": 1}), document("large", 1, large)))
        assert_applied(result)
        assert rows(target) == {"small": [{"n": 1}], "large": [large]}

    # ------------------------------------------------------------------ what fails

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
        assert target.guard("typed", "a") == guard(1, 1)

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
                assert set(result.refused.values()) <= {guard(1, 1), guard(1, 2)}, place
            stored = rows(target)
            assert (stored[first], stored[changed]) == ([{"n": 2}], [{"n": 2}]), place
            assert deleted not in stored, place

    # ------------------------------------------------------------------ a document owns its rows

    def test_fewer_child_rows_leave_none_of_the_old_ones(self, target: Target) -> None:
        if not target.has_many:
            pytest.skip("a document has at most one row in an output of this target")
        three = [{"line": 1}, {"line": 2}, {"line": 3}]
        with opened(target, "docs", "lines") as transport:
            transport.write(batch(document("a", 1, {"n": 1}, lines=three)))
            assert rows(target, "lines") == {"a": three}
            assert_applied(transport.write(batch(document("a", 2, {"n": 1}, lines=three[1:2]))))
            assert rows(target, "lines") == {"a": three[1:2]}
            assert transport.write(batch(document("a", 1, {"n": 1}, lines=three))).refused
            assert rows(target, "lines") == {"a": three[1:2]}
            assert_applied(transport.write(batch(document("a", 3, {"n": 1}))))
        assert rows(target, "lines") == {}
        assert rows(target) == {"a": [{"n": 1}]}

    def test_moving_between_outputs_leaves_nothing_behind(self, target: Target) -> None:
        with opened(target, "docs", "other") as transport:
            transport.write(batch(document("a", 1, {"n": 1})))
            assert_applied(transport.write(batch(document("a", 2, {"n": 2}, output="other"))))
            assert rows(target) == {}
            assert rows(target, "other") == {"a": [{"n": 2}]}
            refused = transport.write(batch(document("a", 1, {"n": 1})))
            assert refused.refused == {"a": guard(1, 2)}
            assert_applied(transport.write(batch(document("a", 3, {"n": 3}))))
        assert rows(target) == {"a": [{"n": 3}]}
        assert rows(target, "other") == {}

    def test_rows_of_an_output_that_it_does_not_have_are_not_its(self, target: Target) -> None:
        """Another transport of the pillow may have that output."""
        with opened(target, "docs") as transport:
            transport.write(batch(document("a", 1, {"n": 1}, elsewhere=[{"n": 2}])))
            assert_applied(transport.write(batch(document("a", 2, {"n": 2}, output="elsewhere"))))
        assert rows(target) == {}
        assert target.guard("docs", "a") == guard(1, 2)

    # ------------------------------------------------------------------ epochs and passes

    def test_a_raised_epoch_outranks_every_version(self, target: Target) -> None:
        with opened(target, "docs") as transport:
            transport.write(batch(document("a", 90, {"n": 90})))
            transport.claim(at("0", epoch=2))
            assert_applied(transport.write(batch(document("a", 1, {"n": 1}), epoch=2)))
        assert rows(target) == {"a": [{"n": 1}]}
        assert target.guard("docs", "a") == guard(2, 1)

    def test_a_lowered_epoch_is_refused_with_the_stored_guard(self, target: Target) -> None:
        with opened(target, "docs", epoch=3) as transport:
            transport.write(batch(document("a", 1, {"n": 3}), gone("b", 1), epoch=3))
        with opened(target, "docs") as transport:
            result = transport.write(batch(document("a", 9, {"n": 9}), document("b", 9, {"n": 9}), epoch=2))
        assert result == WriteResult(refused={"a": guard(3, 1), "b": guard(3, 1)})
        assert rows(target) == {"a": [{"n": 3}]}

    def test_completing_a_pass_removes_rows_of_lower_epochs(self, target: Target) -> None:
        with opened(target, "docs", "other") as transport:
            phantoms = [document(f"p{n}", 1, {"n": n}) for n in range(3)]
            transport.write(batch(*phantoms, document("kept", 1, {"n": 1}), gone("was", 1)))
            transport.write(batch(document("there", 1, {"n": 1}, output="other")))
            transport.claim(at("0", epoch=2))
            transport.write(batch(document("kept", 1, {"n": 1}), document("p2", 2, {"n": 2}), epoch=2))
            transport.write(batch(gone("p2", 3), epoch=2))
            assert set(rows(target)) == {"kept", "p0", "p1"}, "until then they stay visible"
            assert transport.complete_pass(2) == 3
            assert transport.complete_pass(2) == 0
        assert rows(target) == {"kept": [{"n": 1}]}
        assert rows(target, "other") == {}
        assert target.guard("docs", "p2") == guard(2, 3)

    def test_completing_a_pass_removes_child_rows_of_lower_epochs(self, target: Target) -> None:
        if not target.has_many:
            pytest.skip("a document has at most one row in an output of this target")
        with opened(target, "lines") as transport:
            two = [{"line": 1}, {"line": 2}]
            transport.write(batch(*(document(id, 1, *two, output="lines") for id in ("old", "kept"))))
            transport.claim(at("0", epoch=2))
            transport.write(batch(document("kept", 1, *two, output="lines"), epoch=2))
            assert transport.complete_pass(2) == 2
        assert rows(target, "lines") == {"kept": two}

    def test_completing_a_pass_leaves_another_tail_alone(self, target: Target) -> None:
        with opened(target, "docs") as mine, opened(target, "other", key=OTHER_KEY) as theirs:
            mine.write(batch(document("a", 1, {"n": 1})))
            theirs.write(batch(document("a", 7, {"n": 7}, output="other"), gone("b", 7)))
            mine.claim(at("0", epoch=2))
            assert mine.complete_pass(2) == 1
            assert rows(target, "other") == {"a": [{"n": 7}]}
            again = theirs.write(batch(document("b", 6, {"n": 6}, output="other")))
        assert again.refused == {"b": guard(1, 7)}
        assert rows(target) == {}

    # ------------------------------------------------------------------ standing and checkpoint

    def test_a_new_target_is_empty_and_knows_no_epoch(self, target: Target) -> None:
        transport = target.transport("docs")
        standing = transport.open()
        transport.close()
        assert (standing.empty, standing.epoch, standing.checkpoint) == (True, None, None)

    def test_epoch_and_rows_are_known_after_reopening(self, target: Target) -> None:
        with opened(target, "docs", epoch=3) as transport:
            transport.write(batch(document("a", 1, {"n": 1}), epoch=3))
        with opened(target, "docs", claim=False) as transport:
            assert (transport.standing.epoch, transport.standing.empty) == (3, False)
            transport.claim(at("0", epoch=2))
        with opened(target, "docs", claim=False) as transport:
            assert transport.standing.epoch == 3, "an epoch is never lowered"

    def test_the_epoch_is_durable_before_the_first_write(self, target: Target) -> None:
        with opened(target, "docs", epoch=4):
            pass
        with opened(target, "docs", claim=False) as transport:
            assert (transport.standing.epoch, transport.standing.empty) == (4, True)

    def test_the_checkpoint_is_saved_with_the_rows(self, target: Target) -> None:
        only_transactional(target)
        with opened(target, "docs") as transport:
            transport.write(batch(document("a", 1, {"n": 1}), checkpoint=at("7-x")))
        with opened(target, "docs", claim=False) as transport:
            assert transport.standing.checkpoint == at("7-x")

    def test_a_claim_saves_the_operators_checkpoint(self, target: Target) -> None:
        only_transactional(target)
        with opened(target, "docs") as transport:
            transport.write(batch(checkpoint=at("7-x")))
            transport.claim(at("3-x", generation=1))
        with opened(target, "docs", claim=False) as transport:
            assert transport.standing.checkpoint == at("3-x", generation=1)

    def test_a_replayed_batch_still_saves_its_checkpoint(self, target: Target) -> None:
        only_transactional(target)
        with opened(target, "docs") as transport:
            transport.write(batch(document("a", 1, {"n": 1})))
            transport.write(batch(document("a", 1, {"n": 1}), checkpoint=at("8-x")))
        with opened(target, "docs", claim=False) as transport:
            assert transport.standing.checkpoint == at("8-x")

    @pytest.mark.parametrize("trouble", ["dead", "newer-stored"])
    def test_no_checkpoint_past_a_document_in_trouble(self, target: Target, trouble: str) -> None:
        """A crash before the dead letter is stored, or the refusal looked at, must read it again."""
        only_transactional(target)
        row = target.bad_row if trouble == "dead" else target.good_row
        with opened(target, "typed") as transport:
            if trouble != "dead":
                transport.write(batch(document("a", 2, target.good_row, output="typed")))
            transport.write(batch(checkpoint=at("7-x")))
            fine = document("b", 1, target.good_row, output="typed")
            transport.write(batch(document("a", 1, row, output="typed"), fine, checkpoint=at("8-x")))
            assert "b" in target.read("typed")
            with opened(target, "typed", claim=False) as second:
                assert second.standing.checkpoint == at("7-x")
            assert_applied(transport.write(batch(checkpoint=at("8-x"))))
        with opened(target, "typed", claim=False) as transport:
            assert transport.standing.checkpoint == at("8-x")

    def test_an_earlier_owner_is_fenced(self, target: Target) -> None:
        only_transactional(target)
        with opened(target, "docs") as earlier:
            earlier.write(batch(document("a", 1, {"n": 1})))
            with opened(target, "docs") as later:
                with pytest.raises(FencedError):
                    earlier.write(batch(document("a", 2, {"n": 2}), checkpoint=at("9-x")))
                with pytest.raises(FencedError):
                    earlier.complete_pass(2)
                assert_applied(later.write(batch(document("a", 3, {"n": 3}))))
        assert rows(target) == {"a": [{"n": 3}]}

    # ------------------------------------------------------------------ stop, close, and all of it

    def test_a_stop_in_mid_write_leaves_whole_documents(self, target: Target) -> None:
        outputs = ("docs", "lines") if target.has_many else ("docs", "other")
        for delay_seconds in (0.0, 0.002, 0.01, 0.03, 0.1):
            with opened(target, *outputs) as transport:
                before = [pair(f"k{delay_seconds}-{n}", 1, outputs[1]) for n in range(300)]
                after = [pair(d.id, 2, outputs[1]) for d in before]
                transport.write(batch(*before))
                writer = gevent.spawn(transport.write, batch(*after))
                gevent.sleep(delay_seconds)
                writer.kill(timeout=20)
                assert writer.dead
                assert_whole(target, [d.id for d in before], outputs)
                write_until_answered(transport, batch(*after))
            for stored in [rows(target, output) for output in outputs]:
                assert all(stored[d.id] == [{"n": 2}] for d in after)

    def test_a_stop_in_mid_write_does_not_hold_up_the_next_transport(self, target: Target) -> None:
        many = [document(f"d{n}", 1, {"n": n}) for n in range(500)]
        transport = target.transport("docs")
        transport.open()
        transport.claim(at("0"))
        writer = gevent.spawn(transport.write, batch(*many))
        gevent.sleep(0.005)
        writer.kill(timeout=20)
        transport.close()
        with opened(target, "docs") as second:
            write_until_answered(second, batch(*many))
        assert len(rows(target)) == 500

    def test_no_connection_is_left_open_after_close(self, target: Target) -> None:
        before = target.open_connections()
        with opened(target, "docs") as transport:
            transport.write(batch(document("a", 1, {"n": 1})))
            transport.complete_pass(1)
        transport.close()
        target.transport("docs").close()
        del transport
        gc.collect()
        wait_until(lambda: target.open_connections() <= before)

    def test_the_hub_goes_on_during_a_write(self, target: Target) -> None:
        """A write of 2,000 documents never keeps other greenlets waiting for long."""
        gaps = []

        def tick() -> None:
            last = gevent.get_hub().loop.now()
            while True:
                gevent.sleep(0.005)
                gevent.get_hub().loop.update_now()
                now = gevent.get_hub().loop.now()
                gaps.append(now - last)
                last = now

        with opened(target, "docs") as transport:
            ticking = gevent.spawn(tick)
            transport.write(batch(*(document(f"d{n}", 1, {"n": n, "t": "x" * 300}) for n in range(2000))))
            ticking.kill()
        assert len(gaps) > 2
        assert max(gaps) < 0.5

    def test_the_outputs_digest_is_stable(self, target: Target) -> None:
        assert target.transport("docs").outputs_digest() == target.transport("docs").outputs_digest()

    @pytest.mark.parametrize("seed", range(3))
    def test_any_history_converges_to_the_newest_versions(self, target: Target, seed: int) -> None:
        """Random writes, deletes, moves, replays of old batches, reopenings and raised epochs."""
        History(target, random.Random(seed)).play(steps=40)


# ---------------------------------------------------------------------- what the tests share


@contextmanager
def opened(target: Target, *outputs: str, epoch: int = 1, claim: bool = True, **more: Any) -> Iterator[Any]:
    """An open transport, its standing at `.standing`; claimed under `epoch` unless told not to."""
    transport: Any = target.transport(*outputs, **more)
    try:
        transport.standing = transport.open()
        if claim:
            transport.claim(at("0", epoch=epoch))
        yield transport
    finally:
        transport.close()


def rows(target: Target, output: str = "docs") -> dict[str, list[dict[str, Any]]]:
    """What the target holds, without the fields that CouchDB and pillowd add."""
    return {
        id: [{k: v for k, v in row.items() if k not in {"_id", "_rev", "_version"}} for row in its_rows]
        for id, its_rows in target.read(output).items()
    }


def assert_applied(result: WriteResult) -> None:
    """Every document was applied."""
    assert result == WriteResult()


def assert_not_final(transport: Transport, written: Batch) -> None:
    """The write says that it may succeed later, of the whole batch or of some documents."""
    try:
        result = transport.write(written)
    except RetryableError:
        return
    assert result.retry
    assert not result.dead


def write_until_answered(transport: Transport, written: Batch) -> WriteResult:
    """Writes as the pipeline does: again while the target is away or busy."""
    for _ in range(200):
        try:
            result = transport.write(written)
        except RetryableError:
            gevent.sleep(0.1)
            continue
        if not result.retry:
            return result
        gevent.sleep(0.1)
    raise AssertionError("the target never came back")


def wait_until(condition: Any, *, timeout_seconds: float = 10) -> None:
    """Waits for what a server does in its own time."""
    with gevent.Timeout(timeout_seconds, AssertionError(f"did not become true in {timeout_seconds} s")):
        while not condition():
            gevent.sleep(0.05)


def only_transactional(target: Target) -> None:
    """Skips where the checkpoint is not saved with the rows."""
    if not target.transactional:
        pytest.skip("this target does not keep the checkpoint")


def pair(id: str, version: int, second: str) -> Any:
    """A document with a row in each of two outputs, both telling the version."""
    return document(id, version, {"n": version}, **{second: [{"n": version}]})


def assert_whole(target: Target, ids: list[str], outputs: tuple[str, ...]) -> None:
    """Every document is whole in each output; where all outputs are one transaction, in step too."""
    stored = [rows(target, output) for output in outputs]
    for id in ids:
        seen = [its_rows.get(id) for its_rows in stored]
        assert all(one in ([{"n": 1}], [{"n": 2}]) for one in seen), (id, seen)
        if target.transactional:
            assert seen[0] == seen[1], (id, seen)


class History:
    """A random history of one target beside a model: the newest (epoch, version) of each id wins."""

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
            transport.claim(at("0", epoch=self.epoch))
            return
        else:
            written = self._new_batch()
            self.past.append(written)
        refused = transport.write(written).refused
        for one in written.documents:
            mine, known = (written.epoch, one.version), self.newest.get(one.id, ((0, 0), {}))[0]
            assert (one.id in refused) == (mine <= known), (one.id, mine, known)
            if mine > known:
                self.newest[one.id] = (mine, dict(one.rows))
            else:
                assert refused[one.id] == guard(*known)

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

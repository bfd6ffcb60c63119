"""What is refused, and what a pass removes."""

from __future__ import annotations

import random
from typing import Any

import pytest

from pillows.models import WriteResult, write_version
from tests.conformance.steps import assert_applied, opened, rows, write_until_answered
from tests.conformance.target import OTHER_KEY, Target, at, batch, document, gone


class GuardConformance:
    """Versions, epochs, passes."""

    def test_a_replay_of_an_equal_version_is_refused_with_the_equal_guard(self, target: Target) -> None:
        again = batch(document("a", 3, {"n": 1}), gone("b", 4))
        with opened(target, "docs") as transport:
            assert_applied(transport.write(again))
            result = transport.write(again)
            assert result == WriteResult(refused={"a": write_version(1, 3), "b": write_version(1, 4)})
        assert rows(target) == {"a": [{"n": 1}]}

    def test_an_older_version_is_refused_with_the_stored_guard(self, target: Target) -> None:
        with opened(target, "docs") as transport:
            transport.write(batch(document("a", 5, {"n": 5})))
            result = transport.write(batch(document("a", 4, {"n": 4}), document("new", 1, {"n": 1})))
        assert result == WriteResult(refused={"a": write_version(1, 5)})
        assert rows(target) == {"a": [{"n": 5}], "new": [{"n": 1}]}

    def test_an_older_delete_is_refused(self, target: Target) -> None:
        with opened(target, "docs") as transport:
            transport.write(batch(document("a", 5, {"n": 5})))
            assert transport.write(batch(gone("a", 4))).refused == {"a": write_version(1, 5)}
        assert rows(target) == {"a": [{"n": 5}]}

    def test_an_older_version_does_not_resurrect_a_deleted_document(self, target: Target) -> None:
        with opened(target, "docs") as transport:
            transport.write(batch(document("a", 1, {"n": 1})))
            transport.write(batch(gone("a", 2)))
            assert transport.write(batch(document("a", 1, {"n": 1}))).refused == {"a": write_version(1, 2)}
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
        assert result.refused["a"] == write_version(1, 5)
        if target.remembers_deletes:
            assert result.refused["d"] == write_version(1, 6)
            assert rows(target) == {"a": [{"n": 5}]}

    def test_a_shuffled_stream_with_duplicates_converges(self, target: Target) -> None:
        """Every version of every document, deletes among them, out of order and a fifth of them twice."""
        chance = random.Random(35)
        stream = [
            gone(f"d{n}", version) if (n + version) % 4 == 0 else document(f"d{n}", version, {"v": version})
            for n in range(20)
            for version in range(1, 6)
        ]
        stream += chance.sample(stream, len(stream) // 5)
        chance.shuffle(stream)
        with opened(target, "docs") as transport:
            for start in range(0, len(stream), 15):
                assert not transport.write(batch(*stream[start : start + 15])).dead
        assert rows(target) == {f"d{n}": [{"v": 5}] for n in range(20) if (n + 5) % 4}

    @pytest.mark.parametrize("order", [1, -1], ids=["older-first", "newer-first"])
    def test_of_two_versions_in_a_batch_the_newer_counts(self, target: Target, order: int) -> None:
        """The batcher hands over one entry an id; a transport must not depend on it."""
        both = [document("a", 1, {"n": 1}), document("a", 2, {"n": 2})][::order]
        with_delete = [document("b", 1, {"n": 1}), gone("b", 2)][::order]
        with opened(target, "docs") as transport:
            assert_applied(transport.write(batch(*both, *with_delete)))
        assert rows(target) == {"a": [{"n": 2}]}
        assert target.write_version("docs", "a") == write_version(1, 2)

    def test_a_raised_epoch_outranks_every_version(self, target: Target) -> None:
        with opened(target, "docs") as transport:
            transport.write(batch(document("a", 90, {"n": 90})))
            transport.acquire(at("0", epoch=2))
            assert_applied(transport.write(batch(document("a", 1, {"n": 1}), epoch=2)))
        assert rows(target) == {"a": [{"n": 1}]}
        assert target.write_version("docs", "a") == write_version(2, 1)

    def test_a_lowered_epoch_is_refused_with_the_stored_guard(self, target: Target) -> None:
        with opened(target, "docs", epoch=3) as transport:
            transport.write(batch(document("a", 1, {"n": 3}), gone("b", 1), epoch=3))
        with opened(target, "docs") as transport:
            result = transport.write(batch(document("a", 9, {"n": 9}), document("b", 9, {"n": 9}), epoch=2))
        assert result == WriteResult(refused={"a": write_version(3, 1), "b": write_version(3, 1)})
        assert rows(target) == {"a": [{"n": 3}]}

    def test_completing_a_pass_removes_rows_of_lower_epochs(self, target: Target) -> None:
        with opened(target, "docs", "other") as transport:
            phantoms = [document(f"p{n}", 1, {"n": n}) for n in range(3)]
            transport.write(batch(*phantoms, document("kept", 1, {"n": 1}), gone("was", 1)))
            transport.write(batch(document("there", 1, {"n": 1}, output="other")))
            transport.acquire(at("0", epoch=2))
            transport.write(batch(document("kept", 1, {"n": 1}), document("p2", 2, {"n": 2}), epoch=2))
            transport.write(batch(gone("p2", 3), epoch=2))
            assert set(rows(target)) == {"kept", "p0", "p1"}, "until then they stay visible"
            assert transport.finish_pass(2) == 3
            assert transport.finish_pass(2) == 0
        assert rows(target) == {"kept": [{"n": 1}]}
        assert rows(target, "other") == {}
        assert target.write_version("docs", "p2") == write_version(2, 3)

    def test_completing_a_pass_removes_child_rows_of_lower_epochs(self, target: Target) -> None:
        if not target.has_many:
            pytest.skip("a document has at most one row in an output of this target")
        with opened(target, "lines") as transport:
            two = [{"line": 1}, {"line": 2}]
            transport.write(batch(*(document(id, 1, *two, output="lines") for id in ("old", "kept"))))
            transport.acquire(at("0", epoch=2))
            transport.write(batch(document("kept", 1, *two, output="lines"), epoch=2))
            assert transport.finish_pass(2) == 2
        assert rows(target, "lines") == {"kept": two}

    def test_completing_a_pass_leaves_the_rows_of_documents_that_it_could_not_write(
        self, target: Target
    ) -> None:
        """The rows of dead letters stay, whatever characters their ids have, until a pass can write them."""
        many = ["lines"] if target.has_many else []
        odd = "odd\u0000 \u0001'\"\U0001f600"
        with opened(target, "docs", *many) as transport:
            lines: dict[str, Any] = {"lines": [{"line": 1}, {"line": 2}]} if many else {}
            transport.write(batch(*(document(id, 1, {"n": 1}, **lines) for id in ("a", odd, "gone"))))
            transport.acquire(at("0", epoch=2))
            assert transport.finish_pass(2, {"a", odd, "unknown"}) == 1 + 2 * len(many)
            assert list(rows(target).values()) == [[{"n": 1}]] * 2
            if many:
                assert list(rows(target, "lines").values()) == [lines["lines"]] * 2
            assert_applied(transport.write(batch(document("a", 1, {"n": 2}, **lines), epoch=2)))
            transport.write(batch(gone(odd, 2), epoch=2))
        assert rows(target) == {"a": [{"n": 2}]}

    def test_completing_a_pass_leaves_another_tail_alone(self, target: Target) -> None:
        with opened(target, "docs") as mine, opened(target, "other", key=OTHER_KEY) as theirs:
            mine.write(batch(document("a", 1, {"n": 1})))
            theirs.write(batch(document("a", 7, {"n": 7}, output="other"), gone("b", 7)))
            mine.acquire(at("0", epoch=2))
            assert mine.finish_pass(2) == 1
            assert rows(target, "other") == {"a": [{"n": 7}]}
            again = theirs.write(batch(document("b", 6, {"n": 6}, output="other")))
        assert again.refused == {"b": write_version(1, 7)}
        assert rows(target) == {}

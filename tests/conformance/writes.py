"""What a write leaves in the target."""

from __future__ import annotations

import msgspec
import pytest

from pillows.models import write_version
from tests.conformance.steps import assert_applied, opened, rows
from tests.conformance.target import Target, batch, document, gone

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


class WriteConformance:
    """Insert, replace, delete; ids and sizes; a document owns its rows."""

    def test_inserts_and_replaces(self, target: Target) -> None:
        with opened(target, "docs") as transport:
            assert_applied(transport.write(batch(document("a", 1, {"n": 1}), document("b", 1, {"n": 2}))))
            assert_applied(transport.write(batch(document("a", 2, {"m": 3}))))
        assert rows(target) == {"a": [{"m": 3}], "b": [{"n": 2}]}
        assert target.write_version("docs", "a") == write_version(1, 2)
        assert target.write_version("docs", "b") == write_version(1, 1)

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
        assert target.write_version("docs", "a") == write_version(1, 2)

    def test_a_delete_of_a_missing_id_is_applied(self, target: Target) -> None:
        with opened(target, "docs") as transport:
            assert_applied(transport.write(batch(gone("never-seen", 2))))
            refused = transport.write(batch(document("never-seen", 1, {"n": 1})))
        assert refused.refused == {"never-seen": write_version(1, 2)}
        assert rows(target) == {}

    def test_the_first_pass_leaves_no_tombstones_for_what_was_never_there(self, target: Target) -> None:
        with opened(target, "docs") as transport:
            transport.write(batch(document("seen", 1, {"n": 1}), first_pass=True))
            result = transport.write(batch(gone("never", 2), gone("seen", 2), first_pass=True))
        assert_applied(result)
        assert rows(target) == {}
        assert target.write_version("docs", "never") is None
        assert target.write_version("docs", "seen") == write_version(1, 2)

    def test_an_empty_batch_changes_nothing(self, target: Target) -> None:
        with opened(target, "docs") as transport:
            assert_applied(transport.write(batch()))
        assert rows(target) == {}

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
            assert refused.refused == {"a": write_version(1, 2)}
            assert_applied(transport.write(batch(document("a", 3, {"n": 3}))))
        assert rows(target) == {"a": [{"n": 3}]}
        assert rows(target, "other") == {}

    def test_rows_of_an_output_that_it_does_not_have_are_not_its(self, target: Target) -> None:
        """Another transport of the pillow may have that output."""
        with opened(target, "docs") as transport:
            transport.write(batch(document("a", 1, {"n": 1}, elsewhere=[{"n": 2}])))
            assert_applied(transport.write(batch(document("a", 2, {"n": 2}, output="elsewhere"))))
        assert rows(target) == {}
        assert target.write_version("docs", "a") == write_version(1, 2)

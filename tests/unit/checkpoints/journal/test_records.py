"""The journal's format, as a table of files and what is read from them."""

from __future__ import annotations

import sys
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpoints.journal.records import (
    PIECE_BYTES,
    Entries,
    JournalScan,
    decode_value,
    encode_entry,
    format_commit,
    format_snapshot,
    scan_journal,
)

A, B, C = ("k", "a"), ("k", "b"), ("k", "c")
BAD = b"00000000 [[]]\n"


def entries(**values):
    return [encode_entry(("k", name), value) for name, value in values.items()]


def commit(**values):
    return format_commit(entries(**values))


def snapshot(**values):
    return b"".join(format_snapshot(entries(**values)))


def read(data):
    return {key[1]: decode_value(entry) for key, entry in scan_journal(data).entries.items()}


def test_a_line_is_the_checksum_a_space_and_json():
    payload = b'[["k","a",{"n":1}],["k","b",[2]]]'
    assert commit(a={"n": 1}, b=[2]) == b"%08x " % zlib.crc32(payload) + payload + b"\n"
    head = b'{"entries":2}'
    assert snapshot(a=1, b=2) == b"%08x " % zlib.crc32(head) + head + b"\n" + commit(a=1) + commit(b=2)


WHOLE = {
    "an empty snapshot": (snapshot(), {}),
    "a snapshot": (snapshot(a=1, b=2), {"a": 1, "b": 2}),
    "commits over a snapshot": (snapshot(a=1, b=2) + commit(a=3) + commit(c=4), {"a": 3, "b": 2, "c": 4}),
    "a commit of several": (snapshot() + commit(a=1, b=2), {"a": 1, "b": 2}),
    "newlines in a value": (snapshot(a="x\n\ty") + commit(b="\n"), {"a": "x\n\ty", "b": "\n"}),
}


@pytest.mark.parametrize(("data", "expected"), WHOLE.values(), ids=WHOLE)
def test_what_is_whole_is_read_in_order_without_findings(data, expected):
    scan = scan_journal(data)
    assert (read(data), scan.findings, scan.torn) == (expected, [], False)
    assert scan.snapshot_bytes + scan.appended_bytes == len(data)


def test_a_snapshot_comes_in_pieces_of_bounded_size():
    values = {f"n{number}": "x" * 1000 for number in range(200)}
    pieces = list(format_snapshot(entries(**values)))
    assert len(pieces) > 1
    assert max(map(len, pieces)) < PIECE_BYTES + 2000
    assert read(b"".join(pieces)) == values


def test_the_sizes_of_snapshot_and_commits_are_told_apart():
    scan = scan_journal(snapshot(a=1, b=2) + commit(a=3))
    assert (scan.snapshot_bytes, scan.appended_bytes) == (len(snapshot(a=1, b=2)), len(commit(a=3)))


TORN = {
    "half a line": snapshot(a=1) + commit(a=2) + commit(a=3)[:-1],
    "a few bytes": snapshot(a=1) + commit(a=2) + b"0",
    "zeros": snapshot(a=1) + commit(a=2) + bytes(20),
    "a hole within": snapshot(a=1) + commit(a=2) + commit(a=3)[:12] + bytes(3) + commit(a=3)[15:],
}


@pytest.mark.parametrize("data", TORN.values(), ids=TORN)
def test_only_the_last_commit_may_be_torn_and_is_left_out(data):
    scan = scan_journal(data)
    assert (read(data), scan.findings, scan.torn) == ({"a": 2}, [], True)


DAMAGED = {
    "no bytes": (b"", {}, [(1, "first line")]),
    "a damaged first line": (BAD + commit(a=1) + commit(b=2), {"a": 1, "b": 2}, [(1, "first line")]),
    "a first line of another form": (commit(a=1) + commit(b=2), {"b": 2}, [(1, "first line")]),
    "in the snapshot": (
        snapshot(a=1, b=2).replace(commit(a=1), BAD) + commit(c=3),
        {"b": 2, "c": 3},
        [(2, "its checksum does not match")],
    ),
    "the last line of the snapshot": (
        snapshot(a=1, b=2).replace(commit(b=2), BAD),
        {"a": 1},
        [(3, "its checksum does not match")],
    ),
    "a commit": (
        snapshot(a=1, b=2) + commit(b=3) + BAD + commit(a=4),
        {"a": 4},
        [(5, "may be outdated")],
    ),
    "the first commit": (snapshot(a=1) + BAD + commit(b=2), {"b": 2}, [(3, "may be outdated")]),
    "the first two lines": (BAD + BAD + commit(a=1), {"a": 1}, [(1, "first line"), (2, "may be outdated")]),
    "nothing but the first line": (
        snapshot(a=1).removesuffix(commit(a=1)),
        {},
        [(None, "0 of 1 entries are left")],
    ),
    "a commit before half a line": (snapshot(a=1) + commit(b=2) + BAD + b"0", {}, [(4, "may be outdated")]),
    "cut off in the snapshot": (snapshot(a=1, b=2)[:-1], {"a": 1}, [(None, "1 of 2 entries are left")]),
    "cut off between lines": (
        snapshot(a=1, b=2).removesuffix(commit(b=2)),
        {"a": 1},
        [(None, "1 of 2 entries are left")],
    ),
}


@pytest.mark.parametrize(("data", "expected", "findings"), DAMAGED.values(), ids=DAMAGED)
def test_damage_is_found_by_line_and_leaves_what_can_be_trusted(data, expected, findings):
    scan = scan_journal(data)
    assert read(data) == expected
    assert [finding.line for finding in scan.findings] == [line for line, _ in findings]
    for finding, (_, problem) in zip(scan.findings, findings, strict=True):
        assert finding.file == "journal"
        assert problem in finding.problem
        assert not finding.harmless


@pytest.mark.parametrize("payload", [b"\xf6", b"[1]", b"[[]]", b'[[{"a":1},2]]', b"{", b'{"entries":[]}'])
def test_a_line_that_is_not_ours_is_damaged_whatever_its_checksum(payload):
    line = b"%08x %s\n" % (zlib.crc32(payload), payload)

    assert scan_journal(line + commit(a=1)).findings
    assert "damaged" in scan_journal(snapshot() + line + commit(a=1)).findings[0].problem


def test_a_journal_that_was_not_read_is_empty():
    scan = JournalScan()
    assert (scan.entries, scan.torn, scan.snapshot_bytes, scan.appended_bytes) == ({}, False, 0, 0)


def test_an_entry_stays_as_it_is_in_its_line():
    entry = b'["k","a",{"n":1.50,"text":"],["}]'
    scan = scan_journal(snapshot() + format_commit([entry, *entries(b="[")]) + format_commit([]))
    assert scan.entries == {A: entry, B: b'["k","b","["]'}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(key=st.tuples(st.text(), st.text(), st.text()), value=JSON)
def test_any_entry_comes_back_as_it_was(key, value):
    scan = scan_journal(snapshot() + format_commit([encode_entry(key, value)]))
    assert {key: decode_value(entry) for key, entry in scan.entries.items()} == {key: value}


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"x"])
def test_what_is_not_json_is_refused(value):
    with pytest.raises((TypeError, ValueError)):
        encode_entry(A, value)


# --- the entries in memory

NAMES = st.sampled_from(["a", "b", ""])
KEYS = st.tuples(NAMES) | st.tuples(NAMES, NAMES) | st.tuples(NAMES, NAMES, NAMES)


@given(st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=2))))
def test_entries_in_memory_equal_a_dict_after_any_changes(changes):
    entries, expected = Entries(), {}
    for key, entry in changes:
        if entry is None:
            assert entries.pop(key, None) == expected.pop(key, None)
        else:
            entries[key] = expected[key] = entry
    assert (entries, len(entries), set(entries)) == (expected, len(expected), set(expected))
    assert Entries(expected) == expected
    assert all((key in entries) == (key in expected) for key, _ in changes)


def test_a_missing_entry_is_a_key_error():
    with pytest.raises(KeyError):
        Entries({("k", "a"): b"1"})["k", "b"]


def test_the_names_that_many_keys_share_are_kept_once():
    keys = [("checkpoint", "users", f"couch/user-{number:05}") for number in range(1000)]
    entries = Entries(dict.fromkeys(keys, b""))
    (group,) = entries._groups.values()
    assert sys.getsizeof(group) < 1000 * sys.getsizeof(keys[0])

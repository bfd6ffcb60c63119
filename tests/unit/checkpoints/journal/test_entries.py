"""The entries in memory behave as a dict of tuples does."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpoints.journal.entries import Entries

NAMES = st.sampled_from(["a", "b", ""])
KEYS = st.tuples(NAMES) | st.tuples(NAMES, NAMES) | st.tuples(NAMES, NAMES, NAMES)


@given(st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=2))))
def test_they_equal_a_dict_after_any_changes(changes):
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

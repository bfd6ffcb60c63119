from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pillows.databases.names import DatabaseNames, fill_in_name
from pillows.models import join_key, key_range, split_key

NAMES = st.from_regex(r"[a-z][a-z0-9_$()+/-]{0,80}", fullmatch=True)


@pytest.mark.parametrize(
    ("patterns", "exclude", "name", "matches"),
    [
        (["user-*"], [], "user-1", True),
        (["user-*"], [], "user-a/b", True),
        (["user-*"], [], "users", False),
        (["user-?"], [], "user-12", False),
        (["user-[ab]"], [], "user-b", True),
        (["user-*"], ["user-test-*"], "user-test-1", False),
        (["*"], [], "_users", False),
        (["_*"], [], "_users", False),
        (["*", "_users"], [], "_users", True),
        (["_users"], ["_users"], "_users", False),
    ],
)
def test_globs_match_whole_names_and_system_databases_only_if_written_out(
    patterns: list[str], exclude: list[str], name: str, matches: bool
) -> None:
    assert DatabaseNames(patterns, exclude).matches(name) is matches


def test_ranges_hold_every_match_once() -> None:
    names = DatabaseNames(["user-*", "user-a*", "team", "user-1", "x?"])
    assert names.ranges == [("team", "team"), ("user-", "user-\ufff0"), ("x", "x\ufff0")]


@given(st.lists(NAMES, min_size=1, max_size=5), NAMES)
def test_each_name_that_matches_lies_in_a_range(patterns: list[str], name: str) -> None:
    names = DatabaseNames([f"{pattern[:3]}*" for pattern in patterns])
    if names.matches(name):
        assert sum(start <= name <= end for start, end in names.ranges) == 1


@given(NAMES, st.text())
def test_a_key_tells_database_and_id(database: str, id: str) -> None:
    assert split_key(join_key(database, id)) == (database, id)


@given(NAMES, st.text(min_size=1), NAMES)
def test_keys_of_a_database_lie_in_its_range_and_no_others(database: str, id: str, other: str) -> None:
    after, before = (text.encode() for text in key_range(database))
    assert after < join_key(database, id).encode("utf-8", "surrogatepass") < before
    if other != database:
        assert not after < join_key(other, id).encode("utf-8", "surrogatepass") < before


@given(NAMES, NAMES)
def test_names_of_tables_differ_where_the_databases_do(one: str, other: str) -> None:
    names = [fill_in_name("doc_{source}", each) for each in (one, other)]
    assert all(len(name) <= 63 for name in names)
    assert (names[0] == names[1]) == (one == other)


def test_a_plain_name_is_filled_in_as_it_is() -> None:
    assert fill_in_name("{source}-docs", "user-1") == "user-1-docs"
    assert fill_in_name("{source}", "a/b").startswith("a_b-")

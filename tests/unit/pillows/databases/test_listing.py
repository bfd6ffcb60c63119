from __future__ import annotations

import pytest

from pillows.couch.database_info import ClusterInfo, DatabaseInfo
from pillows.databases.listing import PAGE, describe, halve, parse_identity


def test_a_description_changes_with_position_creation_and_purges_only() -> None:
    one = describe("a", DatabaseInfo(update_seq="5-x", instance_start_time="17", purge_seq="2-abc"))
    same = describe("a", DatabaseInfo(update_seq="5-x", instance_start_time="17", purge_seq="2-def"))
    others = [
        DatabaseInfo(update_seq="5-y", instance_start_time="17", purge_seq="2-abc"),
        DatabaseInfo(update_seq="5-x", instance_start_time="18", purge_seq="2-abc"),
        DatabaseInfo(update_seq="5-x", instance_start_time="17", purge_seq="3-abc"),
    ]
    assert one == same
    assert all(describe("a", each).digest != one.digest for each in others)


@pytest.mark.parametrize(
    ("info", "has_copies"),
    [
        (DatabaseInfo(update_seq="5-x", cluster=ClusterInfo(n=1)), False),
        (DatabaseInfo(update_seq="5-x", cluster=ClusterInfo(n=3)), True),
        (DatabaseInfo(update_seq=[5, "x"]), True),
        (DatabaseInfo(update_seq=5), False),
    ],
    ids=ascii,
)
def test_a_server_that_does_not_report_its_copies_may_have_several(
    info: DatabaseInfo, has_copies: bool
) -> None:
    assert describe("a", info).has_copies is has_copies


def test_the_identity_in_a_description_can_be_compared() -> None:
    found = parse_identity(describe("a", DatabaseInfo(instance_start_time="17", purge_seq="2-abc")).identity)
    assert found is not None
    assert found.instance_start_time == "17"
    assert not found.purged_since("2-xyz")
    assert found.purged_since("1-abc")
    assert parse_identity("") is None


def test_many_names_are_asked_for_in_two_parts_and_few_in_one() -> None:
    known = [f"user-{number:04}" for number in range(2 * PAGE + 1)]
    ranges = [("a", "a"), ("user-", "user-\ufff0"), ("z", "z")]
    assert halve(ranges, known[:-1]) == ranges
    assert halve(ranges, reversed(known)) == [
        ("a", "a"),
        ("user-", "user-0100"),
        ("user-0100", "user-\ufff0"),
        ("z", "z"),
    ]

"""The names of a service's topics."""

from __future__ import annotations

import re

import pytest

from pillows.change_topics.names import UNITS, ServiceTopics, find_unit

TOPICS = ServiceTopics("reports")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("couch/cases", "pillowd.reports.changes.couch.cases"),
        ("couch-1/_users", "pillowd.reports.changes.couch-1._users"),
        ("couch/a/b$(c)+d", "pillowd.reports.changes.couch.a.2fb.24.28c.29.2bd"),
    ],
)
def test_every_database_has_a_topic_of_its_own(source: str, name: str) -> None:
    assert TOPICS.changes(source) == name
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,249}", name)


def test_names_of_different_things_differ() -> None:
    names = [each.name for each in TOPICS.describe()]
    names += [TOPICS.changes("a/b"), TOPICS.changes("a/b/c"), TOPICS.letters("a")]
    names += [TOPICS.group_of_readers, TOPICS.group("cases"), TOPICS.reader_id("a/b")]
    assert len(set(names)) == len(names)


def test_a_unit_is_the_same_in_every_version() -> None:
    assert [find_unit(source) for source in ("couch/cases", "couch/forms", "b/users")] == [13, 1, 5]
    assert {find_unit(f"couch/db{number}") for number in range(300)} == set(range(UNITS))


def test_all_topics_are_compacted_but_the_one_without_messages() -> None:
    policies = {each.name: each.config.get("cleanup.policy") for each in TOPICS.describe()}
    assert policies.pop(TOPICS.units) is None
    assert set(policies.values()) == {"compact"}
    assert TOPICS.describe_changes("a/b", 12).config["min.compaction.lag.ms"] == "3600000"

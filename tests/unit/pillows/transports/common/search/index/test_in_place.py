"""Which changes of a configuration an index can follow."""

from __future__ import annotations

from typing import Any

import pytest

from pillows.transports.common.search.index.bulk_load import keep_settings, split_settings
from pillows.transports.common.search.index.in_place import (
    choose_index,
    describe_spec,
    find_change,
    find_settings_change,
)
from pillows.transports.common.search.index.spec import IndexSpec, make_spec
from pillows.transports.common.search.options import SearchOutput

TEXT = {"type": "text"}
LONG = {"type": "long"}


def spec(mapping: dict[str, Any], settings: dict[str, Any] | None = None, **options: Any) -> IndexSpec:
    return make_spec(SearchOutput(index="cases", mapping=mapping, settings=settings or {}, **options))


def change(before: dict[str, Any], after: dict[str, Any]) -> str | None:
    found = find_change(describe_spec(spec(before)), spec(after))
    return None if found is None else str(found)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({}, {}, ""),
        ({"properties": {"a": LONG}}, {"properties": {"a": LONG, "b": TEXT}}, "fields added: b"),
        ({}, {"properties": {"a": LONG}}, "fields added: a"),
        (
            {"properties": {"a": {"properties": {"b": LONG}}}},
            {"properties": {"a": {"properties": {"b": LONG, "c": LONG}}, "d": LONG}},
            "fields added: a.c, d",
        ),
        (
            {"properties": {"a": TEXT}},
            {"properties": {"a": {"type": "text", "fields": {"raw": {"type": "keyword"}}}}},
            "fields added: a.raw",
        ),
        ({"_meta": {"team": "a"}}, {"_meta": {"team": "b"}}, ""),
    ],
)
def test_fields_can_be_added(before: dict[str, Any], after: dict[str, Any], said: str) -> None:
    assert change(before, after) == said


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"properties": {"a": LONG}}, {}),
        ({"properties": {"a": LONG}}, {"properties": {"a": TEXT}}),
        ({"properties": {"a": LONG, "b": LONG}}, {"properties": {"a": LONG, "c": LONG}}),
        ({"properties": {"a": TEXT}}, {"properties": {"a": {**TEXT, "analyzer": "english"}}}),
        ({"dynamic": False}, {"dynamic": "strict"}),
        ({"dynamic": False}, {"dynamic": False, "dynamic_templates": []}),
        ({"dynamic": False, "properties": {"a": LONG}}, {"properties": {"a": LONG, "b": LONG}}),
    ],
)
def test_rows_cannot_follow_other_changes_of_the_mapping(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    assert change(before, after) is None


@pytest.mark.parametrize("other", ["tombstone", "mark"])
def test_another_way_to_delete_is_another_index(other: str) -> None:
    hard, kept = spec({}), spec({}, deletes=other)
    assert find_change(describe_spec(hard), kept) is None
    assert find_change(describe_spec(kept), hard) is None


def test_settings_change_to_the_configured_value_or_the_servers_default() -> None:
    before = spec({}, {"refresh_interval": "5s", "number_of_replicas": 1})
    found = find_change(describe_spec(before), spec({}, {"index": {"number_of_replicas": 2}}))
    assert found is not None
    assert found.settings == {"index.number_of_replicas": 2, "index.refresh_interval": None}
    assert str(found) == "settings changed: index.number_of_replicas, index.refresh_interval"


def test_a_field_that_was_added_stays_when_the_configuration_goes_back() -> None:
    later = spec({"properties": {"a": LONG}}, {"refresh_interval": "5s"})
    found = find_settings_change(describe_spec(later), spec({}))
    assert (found.properties, found.settings) == ({}, {"index.refresh_interval": None})


def test_the_values_before_a_first_pass_are_kept() -> None:
    assert keep_settings({"index.number_of_replicas": "1", "index.codec": "x"}) == {
        "index.refresh_interval": None,
        "index.number_of_replicas": "1",
    }
    expanding = {"index.auto_expand_replicas": "0-1", "index.refresh_interval": "5s"}
    assert keep_settings(expanding) == {"index.refresh_interval": "5s"}


def test_a_setting_that_changes_during_a_first_pass_waits_for_its_end() -> None:
    kept = {"index.refresh_interval": None, "index.number_of_replicas": "1"}
    changed = {"index.refresh_interval": "30s", "index.gc_deletes": "2h"}
    now, later = split_settings(changed, kept)
    assert now == {"index.gc_deletes": "2h"}
    assert later == {"index.refresh_interval": "30s", "index.number_of_replicas": "1"}
    assert split_settings(changed, {}) == (changed, {})


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_indices_of_one_epoch_the_searched_one_is_followed(order: int) -> None:
    wanted = spec({"properties": {"a": LONG, "b": LONG, "c": LONG}})
    searched, beside = spec({"properties": {"a": LONG}}), spec({"properties": {"a": LONG, "b": LONG}})
    owners = {
        each.name: {"digest": each.digest, "epoch": 3, "spec": describe_spec(each)}
        for each in (searched, beside)[::order]
    }
    assert choose_index(wanted, owners, [searched.name])[0].name == searched.name
    assert choose_index(wanted, owners, [])[0].name == max(searched.name, beside.name)

"""Which settings of a source fit one database, and which several."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pillows.feed.options import SourceOptions

IGNORE = {"on_filtered": "ignore", "deletes": "ignore"}
FILTERED = {**IGNORE, "filter_function": "design/function"}
#: Every key but the names of databases, with settings that are possible for a single database if it is.
#: A new key is entered here, and with that is decided where it fits.
EXAMPLES: dict[str, dict[str, Any]] = {
    "since": {"since": "now"},
    "documents": {"documents": "bulk_get"},
    "mode": {"mode": "longpoll"},
    "on_missing": {"on_missing": "fail"},
    "on_recreated": {"on_recreated": "reload"},
    "identity_token": {"identity_token": True},
    "skip_design": {"skip_design": False},
    "page": {"page": 100},
    "timeout": {"timeout": "5s"},
    "queue": {"queue": "2MiB"},
    "max_rate": {"max_rate": 5},
    "quiet_hours": {"quiet_hours": "08:00-18:00", "max_rate": 5},
    "max_document": {"max_document": "2MiB"},
    "join_overlap": {"join_overlap": "5s"},
    "max_missed_purges": {"max_missed_purges": 5},
    "selector": {**IGNORE, "selector": {"type": "case"}},
    "doc_ids": {**IGNORE, "doc_ids": ["a"]},
    "design": {**IGNORE, "design": True},
    "filter_function": FILTERED,
    "filter_arguments": {**FILTERED, "filter_arguments": {"type": "case"}},
    "on_filtered": {"on_filtered": "ignore"},
    "deletes": {"deletes": "ignore"},
    "exclude": {"exclude": "user-x"},
    "max_active": {"max_active": 2},
    "sweep": {"sweep": "60s"},
    "poll": {"poll": "60s"},
    "on_deleted": {"on_deleted": "remove"},
}
ONLY_SEVERAL = {"exclude", "max_active", "sweep", "poll", "on_deleted"}
ONLY_ONE = {
    *("since", "documents", "mode", "on_missing", "max_rate", "quiet_hours", "join_overlap"),
    *("max_missed_purges", "doc_ids"),
}


def test_every_key_has_an_example() -> None:
    assert set(EXAMPLES) == set(SourceOptions.model_fields) - {"connection", "database", "databases"}


@pytest.mark.parametrize("key", EXAMPLES)
def test_a_key_fits_one_database_or_several_or_both(key: str) -> None:
    assert fits(database="cases", **EXAMPLES[key]) is (key not in ONLY_SEVERAL)
    assert fits(databases="user-*", **EXAMPLES[key]) is (key not in ONLY_ONE)


def fits(**settings: Any) -> bool:
    try:
        SourceOptions(connection="couch", **settings)
    except ValidationError:
        return False
    return True

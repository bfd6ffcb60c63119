"""The tests' CouchDB answers the recordings of Apache CouchDB 3.5.0, and so does a real one.

PILLOWD_TEST_COUCHDB_URL names a real server. Scenarios that change its settings are sent to it only with
PILLOWD_TEST_COUCHDB_SETTINGS=1.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.servers.couchdb.process import CouchDB
from tests.servers.recording import Scenario, Server, Values, scenarios
from tests.servers.source import source

SCENARIOS = scenarios()
ALL = bool(os.environ.get("PILLOWD_TEST_COUCHDB_SETTINGS"))
CHOSEN = [name for name, scenario in SCENARIOS.items() if ALL or not scenario.is_server_wide]
REAL = CHOSEN if os.environ.get("PILLOWD_TEST_COUCHDB_URL") else []
ADMIN = "recorder:of exchanges"


@pytest.fixture(scope="module")
def stand_in() -> Iterator[Server]:
    with CouchDB(memory=True, admin=ADMIN) as couch:
        assert couch.auth
        yield Server(couch.url, couch.auth)


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_the_tests_couchdb_answers_as_recorded(stand_in: Server, scenario: Scenario) -> None:
    """Every status, header and body is that of the recording."""
    assert scenario.play(stand_in) == []


@pytest.mark.parametrize("name", REAL)
def test_a_real_server_answers_as_recorded(name: str) -> None:
    """A recording stays true on the server that PILLOWD_TEST_COUCHDB_URL names."""
    named = source(os.environ["PILLOWD_TEST_COUCHDB_URL"], environ={})
    assert named.auth, "a real server wants an administrator"
    assert SCENARIOS[name].play(Server(named.url, named.auth)) == []


def test_a_scenario_tells_wrong_answers(stand_in: Server) -> None:
    """The runner reports a wrong status, header, member and text; without that its silence proves nothing."""
    exchange = {
        "note": "wrong",
        "request": {"method": "GET", "path": "/_up"},
        "response": {
            "status": 201,
            "headers": {"etag": "x"},
            "json": {"status": "no", "seeds": {}, "more": 1},
        },
    }
    found = Scenario({"headers": ["allow"], "exchanges": [exchange]}).play(stand_in)

    assert [difference.partition("): ")[2] for difference in found] == [
        "status: recorded 201, got 200",
        'etag: recorded "x", got (absent)',
        'json.status: recorded "no", got "ok"',
        "json.more: recorded 1, got (absent)",
    ]


def test_a_name_stands_for_one_value() -> None:
    """A placeholder that has a value matches no other, and two names of a thing have two values."""
    values = Values()
    digest = "0123456789abcdef0123456789abcdef"

    assert values.unify("{{rev:a1}}", f"1-{digest}") is None
    assert values.unify("{{hash:a1}}", digest) is None
    assert values.unify("{{rev:a1}}", "1-" + "f" * 32) is not None
    assert values.unify("{{rev:a2}}", f"1-{digest}") is not None
    assert "both" in str(values.unify("{{rev:a1b}}", f"1-{digest}"))

"""Every operation answers as the OpenAPI file says, whatever is sent to it."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from checkpoints import Checkpoint, Seq
from daemon.http.app import make_app
from daemon.http.contract import Operation, load_contract
from daemon.http.endpoint import Endpoint, ListenerSettings
from daemon.http.short_way import ShortWay
from daemon.logs.setup import Logs, configure_logging
from daemon.metrics.metrics import Metrics
from pillows.clock import SystemClock
from pillows.redaction import Redactor
from tests.support.sizes import proving, size
from tests.unit.daemon.http.conftest import KEYS, Served

CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
#: No defects: the daemon is not in that state, or what was asked for is not so in time.
BUSY = (503, 504)
OPERATIONS = load_contract().operations
#: Requests to each operation, and steps of sequences: 300 in all in CI, 3,000 for the proof.
EXAMPLES = size(ci=6, proof=80)
SEQUENCES = size(ci=12, proof=80)

seen: dict[str, set[int]] = defaultdict(set)


@pytest.fixture(scope="module")
def logs() -> Iterator[Logs]:
    with configure_logging(
        format="json", level="info", stream=io.StringIO(), clock=SystemClock(), redactor=Redactor()
    ) as logs:
        yield logs


@pytest.fixture(scope="module")
def app(shared: Served, logs: Logs) -> Any:
    shared.api.logs = logs
    shared.api.metrics = Metrics(SystemClock(), Path("/"))
    shared.state.store.save(KEYS[0], Checkpoint(seq=Seq.of("7-x")))
    settings = ListenerSettings(kind="admin", redactor=Redactor())
    endpoint = Endpoint(load_contract(), shared.api, settings)
    return ShortWay(endpoint, lambda: make_app(endpoint))


@pytest.fixture(scope="module")
def described(app: Any) -> Any:
    return schemathesis.openapi.from_wsgi("/v1/openapi.json", app)


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())
def test_an_operation_answers_as_documented(described: Any, operation: Operation) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=not proving(),
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=described[operation.path][operation.method].as_strategy(), known=st.booleans())
    def ask(case: Any, known: bool) -> None:
        if known and "key" in (case.path_parameters or {}):  # else almost every answer would be 404
            case.path_parameters["key"] = "cases"
        response = case.call(headers={"Content-Type": "application/json"})
        seen[operation.id].add(response.status_code)
        assert response.status_code < 500 or response.status_code in BUSY
        case.validate_response(response, checks=CHECKS)

    ask()


def test_sequences_of_requests_are_answered_as_documented(described: Any) -> None:
    class Sequence(described.as_state_machine()):  # type: ignore[misc]
        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            return {"headers": {"Content-Type": "application/json"}}

        def validate_response(self, response: Any, case: Any, additional_checks: Any = (), **_: Any) -> None:
            assert response.status_code < 500 or response.status_code in BUSY
            case.validate_response(response, checks=CHECKS)

    Sequence.run(
        settings=settings(
            max_examples=SEQUENCES,
            stateful_step_count=5,
            deadline=None,
            derandomize=not proving(),
            database=None,
            suppress_health_check=list(HealthCheck),
        )
    )

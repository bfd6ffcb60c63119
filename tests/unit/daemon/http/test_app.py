"""What each listener serves, to whom, and what every answer has."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from typing import Any

import gevent
import pytest
import structlog
from structlog.testing import capture_logs
from werkzeug.test import Client

from checkpoints import Checkpoint, Seq
from daemon.config.listeners import TokenOptions
from daemon.http.access import Tokens
from daemon.http.app import make_app
from daemon.http.contract import Operation, load_contract
from daemon.http.endpoint import HEADERS, Endpoint, ListenerSettings
from daemon.http.messages import PROBLEM
from daemon.http.short_way import ShortWay
from pillows.clock import SystemClock
from pillows.redaction import Redactor
from tests.support.http_listener import HttpListener, Seen
from tests.unit.daemon.http.conftest import KEYS, TOKENS, Served

OPERATIONS = list(load_contract().operations.values())
CASES = "/v1/pillows/cases"


def path_of(operation: Operation) -> str:
    filled = operation.path.replace("{key}", "cases")
    return re.sub(r"\{\w+\}", "nothing", filled)


def knock(listener: HttpListener, operation: Operation, **headers: str) -> Seen:
    body = {} if operation.body is not None else None
    return listener.ask(operation.method, path_of(operation), body, **headers)


def problem(seen: Seen, status: int, kind: str) -> Any:
    assert seen.status == status, seen.text
    assert seen.headers["content-type"] == "application/problem+json"
    assert seen.json["type"] == f"urn:pillowd:error:{kind}"
    return seen.json


def save(served: Served, seq: str = "7-x") -> None:
    served.state.store.save(KEYS[0], Checkpoint(seq=Seq.of(seq)))


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.id)
def test_the_read_only_listener_serves_what_changes_nothing(shared: Served, operation: Operation) -> None:
    seen = knock(shared.read, operation)
    is_there = seen.headers["content-type"] != PROBLEM or not seen.json["type"].endswith(("route", "method"))
    assert is_there == (operation.listener == "read")
    assert not is_there or operation.method == "GET"


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.id)
def test_a_name_that_was_rebound_is_refused_everywhere(shared: Served, operation: Operation) -> None:
    for listener in (shared.read, shared.admin):
        problem(knock(listener, operation, Host="evil.example"), 400, "invalid-request")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9147", "[::1]:80", "pillowd.example:9147"])
def test_own_names_are_taken(shared: Served, host: str) -> None:
    assert shared.read.get("/livez", Host=host).status == 200


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.id)
def test_every_answer_tells_browsers_what_they_may_do(shared: Served, operation: Operation) -> None:
    for seen in (knock(shared.admin, operation), knock(shared.admin, operation, Host="evil.example")):
        assert {name.lower() for name in HEADERS} <= set(seen.headers)
        assert not any(name.startswith("access-control-") for name in seen.headers)
        assert "unsafe" not in seen.headers["content-security-policy"]
        assert "set-cookie" not in seen.headers


UNSAFE = [each for each in OPERATIONS if not each.is_safe]


@pytest.mark.parametrize("operation", UNSAFE, ids=lambda each: each.id)
def test_what_a_page_of_another_site_sends_is_refused(shared: Served, operation: Operation) -> None:
    """Such requests reach even the admin socket, if ssh forwards it to a port of the operator's machine."""
    _, before = shared.api.audit.read()
    form = knock(shared.admin, operation, Content_Type="application/x-www-form-urlencoded")
    problem(form, 415, "unsupported-type")
    problem(knock(shared.admin, operation, Content_Type="text/plain"), 415, "unsupported-type")
    problem(knock(shared.admin, operation, Sec_Fetch_Site="cross-site"), 403, "not-permitted")
    problem(knock(shared.admin, operation, Sec_Fetch_Site="same-site"), 403, "not-permitted")
    problem(knock(shared.admin, operation, Origin="https://evil.example"), 403, "not-permitted")
    problem(knock(shared.admin, operation, Origin="null"), 403, "not-permitted")
    lines, _ = shared.api.audit.read(before)
    assert [line["phase"] for line in lines] == ["intent", "refused"] * 6


def test_a_preflight_is_not_answered(shared: Served) -> None:
    asked = {"Origin": "https://evil.example", "Access_Control_Request_Method": "PUT"}
    problem(shared.admin.ask("OPTIONS", f"{CASES}/pause", **asked), 405, "method")


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.id)
def test_tcp_needs_a_token_for_everything(shared: Served, operation: Operation) -> None:
    problem(knock(shared.tcp, operation), 401, "unauthenticated")


def test_a_token_allows_what_its_scopes_say(served: Served) -> None:
    reader, ops = (f"Bearer {TOKENS[name]}" for name in ("reader", "ops"))
    assert served.tcp.get("/v1/pillows", Authorization=reader).status == 200
    problem(served.tcp.put(f"{CASES}/pause", Authorization=reader), 403, "not-permitted")
    assert served.tcp.put(f"{CASES}/pause", Authorization=ops).status == 202
    problem(served.tcp.get(f"{CASES}/tap?values=true", Authorization=ops), 403, "not-permitted")
    lines, _ = served.api.audit.read()
    intents = [line for line in lines if line["phase"] == "intent"]
    assert [line["by"]["token"] for line in intents] == ["reader", "ops"]
    assert not any(token in json.dumps(lines) for token in TOKENS.values())


def test_a_short_token_is_refused_even_if_its_hash_is_configured(served: Served) -> None:
    problem(served.tcp.get("/v1/pillows", Authorization=f"Bearer {TOKENS['short']}"), 401, "unauthenticated")


def test_who_guesses_has_to_wait(served: Served) -> None:
    for _ in range(10):
        problem(served.tcp.get("/livez", Authorization=f"Bearer {'x' * 40}"), 401, "unauthenticated")
    seen = served.tcp.get("/livez", Authorization=f"Bearer {TOKENS['ops']}")
    problem(seen, 429, "throttled")
    assert seen.headers["retry-after"] == "60"


def test_the_socket_is_of_the_user_and_the_group(shared: Served) -> None:
    assert shared.socket.stat().st_mode & 0o777 == 0o660


def test_a_process_whose_supervisor_does_not_tick_is_not_alive(
    shared: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shared.read.get("/livez").status == 200
    monkeypatch.setattr("daemon.control.health.TICK_SECONDS", -1.0)  # as if the last tick was long ago
    seen = shared.read.get("/livez?verbose=true")
    assert (seen.status, seen.text.splitlines()[0]) == (503, "failed")


def test_positions_are_not_for_everybody(shared: Served) -> None:
    gevent.sleep(0.1)
    (shown,) = [each for each in shared.admin.get("/v1/pillows").json["pillows"] if each["pillow"] == "cases"]
    assert shown["seq"] == "7-x"
    assert shared.read.get(CASES).json["seq"] is None
    assert {each["seq"] for each in shared.read.get("/v1/pillows").json["pillows"]} == {None}


def test_a_wrong_name_is_answered_with_the_right_one(shared: Served) -> None:
    found = problem(shared.admin.put("/v1/pillows/case/pause"), 404, "unknown-pillow")
    assert found["remedy"] == "did you mean `cases`?"
    assert found["pillow"] == "case"
    found = problem(shared.admin.get("/v1/pillows?limt=3"), 400, "invalid-request")
    assert "did you mean `limit`?" in found["remedy"]


@pytest.mark.parametrize("database", ["x/status", "x/checkpoint"])
def test_a_source_that_is_called_like_a_route_is_reached(served: Served, database: str) -> None:
    problem(served.admin.get("/v1/pillows/visits"), 404, "unknown-pillow")
    seen = served.admin.get(f"/v1/pillows/visits?source=couch%2F{database.replace('/', '%2F')}")
    assert seen.json["source"] == f"couch/{database}"
    paused = served.admin.put(f"/v1/pillows/visits/pause?wait=10s&source=couch/{database}")
    assert (paused.status, paused.json["state"], paused.json["source"]) == (
        200,
        "paused",
        f"couch/{database}",
    )


def test_pause_and_resume_answer_at_once_or_when_it_is_so(served: Served) -> None:
    assert served.admin.put(f"{CASES}/pause").status == 202
    assert served.admin.put(f"{CASES}/pause?wait=10s").json["state"] == "paused"
    problem(served.admin.put(f"{CASES}/stop"), 409, "conflict")
    problem(served.admin.ask("POST", f"{CASES}/restart?wait=10s"), 409, "conflict")
    assert len(served.admin.ask("POST", "/v1/pillows/restart").json["restarted"]) == 2
    assert served.admin.put(f"{CASES}/resume?wait=10s").json["state"] == "live"
    assert served.admin.put(f"{CASES}/stop?wait=10s").json["state"] == "stopped"
    assert served.admin.put(f"{CASES}/resume?wait=10s").status == 200
    problem(served.admin.put(f"{CASES}/pause?wait=61s"), 400, "invalid-request")


def test_a_wish_that_is_not_fulfilled_in_time_says_so(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.supervision.supervised_tail.SupervisedTail._ask_to_stop", lambda _: None)
    found = problem(served.admin.put(f"{CASES}/pause?wait=10ms"), 504, "not-in-time")
    assert "cases@couch/cases is still live" in found["detail"]


def test_all_failed_pillows_are_restarted(served: Served) -> None:
    assert served.admin.ask("POST", "/v1/pillows/restart?only_failed=true").json == {"restarted": []}
    assert len(served.admin.ask("POST", "/v1/pillows/restart").json["restarted"]) == 3


def test_an_edit_says_which_state_it_changes(served: Served) -> None:
    save(served)
    first = served.admin.get(f"{CASES}/checkpoint")
    assert first.headers["etag"] == '"0"'
    edit = {"seq": "9-y"}
    problem(served.admin.ask("PATCH", f"{CASES}/checkpoint", edit), 428, "unconditional-edit")
    problem(served.admin.ask("PATCH", f"{CASES}/checkpoint", edit, If_Match="0"), 400, "invalid-request")
    done = served.admin.ask("PATCH", f"{CASES}/checkpoint", edit, If_Match='"0"')
    assert (done.status, done.headers["etag"], done.json["before"]) == (200, '"1"', "7-x")
    problem(served.admin.ask("DELETE", f"{CASES}/checkpoint", If_Match='"0"'), 412, "edited-meanwhile")
    assert served.admin.ask("DELETE", f"{CASES}/checkpoint", If_Match="*").json["seq"] == 0


def test_of_two_edits_at_once_one_is_done(served: Served) -> None:
    save(served)
    for generation in range(20):
        edits = [
            gevent.spawn(
                served.admin.ask, "PATCH", f"{CASES}/checkpoint", {"seq": seq}, If_Match=f'"{generation}"'
            )
            for seq in ("8-a", "9-b")
        ]
        assert sorted(each.get(timeout=60).status for each in edits) == [200, 412]


def test_a_repair_is_an_operation(served: Served) -> None:
    started = served.admin.ask("POST", f"{CASES}/repair", {"ids": ["a", "b"]})
    assert started.status == 202
    done = served.admin.get(f"{started.headers['location']}?wait=30s").json
    assert (done["state"], done["result"]["sent"], done["kind"]) == ("done", 2, "repair_documents")
    assert served.admin.get("/v1/operations").json["operations"] == [done]
    lines, _ = served.api.audit.read()
    assert [line["phase"] for line in lines] == ["intent", "done"]


def test_a_failed_operation_has_the_problem(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("secret hunter2hunter2")

    monkeypatch.setattr(served.api.repair, "_repair", fail)
    started = served.admin.ask("POST", f"{CASES}/repair", {"ids": ["a"]})
    done = served.admin.get(f"{started.headers['location']}?wait=30s").json
    assert (done["state"], done["problem"]["type"]) == ("failed", "urn:pillowd:error:internal")
    assert "hunter2" not in json.dumps(done)
    lines, _ = served.api.audit.read()
    assert [line["phase"] for line in lines] == ["intent", "failed"]


def test_a_defect_has_an_id_and_the_log_the_rest(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    structlog.reset_defaults()

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by design")

    monkeypatch.setattr(served.api.pillows, "get", fail)
    with capture_logs() as logs:
        found = problem(served.admin.get(CASES), 500, "internal")
    (logged,) = [each for each in logs if each["event"] == "request.crashed"]
    assert logged["id"] in found["detail"]
    assert "ZeroDivisionError" in logged["error"]
    assert "Traceback" not in json.dumps(found)
    assert "by design" not in json.dumps(found)


def test_a_body_that_does_not_fit_is_refused_without_being_quoted(shared: Served) -> None:
    wrong: list[Any] = [
        {},
        {"ids": []},
        {"ids": [1]},
        {"all": False},
        {"all": True, "ids": ["a"]},
        b"{",
        b"NaN",
    ]
    for body in wrong:
        problem(shared.admin.ask("POST", f"{CASES}/dead-letters/retry", body), 400, "invalid-request")
    nested = b'{"ids":' + b"[" * 30_000
    problem(shared.admin.ask("POST", f"{CASES}/dead-letters/retry", nested), 400, "invalid-request")
    secret = shared.admin.ask("POST", f"{CASES}/dead-letters/retry", {"hunter2hunter2": 1})
    assert "hunter2" not in secret.text


def test_the_read_only_listener_names_the_door_of_what_it_does_not_serve(shared: Served) -> None:
    for seen in (shared.read.get("/v1/config"), shared.read.put(f"{CASES}/pause")):
        assert "curl --unix-socket" in problem(seen, 404, "no-such-route")["remedy"]
    assert "openapi" in problem(shared.read.get("/v1/nothing"), 404, "no-such-route")["remedy"]
    problem(shared.read.ask("POST", "/v1/pillows"), 405, "method")


@pytest.mark.parametrize(
    ("query", "status"), [("?verbose", 200), ("?verbose=false", 200), ("?verbose=1", 400)]
)
def test_a_switch_may_stand_alone(shared: Served, query: str, status: int) -> None:
    seen = shared.read.get(f"/livez{query}")
    assert seen.status == status
    assert ("supervisor" in seen.text) == (query == "?verbose")


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("tap?rate=nan", "`rate` must be number"),
        ("tap?rate=inf", "`rate` must be number"),
        ("tap?rate=0", "`rate` must be bigger than 0"),
    ],
)
def test_a_number_is_finite(shared: Served, query: str, detail: str) -> None:
    assert problem(shared.admin.get(f"{CASES}/{query}"), 400, "invalid-request")["detail"] == detail


def test_a_value_of_another_form_is_told_the_form(shared: Served) -> None:
    seen = shared.admin.put(f"{CASES}/pause?wait=30")
    assert problem(seen, 400, "invalid-request")["detail"] == "`wait` must look like 30s"
    seen = shared.admin.ask("PATCH", f"{CASES}/checkpoint", {"to": "yesterday"}, **{"If-Match": "*"})
    assert '"const": "beginning"' in problem(seen, 400, "invalid-request")["detail"]


def test_requests_are_counted(served: Served) -> None:
    served.admin.get("/livez")
    served.admin.get("/nowhere")
    assert served.api.requests["get_livez", "GET", 200] == 1
    assert served.api.requests["none", "GET", 404] == 1


PLAIN = [each for each in OPERATIONS if each.is_safe and "{" not in each.path and not each.is_stream]


@pytest.mark.parametrize("operation", PLAIN, ids=lambda each: each.id)
def test_the_short_way_answers_as_flask_does(shared: Served, operation: Operation) -> None:
    """Both answer alike with and without a token, from another site, and with a body."""
    digest = hashlib.sha256(TOKENS["ops"].encode()).hexdigest()
    known = TokenOptions.model_validate({"name": "ops", "sha256": digest})
    settings = ListenerSettings(kind="admin", redactor=Redactor([]), tokens=Tokens([known], SystemClock()))

    def ask(*, by_flask: bool, **request: Any) -> tuple[Any, ...]:
        endpoint = Endpoint(load_contract(), shared.api, settings)
        app = make_app(endpoint)
        before = Counter(shared.api.requests)
        way = app if by_flask else ShortWay(endpoint, lambda: app)
        seen = Client(way).get(operation.path, **request)
        counted = shared.api.requests - before
        return seen.status_code, list(seen.headers.keys()), seen.content_type, counted

    token = {"Authorization": f"Bearer {TOKENS['ops']}"}
    for request, status in (
        ({"headers": token}, {200, 503}),
        ({"headers": {**token, "Origin": "http://evil.example"}}, {200, 503}),
        ({"headers": {}}, {401}),
        ({"headers": {**token, "Host": "evil.example"}}, {400}),
        ({"headers": token, "data": b"{}"}, {400}),
    ):
        short = ask(by_flask=False, **request)
        assert short == ask(by_flask=True, **request)
        assert short[0] in status

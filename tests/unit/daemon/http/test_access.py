"""The checks of a request: host, origin and token, and how long a wrong token takes."""

from __future__ import annotations

import hashlib
import statistics
import time

import pytest

from daemon.config.listeners import TokenOptions
from daemon.errors import InvalidRequestError, NotPermittedError, ThrottledError, UnauthenticatedError
from daemon.http import access
from daemon.http.access import Tokens, UnsupportedTypeError, check_host, check_origin, check_scope
from tests.support.clock import FakeClock

TOKEN = "a" * 40


def tokens(clock: FakeClock, token: str = TOKEN) -> Tokens:
    digest = hashlib.sha256(token.encode()).hexdigest()
    return Tokens([TokenOptions.model_validate({"name": "ops", "sha256": digest})], clock)


@pytest.mark.parametrize(
    "host", ["", "evil.example", "localhost.evil.example", "localhost:x", "a@localhost", "[::2]"]
)
def test_a_foreign_host_is_refused(host: str) -> None:
    with pytest.raises(InvalidRequestError):
        check_host(host, {"localhost", "[::1]"})


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "[::1]", "[::1]:9147"])
def test_an_own_host_is_taken(host: str) -> None:
    check_host(host, {"localhost", "[::1]"})


JSON = "application/json"
OWN_ORIGIN = "http://localhost:9147"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_request_that_reads_may_come_from_anywhere(method: str) -> None:
    check_origin(method, {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}, {OWN_ORIGIN})


@pytest.mark.parametrize("type_", [JSON, "Application/JSON", "application/json; charset=utf-8"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Origin": OWN_ORIGIN},
        {"Sec-Fetch-Site": "same-origin", "Origin": OWN_ORIGIN},
    ],
)
def test_a_command_of_a_program_or_of_an_own_page_is_taken(type_: str, headers: dict[str, str]) -> None:
    check_origin("POST", {"Content-Type": type_, **headers}, {OWN_ORIGIN})


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", "Origin": OWN_ORIGIN},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"},
    ],
)
def test_a_command_of_another_sites_page_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(NotPermittedError):
        check_origin("POST", {"Content-Type": JSON, **headers}, {OWN_ORIGIN})


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "text/plain; application/json"}])
def test_a_command_of_another_type_than_json_is_refused(headers: dict[str, str]) -> None:
    """A form can send such types from any page."""
    with pytest.raises(UnsupportedTypeError) as raised:
        check_origin("POST", headers, {OWN_ORIGIN})
    assert raised.value.status == 415


def test_a_token_allows_what_its_scopes_name() -> None:
    check_scope(("read", "operate"), "operate", "ops")
    with pytest.raises(NotPermittedError, match="ops does not have the scope `operate`"):
        check_scope(("read",), "operate", "ops")


def test_a_token_of_32_characters_is_taken_and_a_shorter_one_is_not() -> None:
    clock = FakeClock()
    assert tokens(clock, "t" * 32).recognize("Bearer " + "t" * 32, "192.0.2.1").name == "ops"
    with pytest.raises(UnauthenticatedError):
        tokens(clock, "t" * 31).recognize("Bearer " + "t" * 31, "192.0.2.1")


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("", "there is no token"),
        (f"Basic {TOKEN}", "no `Bearer` token"),
        (TOKEN, "no `Bearer` token"),
        (f"Bearer {TOKEN}x", "not one of"),
        ("Bearer \udcff", "not one of"),
        ("Bearer", "not one of"),
    ],
)
def test_what_is_no_token_is_refused(header: str, reason: str) -> None:
    with pytest.raises(UnauthenticatedError, match=reason):
        tokens(FakeClock()).recognize(header, "192.0.2.1")


def test_a_minute_after_ten_wrong_tokens_the_right_one_is_taken_again() -> None:
    clock = FakeClock(auto=False)
    known = tokens(clock)
    for _ in range(10):
        with pytest.raises(UnauthenticatedError):
            known.recognize("Bearer wrong", "192.0.2.1")
    with pytest.raises(ThrottledError):
        known.recognize(f"Bearer {TOKEN}", "192.0.2.1")
    assert known.recognize(f"Bearer {TOKEN}", "192.0.2.2").name == "ops"
    clock.advance(59.5)
    with pytest.raises(ThrottledError):
        known.recognize(f"Bearer {TOKEN}", "192.0.2.1")
    clock.advance(0.5)
    assert known.recognize(f"Bearer {TOKEN}", "192.0.2.1").name == "ops"


def test_who_sends_no_token_is_not_throttled() -> None:
    known = tokens(FakeClock())
    for _ in range(20):
        with pytest.raises(UnauthenticatedError):
            known.recognize("", "192.0.2.1")


def test_failures_of_many_addresses_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_MAX_ADDRESSES", 10)
    known = tokens(FakeClock())
    for number in range(50):
        with pytest.raises(UnauthenticatedError):
            known.recognize("Bearer wrong", f"192.0.2.{number}")
    assert len(known._failures) == 10


def test_the_address_that_failed_last_is_remembered_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_MAX_ADDRESSES", 2)
    known = tokens(FakeClock())
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.3"):
        with pytest.raises(UnauthenticatedError):
            known.recognize("Bearer wrong", address)
    assert list(known._failures) == ["192.0.2.1", "192.0.2.3"]


@pytest.mark.proof
def test_the_time_of_a_wrong_token_does_not_tell_where_it_is_wrong() -> None:
    """10,000 tokens whose first character is wrong, and as many whose last is, in turn."""
    known = tokens(FakeClock())
    seconds: dict[str, list[float]] = {"b" + TOKEN[1:]: [], TOKEN[:-1] + "b": []}
    for number in range(10_000):
        for token, taken in seconds.items():
            began = time.perf_counter()
            with pytest.raises(UnauthenticatedError):
                known.recognize(f"Bearer {token}", str(number))
            taken.append(time.perf_counter() - began)
    first, last = (statistics.median(each) for each in seconds.values())
    assert abs(first - last) < 0.05 * first

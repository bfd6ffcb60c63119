"""Who may make a request: tokens, and how long a wrong one takes."""

from __future__ import annotations

import hashlib
import statistics
import time

import pytest

from daemon.config.listeners import TokenOptions
from daemon.errors import InvalidRequestError, ThrottledError, UnauthenticatedError
from daemon.http import access
from daemon.http.access import Tokens, check_host
from tests.support.clock import FakeClock

TOKEN = "a" * 40


def tokens(clock: FakeClock) -> Tokens:
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
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


@pytest.mark.parametrize(
    "header", ["", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer \udcff", "Bearer"]
)
def test_what_is_no_token_is_refused(header: str) -> None:
    with pytest.raises(UnauthenticatedError):
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
    clock.advance(61)
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

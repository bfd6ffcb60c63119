"""Which of two configurations of a pillow counts."""

from __future__ import annotations

from collections.abc import Mapping

from daemon.kafka.agreed_configuration import QUIET_SECONDS, AgreedConfiguration
from pillows.errors import RetryableError
from tests.support.clock import FakeClock


class Service:
    """The configuration that the daemons have agreed on, and when another daemon was heard."""

    def __init__(self) -> None:
        self.counts: dict[str, Mapping[str, str]] = {}
        self.running: set[str] = set()
        self.heard_at: float | None = None
        self.is_away = False
        self.clock = FakeClock(auto=False)

    def find_configuration(self, pillow: str) -> Mapping[str, str] | None:
        return self.counts.get(pillow)

    def set_configuration(self, pillow: str, digests: Mapping[str, str]) -> None:
        self.counts[pillow] = digests

    def at(self, daemon: str, **ours: str) -> AgreedConfiguration:
        return AgreedConfiguration("cases", ours, self, lambda: self.listen(daemon), self.clock)

    def listen(self, daemon: str) -> float | None:
        if self.is_away:
            raise RetryableError("the brokers are away")
        if self.running - {daemon}:
            self.heard_at = self.clock.monotonic()
        return self.heard_at

    def pass_time(self, daemon: AgreedConfiguration, seconds: float) -> list[str]:
        """Let it settle each second; return the keys that differ at the end."""
        found: list[str] = []
        for _ in range(round(seconds)):
            self.clock.advance(1)
            found = daemon.settle()
        return found


def test_the_first_configuration_counts_and_an_equal_one_runs_beside_it() -> None:
    service = Service()
    assert service.at("a", filter="1").settle() == []
    service.running.add("a")
    assert service.at("b", filter="1").settle() == []


def test_another_one_stands_by_and_names_each_key_that_differs() -> None:
    service = Service()
    service.at("a", filter="1", transform="1", outputs="1").settle()
    service.running.add("a")
    other = service.at("b", filter="2", transform="1", trigger="1")
    assert other.settle() == ["filter", "outputs", "trigger"]
    assert service.at("a", filter="1", transform="1", outputs="1").find_differences() == []


def test_when_nobody_runs_the_former_one_the_next_counts_and_those_who_have_it_no_more_see_it() -> None:
    service = Service()
    former = service.at("a", filter="1")
    former.settle()
    service.running.add("a")
    other = service.at("b", filter="2")
    assert other.settle() == ["filter"]
    service.running.clear()
    assert service.pass_time(other, QUIET_SECONDS - 1) == ["filter"]
    assert service.pass_time(other, 1) == []
    assert former.find_differences() == ["filter"]


def test_two_that_start_together_do_not_depose_each_other() -> None:
    """Neither daemon has published a status yet, and one of them has the configuration that counts."""
    service = Service()
    service.at("a", filter="1").settle()
    other = service.at("b", filter="2")
    assert service.pass_time(other, 5) == ["filter"]
    assert service.at("a", filter="1").settle() == []
    service.running.add("a")
    assert service.pass_time(other, 2 * QUIET_SECONDS) == ["filter"]
    assert service.counts == {"cases": {"filter": "1"}}


def test_while_nothing_can_be_heard_nobody_takes_silence_for_an_answer() -> None:
    service = Service()
    service.at("a", filter="1").settle()
    other = service.at("b", filter="2")
    other.settle()
    service.is_away = True
    assert service.pass_time(other, 3 * QUIET_SECONDS) == ["filter"]
    service.is_away = False
    assert service.pass_time(other, QUIET_SECONDS - 1) == ["filter"]
    assert service.pass_time(other, 1) == []


def test_a_daemon_that_is_alone_gets_its_new_configuration_after_a_while() -> None:
    service = Service()
    service.at("a", filter="1").settle()
    service.running.add("a")
    assert service.pass_time(service.at("a", filter="2"), QUIET_SECONDS + 1) == []


def test_nothing_differs_while_nothing_counts() -> None:
    service = Service()
    assert service.at("a", filter="1").find_differences() == []
    assert service.counts == {}

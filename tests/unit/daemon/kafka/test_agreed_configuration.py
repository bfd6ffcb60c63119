"""Which of two configurations of a pillow counts."""

from __future__ import annotations

from collections.abc import Mapping

from daemon.kafka.agreed_configuration import AgreedConfiguration


class Service:
    """What the daemons have agreed on, and who runs the pillow."""

    def __init__(self) -> None:
        self.counts: dict[str, Mapping[str, str]] = {}
        self.running: set[str] = set()

    def find_configuration(self, pillow: str) -> Mapping[str, str] | None:
        return self.counts.get(pillow)

    def set_configuration(self, pillow: str, digests: Mapping[str, str]) -> None:
        self.counts[pillow] = digests

    def at(self, daemon: str, **ours: str) -> AgreedConfiguration:
        return AgreedConfiguration("cases", ours, self, lambda: bool(self.running - {daemon}))


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
    assert other.settle() == []
    assert former.find_differences() == ["filter"]


def test_a_daemon_that_runs_alone_is_not_held_up_by_itself() -> None:
    service = Service()
    service.at("a", filter="1").settle()
    service.running.add("a")
    assert service.at("a", filter="2").settle() == []


def test_nothing_differs_while_nothing_counts() -> None:
    service = Service()
    assert service.at("a", filter="1").find_differences() == []
    assert service.counts == {}

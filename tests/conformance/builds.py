"""Two builds of an output: filled side by side, exchanged, exchanged back, dropped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from checkpoints import TailKey
from pillows.errors import ConfigError, FatalError
from pillows.options import Build
from pillows.transports.base import Transport
from pillows.transports.common.builds import Exchange
from tests.conformance.steps import assert_applied, only_transactional, opened, rows
from tests.conformance.target import KEY, Target, at, batch, document, gone

TO_SECOND = Exchange(key=KEY, outgoing=1, incoming=2)
SECOND = Build(number=2, live=False)
FIRST_PARKED = Build(number=1, live=False)


def make(target: Target, build: Build, *outputs: str, key: TailKey = KEY) -> Transport:
    """A transport for that build."""
    made = target.transport(*outputs, key=key)
    given = {name: options.of_build(build) for name, options in made.outputs.items()}
    return type(made)(made.name, key, made.connection, given)


@contextmanager
def running(target: Target, build: Build, *outputs: str, key: TailKey = KEY, seq: str = "0") -> Iterator[Any]:
    """An open and claimed transport for that build."""
    transport: Any = make(target, build, *outputs, key=key)
    try:
        transport.state = transport.open()
        transport.acquire(at(seq))
        yield transport
    finally:
        transport.close()


def fill(target: Target, output: str = "docs") -> None:
    """The first build holds a, b, x as of version 1; the second a and b as of 2, and once held x and y."""
    with opened(target, output) as live:
        written = [document(id, 1, {"n": 1}, output=output) for id in "abx"]
        assert_applied(live.write(batch(*written, document("y", 1, output=output), checkpoint=at("1-x"))))
    with running(target, SECOND, output, key=TO_SECOND.shadow) as shadow:
        assert (shadow.state.empty, shadow.state.epoch, shadow.state.foreign_epoch) == (True, None, None)
        assert_applied(shadow.write(batch(*[document(id, 2, {"n": 2}, output=output) for id in "abxy"])))
        assert_applied(shadow.write(batch(gone("x", 3), gone("y", 3), checkpoint=at("2-x"))))


def exchange(target: Target, one: Exchange, *outputs: str) -> None:
    """Exchanges, and does it again, as after a crash."""
    number = one.outgoing
    for _ in range(2):
        make(target, Build(number=number), *outputs).make_switch().exchange(one)


class BuildConformance:
    """Builds, where the target has any."""

    @pytest.fixture(autouse=True)
    def _only_with_builds(self, request: pytest.FixtureRequest, target: Target) -> None:
        if "build" in request.node.name and not target.has_builds and "refused" not in request.node.name:
            pytest.skip("this target has no builds")

    @pytest.mark.parametrize("output", ["docs", "lines"])
    def test_a_build_is_seen_only_after_the_exchange_and_again_after_the_way_back(
        self, target: Target, output: str
    ) -> None:
        if output == "lines" and not target.has_many:
            pytest.skip("this target has no child rows")
        fill(target, output)
        first, second = {id: [{"n": 1}] for id in "abx"}, {id: [{"n": 2}] for id in "ab"}
        assert rows(target, output) == first
        assert make(target, Build(), output).make_switch().list_obstacles() == []
        for _ in range(2):
            exchange(target, TO_SECOND, output)
            assert rows(target, output) == second
            exchange(target, TO_SECOND.reverse(), output)
            assert rows(target, output) == first

    @pytest.mark.parametrize("output", ["docs", "lines"])
    def test_both_builds_go_on_with_their_own_guards(self, target: Target, output: str) -> None:
        if output == "lines" and not target.has_many:
            pytest.skip("this target has no child rows")
        fill(target, output)
        exchange(target, TO_SECOND, output)
        with running(target, Build(number=2), output) as live:
            assert not live.state.empty
            late = [document(id, 1, {"n": 1}, output=output) for id in "abxy"]
            refused = live.write(batch(*late)).refused
            assert refused.keys() >= ({*"abxy"} if target.remembers_deletes else {*"ab"})
            assert_applied(live.write(batch(document("c", 1, {"n": 3}, output=output))))
        with running(target, FIRST_PARKED, output, key=TO_SECOND.parked) as parked:
            assert not parked.state.empty
            assert parked.write(batch(document("a", 1, {"n": 9}, output=output))).refused.keys() == {"a"}
            assert_applied(parked.write(batch(document("x", 4, {"n": 4}, output=output))))
        assert rows(target, output) == {"a": [{"n": 2}], "b": [{"n": 2}], "c": [{"n": 3}]}
        exchange(target, TO_SECOND.reverse(), output)
        assert rows(target, output) == {"a": [{"n": 1}], "b": [{"n": 1}], "x": [{"n": 4}]}

    def test_the_checkpoints_go_with_the_builds(self, target: Target) -> None:
        only_transactional(target)
        fill(target)
        exchange(target, TO_SECOND, "docs")
        for build, key, seq in ((Build(number=2), KEY, "2-x"), (FIRST_PARKED, TO_SECOND.parked, "1-x")):
            one = make(target, build, "docs", key=key)
            found = one.open().checkpoint
            one.close()
            assert found is not None
            assert str(found.seq) == seq

    def test_a_dropped_build_is_gone_and_the_live_one_untouched(self, target: Target) -> None:
        fill(target)
        exchange(target, TO_SECOND, "docs")
        for _ in range(2):
            make(target, FIRST_PARKED, "docs", key=TO_SECOND.parked).make_switch().drop()
        assert rows(target) == {id: [{"n": 2}] for id in "ab"}
        with running(target, FIRST_PARKED, "docs", key=TO_SECOND.parked) as again:
            assert (again.state.empty, again.state.epoch) == (True, None)
            assert_applied(again.write(batch(document("x", 1, {"n": 1}))))

    def test_the_live_build_is_never_dropped(self, target: Target) -> None:
        fill(target)
        with pytest.raises(ValueError, match="is live"):
            make(target, Build(), "docs").make_switch().drop()
        assert rows(target).keys() == {*"abx"}

    def test_a_build_that_is_not_live_exchanges_nothing(self, target: Target) -> None:
        fill(target)
        with pytest.raises(ValueError, match="build 2 is not live"):
            make(target, SECOND, "docs").make_switch().exchange(TO_SECOND)
        assert rows(target) == {id: [{"n": 1}] for id in "abx"}

    def test_an_exchange_without_a_live_build_shows_the_other_one_or_fails(self, target: Target) -> None:
        with running(target, SECOND, "docs", key=TO_SECOND.shadow) as shadow:
            assert_applied(shadow.write(batch(document("a", 1, {"n": 2}))))
        try:
            exchange(target, TO_SECOND, "docs")
        except ConfigError as error:
            assert "does not exist" in str(error)  # noqa: PT017 - one of two good outcomes
        else:
            assert rows(target) == {"a": [{"n": 2}]}

    def test_a_build_that_is_gone_is_not_switched_to(self, target: Target) -> None:
        with opened(target, "docs") as live:
            live.write(batch(document("a", 1, {"n": 1})))
        with pytest.raises(FatalError):
            make(target, Build(), "docs").make_switch().exchange(TO_SECOND)
        assert rows(target) == {"a": [{"n": 1}]}

    def test_a_rebuild_is_refused_by_a_target_without_builds(self, target: Target) -> None:
        if target.has_builds:
            pytest.skip("this target has builds")
        with pytest.raises(ConfigError, match="can't be switched"):
            target.transport("docs").make_switch()

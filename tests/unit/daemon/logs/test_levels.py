"""Levels of loggers that hold for a while, on a clock of the test's own."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
import structlog

import daemon
from daemon.logs.levels import LOGGERS, LogLevels
from daemon.logs.setup import configure_logging
from pillows.redaction import Redactor
from tests.support.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(auto=False)


@pytest.fixture
def levels(clock: FakeClock) -> LogLevels:
    return LogLevels("info", clock)


def test_a_level_holds_for_the_loggers_below_and_ends_by_itself(levels: LogLevels, clock: FakeClock) -> None:
    levels.choose("pillowd", "debug", 60)
    assert levels.allows("pillowd.pillow", "debug")
    clock.advance(59)
    assert levels.get("pillowd.pillow").seconds_left == 1
    assert levels.expire() == []
    clock.advance(1)
    assert levels.expire() == ["pillowd"]
    assert not levels.allows("pillowd.pillow", "debug")
    assert levels.get("pillowd.pillow").seconds_left is None


def test_the_nearest_level_counts_and_the_lowest_of_all_is_known(levels: LogLevels) -> None:
    levels.choose("pillowd", "error", 60)
    levels.choose("pillowd.pillow", "debug", 60)
    assert levels.allows("pillowd.pillow", "debug")
    assert not levels.allows("pillowd.daemon", "warning")
    assert levels.allows("pillowd.daemon", "critical")
    assert levels.lowest == 10


def test_a_level_for_a_logger_ends_those_of_the_loggers_below(levels: LogLevels) -> None:
    levels.choose("pillowd.pillow", "debug", 60)
    levels.choose("pillowd", "warning", 60)
    assert levels.get("pillowd.pillow").level == "warning"
    levels.restore("pillowd")
    assert {each.level for each in levels.list_all()} == {"info"}


def test_a_changed_configuration_leaves_a_chosen_level(levels: LogLevels) -> None:
    levels.choose("pillowd.pillow", "debug", 60)
    levels.configure("error")
    assert (levels.get("pillowd.pillow").level, levels.get("pillowd.daemon").level) == ("debug", "error")


@pytest.mark.parametrize(
    ("logger", "level", "seconds", "words"),
    [
        ("pillowd.pilow", "debug", 60, "did you mean `pillowd.pillow`"),
        ("urllib3", "debug", 60, "there is no logger 'urllib3'"),
        ("pillowd", "verbose", 60, "levels: debug, info, warning, error"),
        ("pillowd", "debug", 0, "at most 24 hours"),
        ("pillowd", "debug", 86_401, "`logging.level`"),
    ],
)
def test_what_is_not_valid_is_refused_with_the_remedy(
    levels: LogLevels, logger: str, level: str, seconds: float, words: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        levels.choose(logger, level, seconds)


def test_every_logger_of_the_daemon_is_listed() -> None:
    texts = (path.read_text() for path in Path(daemon.__file__).parent.rglob("*.py"))
    used = {name for text in texts for name in re.findall(r'get_logger\("([^"]+)"', text)}
    assert used <= LOGGERS.keys()


def test_a_bound_logger_that_is_older_than_a_level_obeys_it(clock: FakeClock) -> None:
    stream = io.StringIO()
    with configure_logging(
        format="json", level="info", stream=stream, clock=clock, redactor=Redactor()
    ) as logs:
        batch = structlog.get_logger("pillowd.pillow", pillow="cases")
        other = structlog.get_logger("pillowd.daemon")
        batch.debug("one")
        logs.choose_level("pillowd.pillow", "debug", 10)
        batch.debug("two")
        other.debug("three")
        clock.advance(10)
        logs.flush()
        batch.debug("four")
        assert logs.drain()
    events = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert events == ["two", "log.level_restored"]

"""Levels of loggers by the API, for a while and back."""

from __future__ import annotations

import io
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from daemon.errors import InvalidRequestError, NotFoundError, UnavailableError
from daemon.http.routes.loggers import get_logger, list_loggers, restore_logger, set_logger
from daemon.logs.levels import LOGGERS
from daemon.logs.setup import configure_logging
from pillows.redaction import Redactor
from tests.support.clock import FakeClock


@pytest.fixture
def api() -> Iterator[Any]:
    clock = FakeClock(auto=False)
    with configure_logging(
        format="json", level="info", stream=io.StringIO(), clock=clock, redactor=Redactor()
    ) as logs:
        yield SimpleNamespace(logs=logs, clock=clock)


def test_a_level_is_chosen_listed_and_restored(api: Any) -> None:
    chosen = set_logger(api, name="pillowd", body={"level": "debug", "for": "1m"})
    assert chosen == {"name": "pillowd", "level": "debug", "seconds_left": 60.0}
    assert get_logger(api, name="pillowd.pillow")["level"] == "debug"
    assert {each["name"] for each in list_loggers(api)["loggers"]} == LOGGERS.keys()
    assert restore_logger(api, name="pillowd")["level"] == "info"
    assert set_logger(api, name="pillowd", body={"level": "error"})["seconds_left"] == 600.0


def test_it_returns_by_itself(api: Any) -> None:
    set_logger(api, name="pillowd", body={"level": "debug", "for": "1m"})
    api.clock.advance(60)
    api.logs.flush()
    assert get_logger(api, name="pillowd") == {"name": "pillowd", "level": "info", "seconds_left": None}


@pytest.mark.parametrize(
    ("name", "body", "error", "words"),
    [
        ("pillowd.pilow", {"level": "debug"}, NotFoundError, "did you mean `pillowd.pillow`"),
        ("pillowd", {"level": "debug", "for": "2d"}, InvalidRequestError, "at most 24 hours"),
        ("pillowd", {"level": "debug", "for": "soon"}, InvalidRequestError, "a number with a unit"),
    ],
)
def test_what_is_not_valid_is_refused(
    api: Any, name: str, body: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        set_logger(api, name=name, body=body)


def test_without_a_daemon_there_is_no_log() -> None:
    with pytest.raises(UnavailableError):
        list_loggers(SimpleNamespace(logs=None))  # type: ignore[arg-type]  # only this is asked of it

"""The levels of the log while the daemon runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import asdict

from daemon.control.api import ControlApi
from daemon.errors import InvalidRequestError, NotFoundError, UnavailableError
from daemon.logs.levels import DEFAULT_SECONDS, LOGGERS, LoggerLevel
from daemon.logs.setup import Logs
from pillows.options import seconds
from pillows.suggest import suggest


def list_loggers(api: ControlApi) -> dict[str, Any]:
    """Return the level of every logger."""
    return {"loggers": [asdict(each) for each in _require(api).list_levels()]}


def get_logger(api: ControlApi, *, name: str) -> dict[str, Any]:
    """Return the level of one logger."""
    return _ask(name, lambda: _require(api).get_level(name))


def set_logger(api: ControlApi, *, name: str, body: dict[str, Any]) -> dict[str, Any]:
    """Give a logger, and those below it, another level for a while."""

    def choose() -> LoggerLevel:
        duration = seconds(body["for"]) if "for" in body else DEFAULT_SECONDS
        return _require(api).choose_level(name, body["level"], duration)

    return _ask(name, choose)


def restore_logger(api: ControlApi, *, name: str) -> dict[str, Any]:
    """Return a logger, and those below it, to the configured level."""
    return _ask(name, lambda: _require(api).restore_level(name))


def _ask(name: str, call: Callable[[], LoggerLevel]) -> dict[str, Any]:
    if name not in LOGGERS:
        raise NotFoundError(f"there is no logger {name!r}", remedy=suggest(name, list(LOGGERS), "loggers"))
    try:
        return asdict(call())
    except ValueError as error:
        reason, _, remedy = str(error).partition(". Remedy: ")
        raise InvalidRequestError(reason, remedy=remedy) from error


def _require(api: ControlApi) -> Logs:
    if api.logs is None:
        raise UnavailableError("the daemon is not running", remedy="`pillowd run`")
    return api.logs

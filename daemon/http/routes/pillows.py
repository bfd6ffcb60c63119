"""The state of pillows; pause, resume, stop and restart."""

from __future__ import annotations

from typing import Any

from checkpoints import TailKey
from daemon.control.api import ControlApi
from daemon.control.audit import Actor
from daemon.control.pillows import Wish
from daemon.http.durations import parse_wait
from daemon.http.messages import Answer


def list_pillows(
    api: ControlApi, *, by: Actor, state: str | None = None, limit: int = 1000, after: str = ""
) -> dict[str, Any]:
    """Return the state of the daemon and a page of its pillows."""
    found = api.pillows.list_page(state=state, limit=limit, after=after)
    if by.via == "http":
        found["unfinished_acts"] = []  # only operators may see who did something
    return found | {"pillows": [_show(by, pillow) for pillow in found["pillows"]]}


def get_pillow(api: ControlApi, *, by: Actor, key: str, source: str | None = None) -> dict[str, Any]:
    """Return the state of one pillow."""
    return _show(by, api.pillows.get(key, source))


def list_databases(
    api: ControlApi,
    *,
    key: str,
    source: str | None = None,
    state: str | None = None,
    worst: bool = False,
    limit: int = 1000,
    after: str = "",
) -> dict[str, Any]:
    """Return a page of the databases of a pillow that reads several."""
    tail = api.tails.configured(key, source)
    return api.databases.list_page(tail, state=state, worst=worst, limit=limit, after=after)


def pause_pillow(api: ControlApi, *, key: str, source: str | None = None, wait: str = "") -> Answer:
    """Stop a pillow until it is resumed, even if the daemon restarts."""
    tail = api.tails.configured(key, source)
    api.pillows.pause(tail)
    return _answer(api, "pause", tail, wait)


def resume_pillow(api: ControlApi, *, key: str, source: str | None = None, wait: str = "") -> Answer:
    """End a pause, or a stop."""
    tail = api.tails.configured(key, source)
    api.pillows.resume(tail)
    return _answer(api, "resume", tail, wait)


def stop_pillow(api: ControlApi, *, key: str, source: str | None = None, wait: str = "") -> Answer:
    """Stop a pillow until it is resumed, or until the daemon restarts."""
    tail = api.tails.configured(key, source)
    api.pillows.stop(tail)
    return _answer(api, "stop", tail, wait)


def restart_pillow(api: ControlApi, *, key: str, source: str | None = None, wait: str = "") -> Answer:
    """Stop a pillow and start it again, even if it has failed."""
    tail = api.tails.configured(key, source)
    api.pillows.restart(tail)
    return _answer(api, "restart", tail, wait)


def restart_pillows(api: ControlApi, *, only_failed: bool = False) -> Answer:
    """Restart all pillows, or those that have failed."""
    return Answer(status=202, body={"restarted": api.pillows.restart_all(only_failed=only_failed)})


def _answer(api: ControlApi, wish: Wish, tail: TailKey, wait: str) -> Answer:
    """Return 202 at once or, with `wait`, 200 once the pillow is in the requested state."""
    if not wait:
        return Answer(status=202, body=api.pillows.describe(tail))
    return Answer(body=api.pillows.wait_until(wish, tail, parse_wait(wait)))


def _show(by: Actor, pillow: dict[str, Any]) -> dict[str, Any]:
    """Return a state; on the read-only listener without its token, which is a position in the data."""
    return pillow | {"seq": None} if by.via == "http" else pillow

"""Streams of server-sent events: the states of all pillows, and samples of one pillow's data."""

from __future__ import annotations

from daemon.control.api import ControlApi
from daemon.errors import UnavailableError
from daemon.http.messages import EVENTS, Answer
from daemon.streams.senders import stream_tap
from daemon.streams.taps import Stage


def stream_events(api: ControlApi, *, last_event_id: str = "") -> Answer:
    """Stream the states of all pillows and notable events."""
    if api.events is None:
        raise UnavailableError("the daemon is not running", remedy="`pillowd run`")
    return Answer(body=api.events.stream(last_event_id), media_type=EVENTS, is_stream=True)


def tap_pillow(
    api: ControlApi,
    *,
    key: str,
    source: str | None = None,
    stage: str = Stage.CHANGE,
    rate: float = 10.0,
    values: bool = False,
) -> Answer:
    """Stream samples of the changes or rows of a pillow."""
    if api.taps is None:
        raise UnavailableError("the daemon is not running", remedy="`pillowd run`")
    tail = api.tails.supervised(key, source)
    body = stream_tap(api.taps, tail, Stage(stage), rate=rate, values=values, clock=api.clock)
    return Answer(body=body, media_type=EVENTS, is_stream=True)

"""Durations in requests: `?wait=30s`."""

from __future__ import annotations

from daemon.errors import InvalidRequestError
from pillows.options import seconds

#: Longest wait that a request may ask for.
MAX_WAIT_SECONDS = 60.0


def parse_seconds(text: str) -> float:
    """Return the seconds of a duration such as `24h`.

    Raises:
        InvalidRequestError: the text is not a valid duration.
    """
    try:
        return seconds(text)
    except ValueError as error:
        raise InvalidRequestError(f"`{text}` {error}") from error


def parse_wait(text: str) -> float:
    """Return the seconds of `?wait=`.

    Raises:
        InvalidRequestError: the text is not a valid duration, or too long.
    """
    found = parse_seconds(text)
    if found > MAX_WAIT_SECONDS:
        raise InvalidRequestError(f"`wait` is {MAX_WAIT_SECONDS:g} s at most", remedy="ask again after that")
    return found

"""Settings of a pillow's worker processes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from pillows.errors import ConfigError
from pillows.options import Options, Size

#: Most workers of a pillow.
MAX_WORKERS = 64


def _check_workers(value: object) -> object:
    if value == "auto" or (type(value) is int and 0 <= value <= MAX_WORKERS):
        return value
    raise ValueError(f"needs a number from 0 to {MAX_WORKERS}, or auto; write `auto`")


def parse_workers(text: str) -> int | Literal["auto"]:
    """Return how many workers a command line asks for.

    Raises:
        ConfigError: it is not a number of workers.
    """
    if text == "auto":
        return "auto"
    if text not in map(str, range(MAX_WORKERS + 1)):
        raise ConfigError(
            f"{text!r} is not a number of workers.", remedy=f"use a number up to {MAX_WORKERS}, or auto"
        )
    return int(text)


class LoadOptions(Options):
    """Worker processes that filter and transform while a pillow is far behind.

    Attributes:
        workers: number of processes; `auto` is one fewer than there are cores, 8 at most. They are started
            when more than 10,000 changes are behind, and end at the head of the feed.
        worker_memory: most memory of a worker; one that has more is replaced.
    """

    workers: Annotated[
        Annotated[int, Field(ge=0, le=MAX_WORKERS)] | Literal["auto"], BeforeValidator(_check_workers)
    ] = 0
    worker_memory: Size = Field(default=512 * 2**20, ge=128 * 2**20)

"""Settings of a pillow's worker processes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pillows.options import Options, Size


class LoadOptions(Options):
    """Worker processes that filter and transform while a pillow is far behind.

    Attributes:
        workers: how many; `auto` is one less than there are cores, 8 at most. They are started when more than
            10,000 changes are behind, and end at the head of the feed.
        worker_memory: memory of a worker; one that has more is replaced.
    """

    workers: Annotated[int, Field(ge=0, le=64)] | Literal["auto"] = 0
    worker_memory: Size = Field(default=512 * 2**20, ge=64 * 2**20)

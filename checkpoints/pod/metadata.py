"""`.meta`: what a store says about itself, in a file that tastypy does not look at.

It holds the format number, what kind of store it is, and how many lines each segment has *at least*.
These lower bounds tell a file that lost lines from one that was always short: they are raised after
lines were added and lowered before lines are removed, so that a crash between the two never raises
a false alarm, and an update of existing keys writes no `.meta` at all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from checkpoints.errors import IntegrityError, NewerFormat

META = ".meta"
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreMetadata:
    """The content of a store's `.meta`.

    Attributes:
        kind: `pod`, `tracker` or `checkpoints`.
        file_size: how many lines a segment takes.
        gzipped: whether segments are compressed.
        counts: by segment, how many lines it has at least.
        settings: what a kind of store keeps beside (`max_tries`).
    """

    kind: str = "pod"
    file_size: int
    gzipped: bool = False
    counts: tuple[int, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Return the file's content: short, since all segments but the last are usually full."""
        short = {
            str(number): lines for number, lines in enumerate(self.counts[:-1]) if lines != self.file_size
        }
        content = {
            "format": FORMAT,
            "kind": self.kind,
            "file_size": self.file_size,
            "gzipped": self.gzipped,
            "segments": len(self.counts),
            "last": self.counts[-1] if self.counts else 0,
            "short": short,
            "settings": self.settings,
        }
        return json.dumps(content).encode() + b"\n"

    @classmethod
    def decode(cls, data: bytes) -> StoreMetadata:
        """Return the metadata in a file's content.

        Raises:
            NewerFormat: it is of another format.
            IntegrityError: it is not metadata.
        """
        try:
            content = json.loads(data)
            if content["format"] != FORMAT:
                raise NewerFormat(f"it has format {content['format']!r}, this pillowd knows {FORMAT}")
            counts = [content["file_size"]] * content["segments"]
            if counts:
                counts[-1] = content["last"]
            for number, lines in content["short"].items():
                counts[int(number)] = lines
            return cls(
                kind=content["kind"],
                file_size=content["file_size"],
                gzipped=content["gzipped"],
                counts=tuple(counts),
                settings=content["settings"],
            )
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise IntegrityError(f"it is not what a store says about itself: {error!r}") from error


def lower_bounds(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    """Return the bounds that hold in both of two states."""
    return tuple(map(min, one, other))


def satisfies(bounds: Sequence[int], counts: Sequence[int]) -> bool:
    """Return whether segments of `counts` lines have at least `bounds` lines."""
    return len(bounds) <= len(counts) and all(map(int.__le__, bounds, counts))

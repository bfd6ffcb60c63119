"""`.meta`: a store's description, in a file that tastypy ignores.

It holds the format number, the kind of the store, and the least number of lines of each segment. These lower
bounds reveal a file that has lost lines. They are raised after lines were added and lowered before lines are
removed, so a crash between the two never raises a false alarm, and an update of existing keys does not write
`.meta` at all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from msgspec import Struct, field

from checkpoints.errors import IntegrityError, NewerFormat

META = ".meta"
FORMAT = 1


class StoreMetadata(Struct, frozen=True, kw_only=True):
    """The content of a store's `.meta`.

    Attributes:
        kind: `pod`, `tracker` or `checkpoints`.
        file_size: the most lines of a segment.
        gzipped: whether segments are compressed.
        counts: by segment, its least number of lines.
        settings: further settings of a kind of store (`max_tries`).
    """

    kind: str = "pod"
    file_size: int
    gzipped: bool = False
    counts: tuple[int, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Return the file's content. It stays short because all segments but the last are usually full."""
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
            NewerFormat: the content has a format that this pillowd does not know.
            IntegrityError: the content is not valid.
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
            raise IntegrityError(f"it is not a valid description of a store: {error!r}") from error


def lower_bounds(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    """Return the lower bounds that hold in both of two states."""
    return tuple(map(min, one, other))


def satisfies(bounds: Sequence[int], counts: Sequence[int]) -> bool:
    """Return whether segments of `counts` lines have at least `bounds` lines."""
    return len(bounds) <= len(counts) and all(map(int.__le__, bounds, counts))

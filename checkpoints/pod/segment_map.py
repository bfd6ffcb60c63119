"""The file of each key: the order of keys, cut into segments.

A segment is one file of at most `file_size` lines. Keys keep the order in which they were first
added; a removed one leaves a hole, so that no other key moves to another file. When there are more
holes than keys, `compact` moves everything up.

Nothing here touches the disk.
"""

from __future__ import annotations

from bisect import bisect_right

from checkpoints.pod.codec import Key


class SegmentMap:
    """The lines of a store by segment.

    Attributes:
        file_size: the most lines of a segment.
        segments: by number, each segment's lines by key, in order.
    """

    def __init__(self, file_size: int) -> None:
        self.file_size = file_size
        self.segments: list[dict[Key, bytes]] = []
        self._ordinals: dict[Key, int] = {}
        self._starts: list[int] = []
        self._next = 0

    def __contains__(self, key: Key) -> bool:
        return key in self._ordinals

    def __len__(self) -> int:
        return len(self._ordinals)

    def line(self, key: Key) -> bytes:
        """Return the line of a key.

        Raises:
            KeyError: the key is missing.
        """
        return self.segments[self.segment_of(key)][key]

    def segment_of(self, key: Key) -> int:
        """Return the number of a key's segment.

        Raises:
            KeyError: the key is missing.
        """
        return bisect_right(self._starts, self._ordinals[key]) - 1

    def put(self, key: Key, line: bytes) -> int:
        """Replace a key's line in its place, or add it at the end. Return its segment."""
        if key in self._ordinals:
            number = self.segment_of(key)
            self.segments[number][key] = line
            return number
        if not self.segments or len(self.segments[-1]) >= self.file_size:
            self.add_segment()
        self.append(key, line)
        return len(self.segments) - 1

    def add_segment(self) -> None:
        """Begin a new segment at the end."""
        self.segments.append({})
        self._starts.append(self._next)

    def append(self, key: Key, line: bytes) -> int | None:
        """Add a key to the last segment, even if that is full.

        A key that exists moves there, because the last line of a key counts.

        Returns:
            The key's previous segment; None if the key is new.
        """
        before = self.remove(key) if key in self._ordinals else None
        self.segments[-1][key] = line
        self._ordinals[key] = self._next
        self._next += 1
        return before

    def remove(self, key: Key) -> int:
        """Remove a key. Return its former segment.

        Raises:
            KeyError: the key is missing.
        """
        number = self.segment_of(key)
        del self.segments[number][key]
        del self._ordinals[key]
        return number

    def after(self, ordinal: int, count: int) -> list[tuple[int, Key]]:
        """Return at least `count` keys after `ordinal`, with their ordinals; fewer at the end.

        Ordinals follow the order of keys and never change. So a walk in pages (the first from -1) returns
        every key that stays, none twice, and also keys that are added during the walk.
        """
        page: list[tuple[int, Key]] = []
        for number in range(max(bisect_right(self._starts, ordinal) - 1, 0), len(self.segments)):
            numbered = ((self._ordinals[key], key) for key in self.segments[number])
            page += [entry for entry in numbered if entry[0] > ordinal]
            if len(page) >= count:
                break
        return page

    def trim(self) -> None:
        """Drop empty segments at the end."""
        while self.segments and not self.segments[-1]:
            del self.segments[-1], self._starts[-1]

    @property
    def is_fragmented(self) -> bool:
        """Return whether there are more holes than keys and two segments together."""
        return len(self.segments) * self.file_size > 2 * (len(self) + self.file_size)

    def compact(self) -> set[int]:
        """Close all holes. Return the segments whose lines have changed."""
        old = self.segments
        lines = [(key, line) for segment in old for key, line in segment.items()]
        self.segments, self._starts = [], []
        for start in range(0, len(lines), self.file_size):
            self._starts.append(self._ordinals[lines[start][0]])
            self.segments.append(dict(lines[start : start + self.file_size]))
        return {
            number for number, segment in enumerate(self.segments) if segment.keys() != old[number].keys()
        }

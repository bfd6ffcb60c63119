"""Which key stands in which file: the order of keys, cut into segments.

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
        file_size: how many lines a segment takes.
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
        """The line of a key.

        Raises:
            KeyError: there is none.
        """
        return self.segments[self.segment_of(key)][key]

    def segment_of(self, key: Key) -> int:
        """The number of the segment that a key stands in.

        Raises:
            KeyError: there is no such key.
        """
        return bisect_right(self._starts, self._ordinals[key]) - 1

    def put(self, key: Key, line: bytes) -> int:
        """Replaces a key's line in its place, or adds it at the end. Returns its segment."""
        if key in self._ordinals:
            number = self.segment_of(key)
            self.segments[number][key] = line
            return number
        if not self.segments or len(self.segments[-1]) >= self.file_size:
            self.add_segment()
        self.append(key, line)
        return len(self.segments) - 1

    def add_segment(self) -> None:
        """Begins a new segment at the end."""
        self.segments.append({})
        self._starts.append(self._next)

    def append(self, key: Key, line: bytes) -> int | None:
        """Adds a key to the last segment, whatever its size.

        One that is in the store already moves there: of two lines of one key the last counts.

        Returns:
            The segment that it stood in before, None if it is new.
        """
        before = self.remove(key) if key in self._ordinals else None
        self.segments[-1][key] = line
        self._ordinals[key] = self._next
        self._next += 1
        return before

    def remove(self, key: Key) -> int:
        """Removes a key. Returns the segment that it stood in.

        Raises:
            KeyError: there is none.
        """
        number = self.segment_of(key)
        del self.segments[number][key]
        del self._ordinals[key]
        return number

    def after(self, ordinal: int, count: int) -> list[tuple[int, Key]]:
        """At least `count` keys with their ordinals that come after `ordinal`, if there are as many.

        Ordinals grow with the order and never change, so that a walk in pages (the first from -1)
        sees every key that stays, none twice, and those that are added meanwhile.
        """
        page: list[tuple[int, Key]] = []
        for number in range(max(bisect_right(self._starts, ordinal) - 1, 0), len(self.segments)):
            numbered = ((self._ordinals[key], key) for key in self.segments[number])
            page += [entry for entry in numbered if entry[0] > ordinal]
            if len(page) >= count:
                break
        return page

    def trim(self) -> None:
        """Drops empty segments at the end."""
        while self.segments and not self.segments[-1]:
            del self.segments[-1], self._starts[-1]

    @property
    def is_fragmented(self) -> bool:
        """Whether there are so many holes that `compact` is worth it."""
        return len(self.segments) * self.file_size > 2 * (len(self) + self.file_size)

    def compact(self) -> set[int]:
        """Closes all holes. Returns the segments whose lines are others now."""
        old = self.segments
        lines = [(key, line) for segment in old for key, line in segment.items()]
        self.segments, self._starts = [], []
        for start in range(0, len(lines), self.file_size):
            self._starts.append(self._ordinals[lines[start][0]])
            self.segments.append(dict(lines[start : start + self.file_size]))
        return {
            number for number, segment in enumerate(self.segments) if segment.keys() != old[number].keys()
        }

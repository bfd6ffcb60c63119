"""What is known about a store's files, and the plan of the next commit that keeps it true."""

from __future__ import annotations

from collections.abc import Iterable

from checkpoints.pod.commit import Plan
from checkpoints.pod.hooks import Rules
from checkpoints.pod.memtable import Taken
from checkpoints.pod.metadata import Meta, holds, lower
from checkpoints.pod.segments import Scan


class OnDisk:
    """What is known about a store's files. While a commit runs, and after one that failed, each file
    may be the old or the new one: what is kept here holds for both.

    Attributes:
        gzipped: whether segments are compressed.
        bounds: by segment that surely has a file, how many lines that has at least.
    """

    def __init__(self, scanned: Scan, rules: Rules) -> None:
        self.gzipped = scanned.gzipped
        self.bounds = list(scanned.counts)
        self._files = len(scanned.counts)  # as many may be there
        self._meta = scanned.meta
        self._file_size = scanned.layout.file_size
        self._rules = rules
        self._restate = False

    def restate(self) -> None:
        """Has `.meta` written at the next commit: what the rules keep there is another."""
        self._meta = None
        self._restate = True

    def plan(self, taken: Taken) -> Plan:
        """The commit that writes what was taken."""
        counts = self._counts_after(taken)
        removals = range(len(counts), self._files) if len(counts) == taken.length else range(0)
        before, after = None, None
        if taken.segments or removals or self._restate:
            before, after = self._metas(counts)
        return Plan(
            gzipped=self.gzipped,
            before=before,
            segments=taken.segments,
            new=0 if taken.moved else len(self.bounds),
            removals=removals,
            after=after,
            counts=counts,
        )

    def succeeded(self, plan: Plan) -> None:
        """Everything of a plan was carried out."""
        self.bounds, self._files = list(plan.counts), max(len(plan.counts), self._files - len(plan.removals))
        if plan.segments or plan.removals or self._restate:
            self._meta, self._restate = self._stated(plan.counts), False

    def failed(self, plan: Plan) -> None:
        """Any part of a plan may have been carried out."""
        self._files = max(self._files, len(plan.counts))
        self.bounds = list(lower(self.bounds, plan.counts))
        self._meta = None

    def _counts_after(self, taken: Taken) -> list[int]:
        length = max(min(len(self.bounds), taken.length), max(taken.segments, default=-1) + 1)
        counts = (self.bounds + [0] * length)[:length]
        for number, lines in taken.segments.items():
            counts[number] = len(lines)
        return counts

    def _metas(self, counts: list[int]) -> tuple[bytes | None, bytes | None]:
        """`.meta` as it must be before the commit, and as it may be after it; None: as it is."""
        if self._meta is not None and list(self._meta.counts) == counts:
            return None, None
        sure, before = lower(self.bounds, counts), None
        if self._meta is None or not holds(self._meta.counts, sure):
            before = self._stated(sure).encode()
        complete = before is not None and list(sure) == counts
        return before, None if complete else self._stated(counts).encode()

    def _stated(self, counts: Iterable[int]) -> Meta:
        return Meta(
            kind=self._rules.kind,
            file_size=self._file_size,
            gzipped=self.gzipped,
            counts=tuple(counts),
            settings=self._rules.settings(),
        )

"""Compare targets with the truth."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tests.acceptance.stores import Rows
from tests.chaos.truth import Truth, make_body

KINDS = ("missing", "phantom", "resurrected", "stale", "corrupted")
#: A target that can't be read.
UNREADABLE = "unreadable"


@dataclass(slots=True)
class Verdict:
    """The differences found, by kind, with the first few examples."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Return whether there is a difference."""
        return bool(self.counts)

    def add(self, kind: str, text: str) -> None:
        self.counts[kind] += 1
        if len(self.examples) < 5:
            self.examples.append(f"{kind}: {text}")

    def __str__(self) -> str:
        return f"{dict(self.counts)} {self.examples}" if self else "equal"


def judge(truth: Truth, targets: dict[str, Rows]) -> Verdict:
    """Return the differences between the targets and the truth.

    Args:
        truth: the documents that the targets must hold.
        targets: name -> the rows in it.
    """
    verdict = Verdict()
    expected = truth.make_rows()
    for name, found in targets.items():
        for id in expected.keys() - found.keys():
            verdict.add("missing", f"{id} in {name}")
        for id in found.keys() - expected.keys():
            kind = "resurrected" if id in truth.documents else "phantom"
            verdict.add(kind, f"{id} in {name}: {found[id][:2]}")
        for id in expected.keys() & found.keys():
            if found[id] != expected[id]:
                own = make_body(id, found[id].body.get("n", -1))
                kind = "stale" if own == found[id].body else "corrupted"
                text = f"{found[id][:2]} instead of {expected[id][:2]}"
                verdict.add(kind, f"{id} in {name}: {text}")
    return verdict

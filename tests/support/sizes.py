"""How large a test is: small in CI, as an issue says with PILLOWD_PROOF=1, long with PILLOWD_SOAK=1."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import TypeVar

Size = TypeVar("Size", int, float)


def proving() -> bool:
    """Returns whether figures are to be proven at full size."""
    return os.environ.get("PILLOWD_PROOF", "0") not in {"", "0"}


def soaking() -> bool:
    """Returns whether tests may run for long."""
    return os.environ.get("PILLOWD_SOAK", "0") not in {"", "0"}


def size(*, ci: Size, proof: Size | None = None, soak: Size | None = None) -> Size:
    """Picks a test's size.

    Args:
        ci: everywhere; small enough for a pull request.
        proof: with PILLOWD_PROOF=1; the figure that the issue names.
        soak: with PILLOWD_SOAK=1; goes before `proof`.
    """
    if soaking() and soak is not None:
        return soak
    if proving() and proof is not None:
        return proof
    return ci


def best_of(measure: Callable[[], float], *, below: float) -> float:
    """The least of up to 200 measurements, the first that is small enough: whatever else runs only adds."""
    best = math.inf
    for _ in range(200):
        best = min(best, measure())
        if best < below:
            break
    return best

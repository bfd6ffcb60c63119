"""Inputs that are changed at random: for a machine without atheris, and for a second of every test run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from random import Random

PIECES = [
    b"\n",
    b"\r",
    b",",
    b"]",
    b"{",
    b'"',
    b"\xff",
    b"null",
    b"\\u",
    b"\t",
    b": ",
    b"${",
    b"-1",
    b"1e999",
]


def mutated(random: Random, seeds: Sequence[bytes]) -> bytes:
    """Return a seed with some bytes changed, cut, doubled or put elsewhere."""
    data = bytearray(random.choice(seeds))
    for _ in range(random.randint(0, 8)):
        at = random.randrange(len(data) + 1)
        kind = random.randrange(4)
        if kind == 0:
            data[at:at] = random.randbytes(random.randint(1, 9))
        elif kind == 1:
            del data[at : at + random.randint(1, 40)]
        elif kind == 2:
            data[at:at] = random.choice(seeds)[: random.randint(1, 200)]
        else:
            data[at : at + 1] = random.choice(PIECES)
    return bytes(data) + random.randbytes(2)


def run_random(parse: Callable[[bytes], None], seeds: Sequence[bytes], seconds: float, seed: int = 0) -> int:
    """Parse inputs for so long; return how many. Raises what the parser raises."""
    random = Random(seed)
    until, count = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        data = mutated(random, seeds)
        try:
            parse(data)
        except Exception as error:
            error.add_note(f"the input: {data!r}")
            raise
        count += 1
    return count

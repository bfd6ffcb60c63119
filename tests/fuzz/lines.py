"""Fuzzes the line reader: any bytes, cut anywhere, end in changes or in GarbageError, in bounded memory.

``python -m tests.fuzz.lines -max_total_time=600`` runs it under atheris (libFuzzer), which finds its
own way into the reader by watching which branches an input takes. Without atheris, or with
``--random SECONDS``, it mutates real responses at random. The last bytes of an input say where
the rest is cut into blocks and which reader gets them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from random import Random

from pillows.feed.parsing.changes_parser import (
    ChangesParser,
    ContinuousParser,
    MalformedFeedError,
    PageParser,
)

MAX_LINE_BYTES = 10_000

SEEDS = [
    (
        b'{"results":[\n{"seq":"1-x","id":"a","changes":[{"rev":"1-a"}],"doc":{"_id":"a"}},\r\n'
        b'{"seq":null,"id":"b","changes":[{"rev":"2-a"},{"rev":"1-b"}],"deleted":true}\n],\n'
        b'"last_seq":"2-x","pending":0}\n'
    ),
    (
        b'\n\n{"seq":[7,"g1A"],"id":"\xe2\x80\xa8","changes":[{"rev":"1-a"}],"doc":null}\n'
        b'{"last_seq":7,"pending":null}\n\n'
    ),
    b'{"results":[{"seq":1,"id":"a","changes":[{"rev":"1-a"}]}],"last_seq":1}\n',
    b'HTTP/1.1 412 Precondition Failed\r\n\r\n{"error":"nodedown"}\n',
    b'{"seq":"1","id":"a","changes":[{"rev":"1-a"}],"doc":' + b"[" * 2000 + b"]" * 2000 + b"}\n",
]


def blocks(data: bytes, step: int) -> Iterator[bytes]:
    """The bytes in blocks of uneven lengths that `step` decides."""
    begin, length = 0, 1 + step % 251
    while begin < len(data):
        yield data[begin : begin + length]
        begin += length
        length = 1 + (length * 31 + step) % 1499


def one(data: bytes) -> None:
    """Reads one input, and raises what nobody may ever see."""
    if len(data) < 2:
        return
    step, kind = data[-1], data[-2] % 2
    reader: ChangesParser = ContinuousParser(MAX_LINE_BYTES) if kind else PageParser(MAX_LINE_BYTES)
    try:
        for block in blocks(data[:-2], step):
            for change, size_bytes in reader.feed(block):
                if change.leaf_version <= 0 or not change.revs or size_bytes > len(data):
                    raise AssertionError(f"a change that is none: {change}")
    except MalformedFeedError:
        pass
    if reader._splitter._size_bytes > MAX_LINE_BYTES + 1500:
        raise AssertionError("more is held than a line may have")


def mutated(random: Random) -> bytes:
    """A real response with some bytes changed, cut, doubled or put elsewhere."""
    data = bytearray(random.choice(SEEDS))
    for _ in range(random.randint(0, 8)):
        at = random.randrange(len(data) + 1)
        kind = random.randrange(4)
        if kind == 0:
            data[at:at] = random.randbytes(random.randint(1, 9))
        elif kind == 1:
            del data[at : at + random.randint(1, 40)]
        elif kind == 2:
            data[at:at] = random.choice(SEEDS)[: random.randint(1, 200)]
        else:
            data[at : at + 1] = random.choice([b"\n", b"\r", b",", b"]", b"{", b'"', b"\xff", b"null"])
    return bytes(data) + random.randbytes(2)


def run_random(seconds: float, seed: int = 0) -> int:
    """Reads mutated responses for so long; returns how many."""
    random = Random(seed)
    until, count = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        one(mutated(random))
        count += 1
    return count


def main() -> None:
    """Runs under atheris where it is installed."""
    try:
        import atheris  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        atheris = None
    if atheris is None or "--random" in sys.argv:
        seconds = float(sys.argv[sys.argv.index("--random") + 1]) if "--random" in sys.argv else 60.0
        print(f"{run_random(seconds)} inputs in {seconds:.0f} s, none of them a surprise")
        return
    atheris.instrument_all()
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

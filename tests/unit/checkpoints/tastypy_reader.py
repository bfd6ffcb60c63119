"""Reads a directory by the rules of tastypy's own reader, as strict and as lax as that is."""

from __future__ import annotations

import json
import re
from pathlib import Path


def read(path: Path, *, file_size: int = 1000) -> list[tuple[object, object]]:
    """The entries; AssertionError where tastypy would refuse the store."""
    numbers = sorted(
        int(match[1]) for file in path.iterdir() if (match := re.search(r"(\d+).json", file.name))
    )
    assert numbers == list(range(len(numbers))), "a gap in the numbering"
    entries = []
    for number in numbers:
        lines = (path / f"{number}.json").read_text().split("\n")
        assert lines.pop() == "", "no newline at the end"
        assert len(lines) == file_size or number == numbers[-1], "a short file before the last"
        for line in lines:
            key, value = line.split("\t")
            entries.append((json.loads(key.replace("\\\\", "\\")), json.loads(value)))
    return entries

"""The rooms of the tests: which come first, and which are never run a second time."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

#: Seconds of a file on two quiet cores, guessed from its room until a run has measured it.
GUESSED_SECONDS = {
    "tests/chaos/": 100.0,
    "tests/acceptance/": 30.0,
    "tests/integration/": 15.0,
    "tests/tooling/": 5.0,
    "tests/": 2.0,
}
#: Seconds of each file, as the last run of all tests measured them.
MEASURED = Path("build/durations.json")

#: A test with one of these words in its name or its path stands for "nothing is lost": it fails once, it
#: has failed.
NEVER_AGAIN = re.compile("chaos|crash|lost_state|conformance", re.IGNORECASE)


def is_run_again(name: str) -> bool:
    """Return whether a test that failed on a busy machine may be run once more."""
    return not NEVER_AGAIN.search(name)


def expect_seconds(file: str) -> float:
    """Return how long a file of tests is likely to take."""
    if (seconds := read_measured().get(file)) is not None:
        return seconds
    return next((seconds for room, seconds in GUESSED_SECONDS.items() if file.startswith(room)), 1.0)


def sort_key(file: str) -> tuple[float, str]:
    """Order files so that the longest run first."""
    return -expect_seconds(file), file


@cache
def read_measured() -> dict[str, float]:
    """Return the seconds of each file, if there was a run of all of them."""
    try:
        measured: dict[str, float] = json.loads(MEASURED.read_bytes())
    except FileNotFoundError:
        return {}
    return measured

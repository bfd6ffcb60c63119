"""The reports of a run: while it goes on, at its end, and for later runs."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.runner.journal import TestResult
from tests.runner.rooms import MEASURED, expect_seconds
from tests.runner.worker import Worker

SLOWEST = 20
#: Tests that failed, and passed when they were run again.
UNSTEADY = Path("build/unsteady.json")


def say(*lines: str) -> None:
    """Print lines at once."""
    print(*lines, sep="\n", flush=True)


def format_time(seconds: float) -> str:
    """Return minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


class Progress:
    """How far a run is.

    Args:
        workers: those of the run.
    """

    def __init__(self, workers: list[Worker]) -> None:
        self._workers = workers
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long the run has taken so far."""
        return time.monotonic() - self._began

    def describe(self) -> str:
        """Return one line: tests done, failed, time so far and to go, and what runs now."""
        tests = self._count_tests()
        if not tests:
            return f"{format_time(self.seconds)}  collecting"
        results = collect_results(self._workers)
        done, total = len(results), sum(tests.values())
        failed = sum(result.outcome == "failed" for result in results.values())
        running = [name.removeprefix("tests/") for w in self._workers if (name := w.journal.running)]
        return (
            f"{format_time(self.seconds)}  {done}/{total} tests, {failed} failed, "
            f"about {format_time(self._seconds_to_go(tests, results))} to go; now {', '.join(running)}"
        )

    def _count_tests(self) -> dict[str, int]:
        return next((w.journal.tests for w in self._workers if w.journal.tests), {})

    def _seconds_to_go(self, tests: Mapping[str, int], results: Mapping[str, TestResult]) -> float:
        """Return the seconds that the missing tests are expected to take, at the speed of those done."""
        done = Counter(result.file for result in results.values())
        whole = sum(map(expect_seconds, tests))
        share = sum(expect_seconds(file) * done[file] / count for file, count in tests.items()) / (whole or 1)
        return self.seconds / share - self.seconds if share > 0.02 else whole / len(self._workers)


def collect_results(workers: Iterable[Worker]) -> dict[str, TestResult]:
    """Return the results of all workers by the tests' names."""
    return {name: result for worker in workers for name, result in worker.journal.results.items()}


def say_slowest(results: Mapping[str, TestResult]) -> None:
    """Print the tests that took longest."""
    slowest = sorted(results.values(), key=lambda result: -result.seconds)[:SLOWEST]
    say("", f"The slowest {len(slowest)}:", *(f"{one.seconds:7.1f} s  {one.name}" for one in slowest))


def say_skipped(results: Mapping[str, TestResult]) -> None:
    """Print why tests were skipped, and how many."""
    reasons = Counter(result.text for result in results.values() if result.outcome == "skipped")
    for reason, count in reasons.most_common():
        say(f"skipped {count}: {reason.removeprefix('Skipped: ')}")


def say_broken(workers: Iterable[Worker]) -> None:
    """Print all that workers printed which did not end well."""
    for worker in workers:
        if worker.is_broken:
            say("", worker.read_output(), f"A worker ended with {worker.code}.")


def record_durations(results: Mapping[str, TestResult]) -> None:
    """Keep how long each file took, for the order and the estimates of the next run."""
    seconds: Counter[str] = Counter()
    for result in results.values():
        seconds[result.file] += result.seconds  # type: ignore[assignment] # a Counter of floats
    write_json(MEASURED, {file: round(each, 2) for file, each in sorted(seconds.items())})


def record_unsteady(results: Iterable[TestResult]) -> None:
    """Add tests that failed and then passed to the file of such tests."""
    known = json.loads(UNSTEADY.read_bytes()) if UNSTEADY.exists() else []
    known += [
        {
            "test": result.name,
            "commit": read_commit(),
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "text": result.text,
        }
        for result in results
    ]
    write_json(UNSTEADY, known)


def write_json(path: Path, content: Any) -> None:
    """Write a file for people and programs to read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def read_commit() -> str:
    """Return the commit that is checked out, marked if files differ from it; nothing outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()

"""The journal of a worker: lines of JSON for the runner, in a file of the worker's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Outcome = Literal["passed", "failed", "skipped"]


@dataclass(slots=True)
class TestResult:
    """The result of one test.

    Attributes:
        seconds: of setup, call and teardown together.
        text: the failure as pytest shows it, or the reason why the test was skipped.
    """

    __test__ = False

    name: str
    outcome: Outcome = "passed"
    seconds: float = 0.0
    text: str = ""

    @property
    def file(self) -> str:
        return self.name.partition("::")[0]


@dataclass(slots=True)
class Journal:
    """The results in one worker's file, as far as they are written.

    Attributes:
        path: the file; it may not exist yet.
        tests: file -> the number of tests that the worker has collected there.
        results: the tests that have ended.
        running: the test that has begun and not ended.
    """

    path: Path
    tests: dict[str, int] = field(default_factory=dict)
    results: dict[str, TestResult] = field(default_factory=dict)
    running: str = ""
    _offset: int = 0
    _part: TestResult | None = None

    def read(self) -> None:
        """Read what was written since the last call."""
        for line in self._lines():
            getattr(self, f"_take_{line.pop('event')}")(**line)

    def _take_collected(self, tests: dict[str, int]) -> None:
        self.tests = tests

    def _take_began(self, test: str) -> None:
        self.running = test
        self._part = TestResult(test)

    def _take_phase(self, test: str, outcome: Outcome, seconds: float, text: str) -> None:
        result = self._part or TestResult(test)
        result.seconds += seconds
        if outcome != "passed" and result.outcome != "failed":
            result.outcome = outcome
        result.text += text
        self._part = result

    def _take_ended(self, test: str) -> None:
        if self._part:
            self.results[test] = self._part
        self.running, self._part = "", None

    def _lines(self) -> Iterator[dict[str, Any]]:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):  # it is being written
                    return
                self._offset += len(line)
                yield json.loads(line)

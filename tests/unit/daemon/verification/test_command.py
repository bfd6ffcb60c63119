"""`pillowd verify` in a process of its own, played by a script."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import gevent
import pytest

from checkpoints import TailKey
from daemon.verification.command import VerifyCommand, read_report
from tests.support.waiting import wait_until

KEY = TailKey("cases", "couch/cases")
REPORT = {
    "documents": 9,
    "targets": [
        {"target": "pg/case", "counts": {"missing": 1, "stale": 0, "phantom": 2}},
        {"target": "pg/visit", "counts": {"missing": 4, "stale": 0, "phantom": 0}},
        {"target": "es/case", "counts": {"missing": 0, "stale": 0, "phantom": 0}},
    ],
}


@pytest.fixture
def command(tmp_path: Path) -> Callable[[str], VerifyCommand]:
    def make(script: str) -> VerifyCommand:
        (tmp_path / "script.py").write_text(textwrap.dedent(script))
        program = (sys.executable, str(tmp_path / "script.py"))
        return VerifyCommand(tmp_path / "pillowd.yaml", os.environ, program=program)

    return make


def test_differences_are_counted_by_transport() -> None:
    found = read_report(json.dumps(REPORT).encode(), at=7.0)
    assert found.differences == {
        "pg": {"missing": 5, "stale": 0, "extra": 2},
        "es": {"missing": 0, "stale": 0, "extra": 0},
    }
    assert (found.at, found.reason, found.repaired) == (7.0, "", 0)


def test_what_a_repair_has_mended_is_counted() -> None:
    mended = {"targets": [{"target": "pg/case", "counts": {"missing": 1}}], "before_repair": REPORT}
    found = read_report(json.dumps(mended).encode(), at=7.0)
    assert (found.repaired, found.total) == (6, 1)


@pytest.mark.parametrize("output", [b"", b"[]", b"{}", b'{"targets": [{}]}'])
def test_a_report_that_cannot_be_read_is_a_failure(output: bytes) -> None:
    assert "cannot be read" in read_report(output, at=7.0).reason


@pytest.mark.parametrize("code", [0, 3])
def test_the_command_gets_its_words_and_its_report_is_read(
    command: Callable[[str], VerifyCommand], tmp_path: Path, code: int
) -> None:
    made = command(
        f"""
        import sys
        open("{tmp_path}/words", "w").write(repr(sys.argv[1:]))
        print({json.dumps(REPORT)!r})
        sys.exit({code})
        """
    )
    assert made.run(KEY, options=["--repair"], now=lambda: 7.0).total == 7
    words = ["verify", "cases@couch/cases", "--json", "--config", f"{tmp_path}/pillowd.yaml", "--repair"]
    assert (tmp_path / "words").read_text() == repr(words)


def test_a_failure_has_the_reason_that_the_command_gives(command: Callable[[str], VerifyCommand]) -> None:
    made = command("import sys; sys.stderr.write('retrying\\npillowd: the source is away\\n'); sys.exit(75)")
    assert made.run(KEY, now=lambda: 7.0).reason == "the source is away"
    assert command("raise SystemExit(9)").run(KEY, now=lambda: 7.0).reason == "it ended with 9"


def test_the_process_ends_with_the_greenlet(command: Callable[[str], VerifyCommand], tmp_path: Path) -> None:
    made = command(f"import os, time; open('{tmp_path}/pid', 'w').write(str(os.getpid())); time.sleep(600)")
    running = gevent.spawn(made.run, KEY, now=lambda: 7.0)
    pid = tmp_path / "pid"
    wait_until(lambda: pid.exists() and pid.read_text())
    running.kill()
    wait_until(lambda: not Path(f"/proc/{pid.read_text()}").exists())


def test_a_program_that_is_missing_is_a_failure(tmp_path: Path) -> None:
    made = VerifyCommand(tmp_path / "x", os.environ, program=(str(tmp_path / "missing"),))
    assert "No such file" in made.run(KEY, now=lambda: 7.0).reason

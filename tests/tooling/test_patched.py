"""The tests' own world: a test that hangs is failed, whoever is running then."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

HANGS = """
import gevent
from gevent.event import Event

def spin():
    while True:
        {turn}

def test_it_hangs():
    gevent.spawn(spin)
    Event().wait()
"""


@pytest.mark.parametrize("turn", ["gevent.sleep(0)", "pass"])
def test_a_timeout_fails_a_test_whose_greenlets_spin(tmp_path: Path, turn: str) -> None:
    file = tmp_path / "test_hangs.py"
    file.write_text(HANGS.format(turn=turn))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.patched", "-p", "no:cacheprovider"]
    command += ["--rootdir", str(tmp_path), "--timeout", "1", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Timeout" in done.stdout
    assert "1 failed" in done.stdout

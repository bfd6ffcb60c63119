"""Test that the code which each planted bug changes still exists."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.chaos.mutants import MUTANTS

PROGRAM = "import sys; from tests.chaos import mutants; mutants.plant(sys.argv[1])"


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_finds_its_place(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_the_harness_changes_of_every_daemon_is_there() -> None:
    program = "from tests.chaos import shim; shim.alternate(); shim.compact_often()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

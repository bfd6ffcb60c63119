"""Shell completion."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.acceptance.process import PILLOWD


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell):
    done = subprocess.run([*PILLOWD, "completion", shell], capture_output=True, text=True, check=True)

    assert "_PILLOWD_COMPLETE" in done.stdout


def test_completion_completes():
    environ = {"_PILLOWD_COMPLETE": "bash_complete", "COMP_WORDS": "pillowd mirror --", "COMP_CWORD": "2"}

    done = subprocess.run([*PILLOWD], env=os.environ | environ, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert "plain,--state-dir" in done.stdout.splitlines()

"""Runs scripts in processes of their own: plain Python, as a user of the library writes it, not patched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

#: Stores that tastypy wrote.
GOLDEN = Path(__file__).parent / "golden"


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Starts a script; the test ends it."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def run(script: str, *arguments: object, timeout: float = 60) -> str:
    """Returns the output of a script, which must succeed."""
    with start(script, *arguments) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        finally:
            process.kill()
    assert process.returncode == 0, err
    return out


def kill(process: subprocess.Popen[str]) -> None:
    """Kills a script with -9 and waits for its end."""
    with process:
        process.kill()
        process.stdin.close()
        process.wait(timeout=60)


def recount(tracker):
    entries = list(tracker.values())
    return (
        sum(entry["_done"] for entry in entries),
        sum(entry["_tries"] > 0 for entry in entries),
        sum(entry["_aborted"] for entry in entries),
    )

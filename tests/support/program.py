"""Separate Python programs, like a user's scripts: they import nothing of the tests."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: Runs each program that it reads in a fork of itself, and reports its exit code and output.
_HOST = """
import json, os, sys, tempfile
exec(sys.argv[1])
for line in sys.stdin:
    with tempfile.TemporaryFile() as output:
        if (pid := os.fork()) == 0:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            exec(json.loads(line))
            sys.exit()
        _, status = os.waitpid(pid, 0)
        output.seek(0)
        print(json.dumps([os.waitstatus_to_exitcode(status), output.read().decode()]), flush=True)
"""


def run_python(*arguments: str) -> str:
    """Run `python ARGUMENTS` in the repository; return its output. It must end with 0."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Programs:
    """Runs programs in sequence, each in a separate process that starts after the same lines.

    Most of the time of a short program goes into its imports; here they are made once.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, program: str) -> str:
        """Run a program; return its output. It must end with 0."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(program) + "\n")
        self._process.stdin.flush()
        code, output = json.loads(self._process.stdout.readline())
        assert code == 0, output
        return str(output)


@contextmanager
def programs_after(head: str) -> Iterator[Programs]:
    """Yield what runs programs that begin with these lines."""
    command = [sys.executable, "-c", _HOST, head]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Programs(process)

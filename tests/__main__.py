"""Runs all tests as three pytest processes side by side: most of them wait for servers, not for the machine.

    python -m tests [PYTEST ARGUMENTS]

With arguments it is one ordinary run of pytest.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import ExitStack

#: The parts; each starts servers of its own.
PARTS = (["tests/unit", "tests/integration"], ["tests/acceptance"], ["tests/chaos"])


def main(arguments: list[str]) -> int:
    """Returns pytest's exit code, the worst one of all."""
    command = [sys.executable, "-m", "pytest", "-q"]
    if arguments:
        return subprocess.call([*command, *arguments])
    first, *others = PARTS
    with ExitStack() as stack:
        told = [stack.enter_context(tempfile.TemporaryFile()) for _ in others]
        running = [
            stack.enter_context(subprocess.Popen([*command, *part], stdout=file, stderr=subprocess.STDOUT))
            for part, file in zip(others, told, strict=True)
        ]
        for process in running:
            stack.callback(process.kill)
        code = max(subprocess.call([*command, *first]), *(process.wait() for process in running))
        for file in told:
            file.seek(0)
            sys.stdout.buffer.write(file.read())
    sys.stdout.flush()
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

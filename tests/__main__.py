"""Runs all tests as two pytest processes side by side: most of them wait for servers, not for the machine.

    python -m tests [PYTEST ARGUMENTS]

With arguments it is one ordinary run of pytest.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile

#: The whole process, kill -9 and chaos; and everything else. Each starts servers of its own.
HALVES = (["tests/acceptance", "tests/chaos"], ["tests/unit", "tests/integration"])


def main(arguments: list[str]) -> int:
    """Returns pytest's exit code, the worse one of two."""
    command = [sys.executable, "-m", "pytest", "-q"]
    if arguments:
        return subprocess.call([*command, *arguments])
    with tempfile.TemporaryFile() as told:
        other = subprocess.Popen([*command, *HALVES[1]], stdout=told, stderr=subprocess.STDOUT)
        try:
            code = subprocess.call([*command, *HALVES[0]])
            code = max(code, other.wait())
        finally:
            other.kill()
        told.seek(0)
        sys.stdout.buffer.write(told.read())
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

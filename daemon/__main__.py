"""The first steps of the process: patch, then import.

gevent must replace the standard library's blocking parts before any of our modules, or a client
library, holds a reference to one of them.
"""

from __future__ import annotations

import sys


def start() -> None:
    """Patch the standard library, then run the command and exit with its code."""
    from daemon.process.patching import patch  # noqa: PLC0415  nothing may be imported before the patch

    patch()
    _import_structlog_alone()
    # requests would guess encodings with it, beside what it has for that anyway: 0.7 MB of an idle daemon.
    sys.modules["chardet"] = None  # type: ignore[assignment]
    from daemon.cli.main import run_command  # noqa: PLC0415  after the patch

    sys.exit(run_command(sys.argv[1:]))


def _import_structlog_alone() -> None:
    """Import structlog without rich, which it would show tracebacks with if it could.

    The daemon shows none. rich and what it imports took 4.6 MB of an idle daemon.
    """
    # None is how Python marks a module that cannot be imported.
    sys.modules["rich"] = None  # type: ignore[assignment]
    import structlog  # noqa: F401, PLC0415  for its effect

    del sys.modules["rich"]  # the commands' tables need it


def main() -> None:
    """Run `python -m daemon`, which equals the console script."""
    import pillowd  # noqa: PLC0415  checks whether another distribution hides this package

    pillowd.main()


if __name__ == "__main__":
    main()
